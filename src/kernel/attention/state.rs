//! The online-softmax states of queries, and how those of spans join.

use super::{FlashAttention, Sums, Tile};
use crate::{
    kernel::exp::Shift,
    simd::{Vector, array},
};

/// The online-softmax state of `C` vectors of queries: running maximum, its shift, sum of weights.
#[derive(Clone, Copy)]
pub(super) struct State<const C: usize, V> {
    pub(super) m: [V; C],
    pub(super) shift: [Shift<V, true>; C],
    pub(super) sum: [V; C],
}

impl<const C: usize, V> State<C, V> {
    /// The state before the first key: that of the sinks, if any.
    #[inline(always)]
    pub(super) fn new<const L: usize>(token: V::Token, sinks: Option<[V; C]>) -> Self
    where
        V: Vector<L>,
    {
        let m = sinks.unwrap_or([V::splat(token, f32::NEG_INFINITY); C]);
        let lowest = V::splat(token, f32::MIN);
        let shift: [Shift<V, true>; C] = array!(|c| Shift::new(token, lowest.max(m[c])));
        let sum = match sinks {
            Some(sinks) => array!(|c| shift[c].weight(token, sinks[c])),
            None => [V::splat(token, 0.0); C],
        };
        Self { m, shift, sum }
    }

    /// Whether one of the maxima `m` is +∞.
    #[inline(always)]
    pub(super) fn has_infinity<const L: usize>(m: [V; C]) -> bool
    where
        V: Vector<L>,
    {
        let mut has_infinity = false;
        for m in m {
            has_infinity |= m.to_array().contains(&f32::INFINITY);
        }
        has_infinity
    }

    /// Raises the running maxima to `m` and returns the factors that rescale sums and accumulators.
    #[inline(always)]
    pub(super) fn raise_maximum<const L: usize>(&mut self, token: V::Token, m: [V; C]) -> [V; C]
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let (zero, one) = (constant(0.0), constant(1.0));
        let largest = constant(f32::MAX);
        let mut factors = [zero; C];
        for c in 0..C {
            let finite = m[c].select_gt(largest, zero, constant(f32::MIN).max(m[c]));
            let shift = Shift::new(token, finite);
            let factor = self.shift[c].factor_to(token, shift);
            // Finite scores have no weight beside +∞: the first +∞ resets the sums, a later one keeps them.
            let at_infinity = self.m[c].select_gt(largest, one, zero);
            factors[c] = m[c].select_gt(largest, at_infinity, factor);
            self.shift[c] = shift;
        }
        self.m = m;
        factors
    }
}

/// The states of `C` vectors of queries: of the current span, and of the spans before it.
#[derive(Clone, Copy)]
pub(super) struct States<const C: usize, V> {
    pub(super) span: State<C, V>,
    /// The total of the states before; its accumulators are in the output. `None` if there are none.
    pub(super) total: Option<State<C, V>>,
}

/// How the accumulators of a span join those of the total: `lesser · factor + larger`.
#[derive(Clone, Copy)]
pub(super) struct Join<const C: usize, V> {
    /// The maxima of the span and of the total: the larger one has the larger accumulators.
    pub(super) m: [[V; C]; 2],
    pub(super) factors: [V; C],
}

impl<const C: usize, V> States<C, V> {
    #[inline(always)]
    pub(super) fn new<const L: usize>(token: V::Token, sinks: Option<[V; C]>) -> Self
    where
        V: Vector<L>,
    {
        Self { span: State::new(token, sinks), total: None }
    }

    /// Ends a span: its state becomes part of the total, and unless it is the `last` a new one begins. Returns the
    /// total, and how its accumulators join, unless it is the first state.
    #[inline(always)]
    pub(super) fn end_span<const L: usize>(
        &mut self,
        token: V::Token,
        last: bool,
    ) -> (State<C, V>, Option<Join<C, V>>)
    where
        V: Vector<L>,
    {
        let (state, join) = match self.total {
            None => (self.span, None),
            Some(total) => {
                let (state, join) = self.span.join(token, total);
                (state, Some(join))
            }
        };
        if !last {
            *self = Self { span: State::new(token, None), total: Some(state) };
        }
        (state, join)
    }
}

impl<const C: usize, V> State<C, V> {
    /// The final factors of the accumulators: the reciprocals of the sums if they are to be `normalised`, else 1.
    #[inline(always)]
    pub(super) fn factors<const L: usize>(&self, token: V::Token, normalised: bool) -> [V; C]
    where
        V: Vector<L>,
    {
        let one = V::splat(token, 1.0);
        if normalised { array!(|c| normaliser(token, self.sum[c])) } else { [one; C] }
    }

    /// Writes the sums.
    #[inline(always)]
    pub(super) fn write_sums<const L: usize>(
        &self,
        attention: &mut FlashAttention<'_, '_>,
        tile: &Tile<'_>,
    ) where
        V: Vector<L>,
    {
        let Some(write) = &mut attention.sums else { return };
        for c in 0..C {
            let lanes = tile.visible.len().saturating_sub(c * L).min(L);
            let [max, sum] = [self.m[c], self.sum[c]].map(V::to_array);
            if let (Some(max), Some(sum)) = (max.get(..lanes), sum.get(..lanes)) {
                write(tile.first + c * L, Sums { max, sum });
            }
        }
    }

    /// Joins the state of a span with the total of those before it.
    #[inline(always)]
    pub(super) fn join<const L: usize>(self, token: V::Token, total: Self) -> (Self, Join<C, V>)
    where
        V: Vector<L>,
    {
        let mut join = Join { m: [self.m, total.m], factors: self.m };
        let larger: [V; C] = array!(|c| join.select(c, self.m[c], total.m[c]));
        let mut state = Self {
            m: array!(|c| join.select(c, total.m[c], self.m[c])),
            shift: array!(|c| Shift::select(
                #[inline(always)]
                |a, b| join.select(c, a, b),
                total.shift[c],
                self.shift[c]
            )),
            sum: array!(|c| join.select(c, total.sum[c], self.sum[c])),
        };
        join.factors = state.raise_maximum(token, larger);
        state.sum = array!(|c| {
            let larger = join.select(c, self.sum[c], total.sum[c]);
            state.sum[c].mul_add(join.factors[c], larger)
        });
        (state, join)
    }
}

impl<V: Copy> Join<1, V> {
    /// The join of the query in lane `lane`, in every lane.
    #[inline(always)]
    pub(super) fn lane<const L: usize>(self, token: V::Token, lane: usize) -> Self
    where
        V: Vector<L>,
    {
        let splat = |x: V| V::splat(token, x.to_array().get(lane).copied().unwrap_or(0.0));
        let [[of_span], [of_total]] = self.m;
        let [factor] = self.factors;
        Self { m: [[splat(of_span)], [splat(of_total)]], factors: [splat(factor)] }
    }
}

impl<const C: usize, V: Copy> Join<C, V> {
    /// In each lane of vector `c`: `a` where the maximum of the span is the larger one, else `b`.
    #[inline(always)]
    pub(super) fn select<const L: usize>(&self, c: usize, a: V, b: V) -> V
    where
        V: Vector<L>,
    {
        self.m[0][c].select_gt(self.m[1][c], a, b)
    }

    /// Joins accumulators of vector `c` of the queries.
    #[inline(always)]
    pub(super) fn apply<const L: usize>(&self, c: usize, span: V, total: V) -> V
    where
        V: Vector<L>,
    {
        let (lesser, larger) = (self.select(c, total, span), self.select(c, span, total));
        lesser.mul_add(self.factors[c], larger)
    }
}

/// The final factor of an accumulator whose weights have this sum: its reciprocal.
#[inline(always)]
pub(super) fn normaliser<const L: usize, V: Vector<L>>(token: V::Token, sum: V) -> V {
    // The only sum of weights below MIN_POSITIVE is 0, and then the accumulators are 0 too. NaN stays NaN.
    V::splat(token, 1.0) / V::splat(token, f32::MIN_POSITIVE).max(sum)
}
