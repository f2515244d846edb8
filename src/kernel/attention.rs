//! Attention without a score grid: an online softmax over blocks of keys.
//!
//! ```text
//! for each C vectors of queries                       lanes are queries
//!   Qt = scale · queries, transposed
//!   m = −∞ or the sink, sum, acc = 0
//!   for each block of keys that one of them sees
//!     s[key][query] = key · Qt                        the tile
//!     cap, bias, mask: −∞ where masked
//!     m' = max(m, s),  f = e^(m − m'), a power of two
//!     w = e^(s − m')
//!     sum = sum · f + Σ w
//!     acc = acc · f + Σ w · value                     the tile
//!   out = acc / sum
//! ```
//!
//! 1. `f` is a power of two, because the shift of the exponentials is a whole number
//!    ([`exp`](super::exp)): the rescale rounds nothing.
//! 2. A block's sums begin at 0 and are added to the total: shorter chains, and
//!    the rescale is part of that addition. [`order`](super::order) has the order.
//! 3. In each lane a masked key leaves the bits of `m`, `sum` and `acc` alone, so that skipping a block that
//!    nobody sees changes nothing. Only the sign of a zero could tell, and the
//!    last step makes every zero +0.
//! 4. A value that is not finite would make NaN of a masked weight, 0. Where a block has
//!    one and is masked in part, masked weights are marked by −1 and left out one by one.
//! 5. Where a score is +∞ its query's weights are 1 for those and 0 for the
//!    others, from then on.

use core::ops::Range;

use super::{
    Kernel,
    exp::Shift,
    mask::{Adjust, Blocks, KEY_BLOCK, Sight},
    softmax::share,
    tile::accumulate,
};
use crate::{
    HeadsMut, HeadsRef, MatrixMut, MatrixRef,
    simd::{
        Vector, array,
        strip::{self, Source, Taps},
    },
};

/// How many queries share a tile at most: 2 vectors of the widest back end of a target.
pub(crate) const QUERY_BLOCK: usize =
    if cfg!(any(target_arch = "arm", target_arch = "riscv32")) { 4 } else { 32 };

/// How many floats of workspace heads of these sizes need: transposed queries, the
/// scores of a block, accumulators.
pub(crate) const fn workspace(dim: usize, value_dim: usize) -> usize {
    dim.saturating_add(value_dim).saturating_add(KEY_BLOCK).saturating_mul(QUERY_BLOCK)
}

/// What the log-sum-exp of some queries in a row is made of: `base + n · ln 2 + ln sum`.
#[derive(Clone, Copy)]
pub(crate) struct Logits<'a> {
    pub(crate) base: &'a [f32],
    pub(crate) n: &'a [f32],
    pub(crate) sum: &'a [f32],
}

/// The queries of heads that share keys and values, one query after another, head
/// after head; all sizes agree.
pub(crate) struct Fused<'a> {
    pub(crate) queries: HeadsRef<'a>,
    pub(crate) blocks: Blocks<'a>,
    pub(crate) scale: f32,
    pub(crate) sight: Sight,
    pub(crate) adjust: Option<&'a dyn Adjust>,
    /// The sink of each head, where there is one; else the one of all.
    pub(crate) sinks: &'a [f32],
    pub(crate) sink: f32,
    pub(crate) out: HeadsMut<'a>,
    /// Takes the first of some queries in a row, and what their log-sum-exp is made of.
    pub(crate) log_sum_exp: Option<&'a mut dyn FnMut(usize, Logits<'_>)>,
    /// At least [`workspace`] of the sizes.
    pub(crate) workspace: &'a mut [f32],
}

impl Kernel for Fused<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        mut self,
        token: V::Token,
    ) {
        let queries = self.queries.heads() * self.queries.rows();
        let mut first = 0;
        while first < queries {
            if queries - first > L {
                self.tile_of_queries::<L, R, C, V>(token, first);
                first += C * L;
            } else {
                self.tile_of_queries::<L, R, 1, V>(token, first);
                first += L;
            }
        }
    }
}

/// What an online softmax knows of `C` vectors of queries.
struct State<const C: usize, V> {
    m: [V; C],
    shift: [Shift<V, true>; C],
    sum: [V; C],
}

impl Fused<'_> {
    /// The head and the token of query `i`.
    #[inline(always)]
    fn locate(&self, i: usize) -> (usize, usize) {
        let tokens = self.queries.rows();
        (i.checked_div(tokens).unwrap_or(0), i.checked_rem(tokens).unwrap_or(0))
    }

    #[inline(always)]
    fn tile_of_queries<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        first: usize,
    ) {
        let width = C * L;
        let (dim, value_dim) = (self.queries.cols(), self.out.cols());
        let count = (self.queries.heads() * self.queries.rows() - first).min(width);
        let workspace = core::mem::take(&mut self.workspace);
        let Some((packed, rest)) = workspace.split_at_mut_checked(dim * width) else { return };
        let Some((scores, rest)) = rest.split_at_mut_checked(KEY_BLOCK * width) else { return };
        let Some((acc, _)) = rest.split_at_mut_checked(value_dim * width) else { return };

        self.pack::<L, C, V>(token, first, packed);
        acc.fill(0.0);
        let sink: [V; C] = self.sinks_of::<L, C, V>(token, first);
        let shift: [Shift<V, true>; C] = array!(|c| Shift::new(token, sink[c]));
        let sum = array!(|c| shift[c].weight(token, sink[c]));
        let mut state = State { m: sink, shift, sum };

        let sight = self.sight_of::<L, C>(first, count);
        for block in sight.any.start / KEY_BLOCK..sight.any.end.div_ceil(KEY_BLOCK) {
            let begin = block * KEY_BLOCK;
            let keys = begin..self.sight.keys[1].min(begin + KEY_BLOCK);
            if self.is_hidden(&keys, first, count) {
                continue;
            }
            let Some([key_block, values]) = self.blocks.block(block, keys.len(), dim) else {
                continue;
            };
            let Some(scores) = scores.get_mut(..keys.len() * width) else { continue };
            let whole = sight.all.start <= keys.start && keys.end <= sight.all.end;
            // −∞ where masked.
            score::<L, R, C, V>(token, key_block, packed, scores);
            if let Some(adjust) = self.adjust {
                self.each_head(&keys, first, count, width, scores, |key, token, scores| {
                    adjust.apply(key, token, scores);
                });
            }
            if !whole {
                sight.mark::<V>(token, &keys, f32::NEG_INFINITY, scores);
            }
            let factor = state.weigh::<L>(token, scores);
            let masked = !whole || self.adjust.is_some();
            if masked && !is_finite::<L, V>(token, values) {
                if let Some(adjust) = self.adjust {
                    self.each_head(&keys, first, count, width, scores, |key, token, scores| {
                        adjust.mark(key, token, -1.0, scores);
                    });
                }
                sight.mark::<V>(token, &keys, -1.0, scores);
                add_visible::<L, C, V>(token, values, scores, factor, acc);
            } else {
                add::<L, R, C, V>(token, values, scores, factor, acc);
            }
        }
        self.finish::<L, C, V>(token, first, count, &state, acc);
        self.workspace = workspace;
    }

    /// Whether none of these queries sees any of `keys`.
    #[inline(always)]
    fn is_hidden(&self, keys: &Range<usize>, first: usize, count: usize) -> bool {
        let Some(adjust) = self.adjust else { return false };
        self.heads_of(first, count).all(|(_, tokens)| adjust.hides(keys.clone(), tokens))
    }

    /// The queries from `first` on, as the place of each head's first and its tokens.
    #[inline(always)]
    fn heads_of(
        &self,
        first: usize,
        count: usize,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let tokens = self.queries.rows();
        let (_, mut token) = self.locate(first);
        let mut lane = 0;
        core::iter::from_fn(move || {
            if lane >= count {
                return None;
            }
            let here = (count - lane).min(tokens - token);
            let item = (lane, token..token + here);
            (lane, token) = (lane + here, 0);
            Some(item)
        })
    }

    /// Calls `f` with the scores (keys × tokens) of each head in a tile.
    #[inline(always)]
    fn each_head(
        &self,
        keys: &Range<usize>,
        first: usize,
        count: usize,
        width: usize,
        scores: &mut [f32],
        f: impl Fn(usize, usize, MatrixMut<'_>),
    ) {
        for (lane, tokens) in self.heads_of(first, count) {
            let Ok(all) = MatrixMut::new(scores, keys.len(), width) else { return };
            let Ok((_, right)) = all.split_columns(lane) else { return };
            let Ok((these, _)) = right.split_columns(tokens.len()) else { return };
            f(keys.start, tokens.start, these);
        }
    }

    /// Lays the queries from `first` on side by side, times the scale; what is behind
    /// the last is 0.
    #[inline(always)]
    fn pack<const L: usize, const C: usize, V: Vector<L>>(
        &self,
        token: V::Token,
        first: usize,
        packed: &mut [f32],
    ) {
        let scale = V::splat(token, self.scale);
        let heads = self.queries;
        for c in 0..C {
            let rows: [(MatrixRef<'_>, usize); L] = array!(|lane| {
                let (head, row) = self.locate(first + c * L + lane);
                match heads.head(head) {
                    Some(head) => (head, row),
                    None => (MatrixRef::EMPTY, 0),
                }
            });
            for (i, to) in packed.chunks_mut(L * C * L).enumerate() {
                let square = array!(|lane| {
                    let (head, row) = rows[lane];
                    let [vector] = strip::read(token, head, row, i * L);
                    vector
                });
                for (to, vector) in to
                    .as_chunks_mut::<L>()
                    .0
                    .iter_mut()
                    .skip(c)
                    .step_by(C)
                    .zip(V::transpose(square))
                {
                    (vector * scale).store(to);
                }
            }
        }
    }

    #[inline(always)]
    fn sinks_of<const L: usize, const C: usize, V: Vector<L>>(
        &self,
        token: V::Token,
        first: usize,
    ) -> [V; C] {
        if self.sinks.is_empty() {
            return [V::splat(token, self.sink); C];
        }
        array!(|c| {
            let lanes = array!(|lane| {
                let (head, _) = self.locate(first + c * L + lane);
                self.sinks.get(head).copied().unwrap_or(self.sink)
            });
            V::load(token, &lanes)
        })
    }

    #[inline(always)]
    fn sight_of<const L: usize, const C: usize>(&self, first: usize, count: usize) -> Sights<L, C> {
        let mut from = [[0; L]; C];
        let mut to = [[0; L]; C];
        let (mut any, mut all) = (usize::MAX..0, 0..usize::MAX);
        for i in 0..count {
            let keys = self.sight.of(self.locate(first + i).1);
            from.as_flattened_mut().iter_mut().skip(i).take(1).for_each(|x| *x = keys.start);
            to.as_flattened_mut().iter_mut().skip(i).take(1).for_each(|x| *x = keys.end);
            if !keys.is_empty() {
                any = any.start.min(keys.start)..any.end.max(keys.end);
            }
            all = all.start.max(keys.start)..all.end.min(keys.end);
        }
        if any.start > any.end {
            any = 0..0;
        }
        Sights { from, to, any, all }
    }

    #[inline(always)]
    fn finish<const L: usize, const C: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        first: usize,
        count: usize,
        state: &State<C, V>,
        acc: &mut [f32],
    ) {
        let zero = V::splat(token, 0.0);
        for c in 0..C {
            let sum = state.sum[c];
            let factor = sum.select_gt(zero, V::splat(token, 1.0) / sum, sum);
            for (i, chunk) in acc.chunks(L * C * L).enumerate() {
                let rows = chunk.as_chunks::<L>().0;
                let square = array!(|k| match rows.get(k * C + c) {
                    Some(row) => V::load(token, row).mul_add(factor, zero),
                    None => zero,
                });
                for (lane, vector) in V::transpose(square).into_iter().enumerate() {
                    let lane = c * L + lane;
                    if lane < count {
                        let (head, row) = self.locate(first + lane);
                        if let Some(mut head) = self.out.head_mut(head) {
                            strip::write::<L, 1, 1, V>(&mut head, row, i * L, [[vector]]);
                        }
                    }
                }
            }
        }
        if let Some(log_sum_exp) = &mut self.log_sum_exp {
            for c in 0..C {
                let infinite = state.m[c].select_gt(V::splat(token, f32::MAX), state.m[c], zero);
                let [base, n] = state.shift[c].base_and_n(token);
                let (base, n, sum) =
                    ((base + infinite).to_array(), n.to_array(), state.sum[c].to_array());
                let here = count.saturating_sub(c * L).min(L);
                if let (Some(base), Some(n), Some(sum)) =
                    (base.get(..here), n.get(..here), sum.get(..here))
                {
                    log_sum_exp(first + c * L, Logits { base, n, sum });
                }
            }
        }
    }
}

/// The keys that each query of a tile sees; a lane without a query sees none.
struct Sights<const L: usize, const C: usize> {
    from: [[usize; L]; C],
    to: [[usize; L]; C],
    /// That one of them sees, from the first to the last.
    any: Range<usize>,
    /// That all of them see.
    all: Range<usize>,
}

impl<const L: usize, const C: usize> Sights<L, C> {
    /// Writes `mark` where a query does not see a key of the block.
    #[inline(always)]
    fn mark<V: Vector<L>>(
        &self,
        token: V::Token,
        keys: &Range<usize>,
        mark: f32,
        scores: &mut [f32],
    ) {
        // Whole numbers up to KEY_BLOCK: exact.
        let within = |at: usize| at.saturating_sub(keys.start).min(KEY_BLOCK) as f32;
        let mark = V::splat(token, mark);
        for c in 0..C {
            let (from, to) = (&self.from[c], &self.to[c]);
            let from = V::load(token, &array!(|lane| within(from[lane])));
            let to = V::load(token, &array!(|lane| within(to[lane])));
            let rows = scores.as_chunks_mut::<L>().0.iter_mut().skip(c).step_by(C);
            for (key, row) in rows.enumerate() {
                let key = V::splat(token, key as f32);
                let s = from.select_gt(key, mark, V::load(token, row));
                to.select_gt(key, s, mark).store(row);
            }
        }
    }
}

/// `scores[key][query]` of a block, by tiles.
#[inline(always)]
fn score<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    keys: MatrixRef<'_>,
    packed: &[f32],
    scores: &mut [f32],
) {
    let right = Source::dense(packed, C * L);
    for (i, rows) in scores.chunks_mut(R * C * L).enumerate() {
        let left = Taps::<R>::new(keys, i * R, 0);
        let sums = accumulate::<L, R, C, V>(token, left, right, [[V::splat(token, 0.0); C]; R]);
        for (row, sums) in rows.as_chunks_mut::<L>().0.chunks_exact_mut(C).zip(sums) {
            for (to, sum) in row.iter_mut().zip(sums) {
                sum.store(to);
            }
        }
    }
}

impl<const C: usize, V> State<C, V> {
    /// Makes weights of the scores of a block and adds them to the sum; gives what
    /// the accumulators are to be multiplied by.
    #[inline(always)]
    fn weigh<const L: usize>(&mut self, token: V::Token, scores: &mut [f32]) -> [V; C]
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let mut m = self.m;
        for row in scores.as_chunks::<L>().0.chunks_exact(C) {
            for c in 0..C {
                if let Some(x) = row.get(c) {
                    m[c] = V::load(token, x).max(m[c]);
                }
            }
        }
        let infinite = m.iter().any(|m| m.to_array().contains(&f32::INFINITY));
        if infinite {
            for row in scores.as_chunks_mut::<L>().0.chunks_exact_mut(C) {
                for (c, x) in row.iter_mut().enumerate() {
                    if let Some(&m) = m.get(c) {
                        share(token, m, V::load(token, x)).store(x);
                    }
                }
            }
        }
        let (zero, one, largest) = (constant(0.0), constant(1.0), constant(f32::MAX));
        let mut factors = [one; C];
        for c in 0..C {
            let shift = Shift::new(token, m[c].select_gt(largest, zero, m[c]));
            let mut factor = self.shift[c].factor_to(token, shift);
            // What has no key yet is 0, and so is what counts for nothing beside +∞.
            factor = self.m[c].select_gt(constant(f32::NEG_INFINITY), factor, zero);
            if infinite {
                let stays = self.m[c].select_gt(largest, one, zero);
                factor = m[c].select_gt(largest, stays, factor);
            }
            factors[c] = factor;
            let mut parts = [zero; PARTS];
            let mut rows = scores.as_chunks_mut::<L>().0.chunks_exact_mut(PARTS * C);
            for rows in rows.by_ref() {
                weigh_rows::<L, C, V>(token, shift, c, rows, &mut parts);
            }
            weigh_rows::<L, C, V>(token, shift, c, rows.into_remainder(), &mut parts);
            let [first, second, third, fourth] = parts;
            let sum = (first + third) + (second + fourth);
            self.sum[c] = self.sum[c].mul_add(factor, sum);
            self.shift[c] = shift;
        }
        self.m = m;
        factors
    }
}

/// Makes weights of vector `c` of up to [`PARTS`] rows, each added to a partial sum of its own.
#[inline(always)]
fn weigh_rows<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    shift: Shift<V, true>,
    c: usize,
    rows: &mut [[f32; L]],
    parts: &mut [V; PARTS],
) {
    for part in 0..PARTS {
        if let Some(x) = rows.get_mut(part * C + c) {
            let w = shift.weight(token, V::load(token, x));
            w.store(x);
            parts[part] = parts[part] + w;
        }
    }
}

/// How many partial sums the weights of a block have.
const PARTS: usize = 4;

/// `acc · factor + Σ weight · value`, by tiles.
#[inline(always)]
fn add<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    values: MatrixRef<'_>,
    weights: &[f32],
    factor: [V; C],
    acc: &mut [f32],
) {
    let right = Source::dense(weights, C * L);
    for (i, rows) in acc.chunks_mut(R * C * L).enumerate() {
        let left = Taps::<R>::new(values.t(), i * R, 0);
        let sums = accumulate::<L, R, C, V>(token, left, right, [[V::splat(token, 0.0); C]; R]);
        for (row, sums) in rows.as_chunks_mut::<L>().0.chunks_exact_mut(C).zip(sums) {
            for c in 0..C {
                if let Some(to) = row.get_mut(c) {
                    V::load(token, to).mul_add(factor[c], sums[c]).store(to);
                }
            }
        }
    }
}

/// As [`add`], without the products whose weight is marked by a negative number.
#[inline(always)]
fn add_visible<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    values: MatrixRef<'_>,
    weights: &[f32],
    factor: [V; C],
    acc: &mut [f32],
) {
    let zero = V::splat(token, 0.0);
    for (col, row) in acc.as_chunks_mut::<L>().0.chunks_exact_mut(C).enumerate() {
        for (c, to) in row.iter_mut().enumerate() {
            let mut sum = zero;
            for (key, w) in weights.as_chunks::<L>().0.iter().skip(c).step_by(C).enumerate() {
                let w = V::load(token, w);
                let value = V::splat(token, values.get(key, col).unwrap_or(0.0));
                sum = zero.select_gt(w, sum, w.mul_add(value, sum));
            }
            if let Some(&factor) = factor.get(c) {
                V::load(token, to).mul_add(factor, sum).store(to);
            }
        }
    }
}

/// Whether no value is NaN or infinite.
#[inline(always)]
fn is_finite<const L: usize, V: Vector<L>>(token: V::Token, values: MatrixRef<'_>) -> bool {
    let mut differences = V::splat(token, 0.0);
    for row in 0..values.rows() {
        Source::row(values, row, L).for_each(
            token,
            0.0,
            #[inline(always)]
            |[x]: [V; 1]| differences = differences + (x - x),
        );
    }
    differences.to_array().iter().all(|x| *x == 0.0)
}
