//! Softmax of slices, rows and columns: three passes over the same memory.
//!
//! ```text
//! m = max x                            where m = +∞: x = 0 where it is +∞, else −∞
//! w = e^(x − m), sum += w              written to the output
//! w = w · (1 / sum)                    +0 below 2⁻¹²⁶
//! ```
//!
//! 1. The shift by `m` is applied to the exponent ([`exp`](super::exp)) and rounds nothing. The weights do
//!    not wait for it ([`exp::overlap`](super::exp::overlap)), so that the first two passes overlap.
//! 2. The sum is compensated ([`Sum`]). At 1024 elements a plain sum is off by 40 ULP. A compensated one is
//!    off by less than 1 along columns, which add single weights, and by less than 2 along rows, which add
//!    pairs.
//! 3. Weights that would be subnormal are set to +0 *before* the multiplication, because an x86 core takes a
//!    slow path for each subnormal result.
//! 4. A NaN makes the sum NaN, and the sum makes every weight NaN.
//! 5. Where the maximum is −∞ or there is no element, the sum is 0, and so are the weights.
//!
//! With weights within 1 ULP, a sum within 2 ULP and two roundings, a result is within 6 ULP. Hill-climbing
//! searches found 4.8 ULP at worst.

use super::{
    Kernel, Name,
    exp::{
        Shift, WEIGHT_BIAS,
        overlap::{DeferredShift, LARGE_MAXIMUM},
        poly_scale,
    },
};
use crate::{
    matrix::{MatrixMut, MatrixRef},
    simd::{
        Vector, array, each,
        scalar::F32x1,
        scalar_row::ScalarRow,
        strip::{InOut, Source, Strip},
    },
};

mod one_lane;
mod rows;

pub(crate) use rows::Rows;

/// A compensated sum of weights in each lane.
///
/// `a` starts at [`SUM_BIAS`] and stays above every weight, so that the rounding error of `t = a + w` is
/// exactly `w − (t − a)`. `e` is the sum of these errors.
#[derive(Clone, Copy)]
struct Sum<V> {
    a: V,
    e: V,
}

/// The start of [`Sum::a`]: 2⁶⁹. No weight is above 2⁶⁵.
///
/// With a larger start more of each weight would go to `e`, a plain sum: with 2⁷⁶, a column of one large
/// weight and 1023 equal ones is off by 93 ULP. With a smaller start the partial sums of a group have more
/// bits than their fold keeps: 5.3 ULP with 2⁶⁵. With 2⁶⁹ the same searches find 4.2 ULP for a column.
const SUM_BIAS: f32 = WEIGHT_BIAS * 64.0;

impl<V> Sum<V> {
    #[inline(always)]
    fn new<const L: usize>(token: V::Token) -> Self
    where
        V: Vector<L>,
    {
        Self::from(token, V::splat(token, SUM_BIAS))
    }

    /// An empty sum whose `a` starts at `bias`.
    #[inline(always)]
    fn from<const L: usize>(token: V::Token, bias: V) -> Self
    where
        V: Vector<L>,
    {
        Self { a: bias, e: V::splat(token, 0.0) }
    }

    #[inline(always)]
    fn add<const L: usize>(&mut self, w: V)
    where
        V: Vector<L>,
    {
        let t = self.a + w;
        self.e = self.e + (w - (t - self.a));
        self.a = t;
    }

    /// Adds four weights as two pairs. The rounding errors of the two additions to `a` are added to each
    /// other first, which halves the chain of additions to `e`.
    #[inline(always)]
    fn add_four<const L: usize>(&mut self, w0: V, w1: V, w2: V, w3: V)
    where
        V: Vector<L>,
    {
        let (first, second) = (w0 + w1, w2 + w3);
        let t = self.a + first;
        let lost = first - (t - self.a);
        let a = t + second;
        self.e = self.e + (lost + (second - (a - t)));
        self.a = a;
    }

    /// The sum without `e`.
    #[inline(always)]
    fn unbiased<const L: usize>(self, token: V::Token) -> V
    where
        V: Vector<L>,
    {
        self.a - V::splat(token, SUM_BIAS)
    }
}

/// Divides weights by their sum.
#[derive(Clone, Copy)]
struct Normaliser<V> {
    /// Weights up to this one become +0: their quotients would be subnormal.
    cutoff: V,
    factor: V,
}

/// A little more than 2⁻¹²⁶: the 4 ULP cover the three roundings between
/// `w > cutoff` and `w · factor >= 2⁻¹²⁶`.
const SMALLEST: f32 = f32::from_bits(0x0080_0004);

impl Normaliser<F32x1> {
    /// Broadcasts to every lane. The division of one float takes 7 cycles less than that of a vector of
    /// AVX-512.
    #[inline(always)]
    fn splat<const L: usize, V>(self, token: V::Token) -> Normaliser<V>
    where
        V: Vector<L>,
    {
        let Self { cutoff: F32x1(cutoff), factor: F32x1(factor) } = self;
        Normaliser { cutoff: V::splat(token, cutoff), factor: V::splat(token, factor) }
    }
}

impl<V> Normaliser<V> {
    /// For weights with the sum `a + e`, where `e` affects only the lowest bits.
    #[inline(always)]
    fn new<const L: usize>(token: V::Token, a: V, e: V) -> Self
    where
        V: Vector<L>,
    {
        // The smallest normal number keeps the factor finite where all weights are 0; otherwise `a` is far
        // above it. A NaN in `a` or `e` stays NaN.
        let sum = V::splat(token, f32::MIN_POSITIVE).max(a) + e;
        // The factor is 1 / sum. Columns use a constant that the polynomial already has in a register,
        // because registers are scarce there. A row, one lane here, waits for this quotient: 1 needs no
        // multiplication.
        let scale = V::splat(token, const { if L == 1 { 1.0 } else { poly_scale(V::FMA) } });
        Self { cutoff: sum * V::splat(token, SMALLEST), factor: scale / (scale * sum) }
    }

    #[inline(always)]
    fn apply<const L: usize>(self, w: V) -> V
    where
        V: Vector<L>,
    {
        w.times_above(self.factor, self.cutoff)
    }
}

/// The largest element in each lane; −∞ where there is none. Where an element is NaN the result is
/// unspecified: the sum is NaN under any shift.
///
/// This order of the operands of `max` lets x86 read the element from memory as part of the instruction.
#[inline(always)]
fn maximum<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    strip: Source<'_>,
) -> [V; G] {
    let mut m = [V::splat(token, f32::NEG_INFINITY); G];
    strip.for_each(
        token,
        f32::NEG_INFINITY,
        #[inline(always)]
        |x: [V; G]| m = array!(|g| m[g].max(x[g])),
    );
    m
}

/// The shift of a column whose maximum is not large.
///
/// [`DeferredShift`] has fewer steps. One lane uses [`Shift`], which returns the same bits: rustc 1.95
/// compares the lanes of a Cortex-M55 with a constant as if NaN were less than it, and so would lose a NaN.
#[derive(Clone, Copy)]
struct ColumnShift<V> {
    deferred: DeferredShift<V>,
    plain: Shift<V>,
}

impl<V> ColumnShift<V> {
    #[inline(always)]
    fn new<const L: usize>(token: V::Token, m: V) -> Self
    where
        V: Vector<L>,
    {
        Self { deferred: DeferredShift::new(token, m), plain: Shift::without_base(token, m) }
    }

    #[inline(always)]
    fn weight<const L: usize>(self, token: V::Token, x: V) -> V
    where
        V: Vector<L>,
    {
        if L == 1 {
            return self.plain.weight(token, x);
        }
        self.deferred.weight(token, x)
    }
}

/// Writes the weights of a strip. Returns their sums.
#[inline(always)]
fn weigh<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    strip: &mut Strip<'_>,
    shift: [ColumnShift<V>; G],
) -> [Sum<V>; G] {
    let mut sums = [Sum::new(token); G];
    strip.map(
        token,
        f32::NEG_INFINITY,
        #[inline(always)]
        |mut x: [V; G]| {
            each::<G>(
                #[inline(always)]
                |g| {
                    x[g] = shift[g].weight(token, x[g]);
                    sums[g].add(x[g]);
                },
            );
            x
        },
    );
    sums
}

/// Where the maximum `m` is +∞, the elements that are +∞ share the weight equally: they become 0, the others
/// −∞. A NaN stays NaN. Where `m` is finite, returns `x`.
#[inline(always)]
pub(super) fn share_at_infinity<const L: usize, V: Vector<L>>(token: V::Token, m: V, x: V) -> V {
    // `x − m` makes −∞ of the others. A comparison would turn a NaN into −∞ too: in the lanes of a Cortex-M55
    // rustc 1.95 compares NaN as less.
    let largest = V::splat(token, f32::MAX);
    let share = x.select_gt(largest, V::splat(token, 0.0), x - m);
    m.select_gt(largest, share, x)
}

/// Bounds the maxima `m` of a strip by ±[`LARGE_MAXIMUM`]. If one is larger, a pass of its own subtracts the
/// large ones from their columns, and later passes run in place. The subtraction is exact where the weight is
/// not 0. Where a maximum is +∞ the pass applies [`share_at_infinity`] instead. Returns the new maxima and the
/// new `sinks`.
#[inline(always)]
fn bound_maxima<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    strip: &mut Strip<'_>,
    m: [V; G],
    sinks: [V; G],
) -> ([V; G], [V; G]) {
    let constant = |c| V::splat(token, c);
    let zero = constant(0.0);
    // For a maximum of −∞ every weight is +0 under any shift.
    let m: [V; G] = array!(|g| m[g].select_gt(constant(f32::NEG_INFINITY), m[g], zero));
    let large: [V; G] = array!(|g| {
        let below = constant(-LARGE_MAXIMUM).select_gt(m[g], m[g], zero);
        m[g].select_gt(constant(LARGE_MAXIMUM), m[g], below)
    });
    let mut any_large = false;
    for large in large {
        any_large |= large.to_array() != [0.0; L];
    }
    if any_large {
        let base: [V; G] = array!(|g| large[g].select_gt(constant(f32::MAX), zero, large[g]));
        strip.map(
            token,
            f32::NEG_INFINITY,
            #[inline(always)]
            |x: [V; G]| array!(|g| share_at_infinity(token, m[g], x[g]) - base[g]),
        );
        strip.read_from_output();
        return (
            array!(|g| large[g].select_gt(constant(f32::MAX), zero, m[g] - base[g])),
            array!(|g| share_at_infinity(token, m[g], sinks[g]) - base[g]),
        );
    }
    (m, sinks)
}

/// Divides the weights of a strip by their sums.
#[inline(always)]
fn normalise<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    mut strip: Strip<'_>,
    normalisers: [Normaliser<V>; G],
) {
    strip.read_from_output();
    strip.map(
        token,
        0.0,
        #[inline(always)]
        |w: [V; G]| array!(|g| normalisers[g].apply(w[g])),
    );
}

/// The weights of a row by [`Shift`], with the maximum 0 and without a sum. The benches compare the whole
/// softmax with it.
pub(crate) struct Exp<'a>(pub(crate) InOut<'a>);

impl Kernel for Exp<'_> {
    type Output = ();

    const NAME: Name = Name::Exp;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self(mut matrix) = self;
        let shift: Shift<V> = Shift::new(token, V::splat(token, 0.0));
        matrix.row::<false>(0).strip(0, G * L).map(
            token,
            0.0,
            #[inline(always)]
            |x: [V; G]| array!(|g| shift.weight(token, x[g])),
        );
    }
}

/// Softmax of every column. Each lane holds one column, so that no vector is folded.
pub(crate) struct Columns<'a> {
    pub(crate) matrix: InOut<'a>,
    /// The attention sink: one more score in the denominator of each column; −∞ is none.
    pub(crate) sink: f32,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(matrix: InOut<'a>) -> Self {
        Self { matrix, sink: f32::NEG_INFINITY }
    }
}

/// Softmax of a slice.
pub(crate) struct Slice<'a> {
    /// `None`: in place.
    pub(crate) from: Option<&'a [f32]>,
    /// Has the length of `from`.
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Slice<'_> {
    type Output = ();

    const NAME: Name = Name::Softmax;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self { from, to } = self;
        if L == 1 {
            one_lane::softmax::<true>(ScalarRow::new(from, to));
        } else {
            let to = MatrixMut::from_row(to);
            let row = match from {
                Some(from) => InOut::new(MatrixRef::from_row(from), to),
                None => Ok(InOut::in_place(to)),
            };
            if let Ok(row) = row {
                Rows(row).run::<L, G, R, C, V>(token);
            }
        }
    }
}

impl Kernel for Columns<'_> {
    type Output = ();

    const NAME: Name = Name::SoftmaxColumns;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self { mut matrix, sink } = self;
        let sink = V::splat(token, sink);
        let (rows, cols) = matrix.shape();
        let cols = if rows == 0 { 0 } else { cols };
        // With one lane, four columns at a time take 9 % less time than one, in five times the code.
        let vectors = if cfg!(small) && L == 1 { 1 } else { C };
        for col in (0..cols).step_by(vectors * L) {
            if vectors > 1 && cols - col > L {
                columns::<L, C, V>(token, &mut matrix, col, sink);
            } else {
                columns::<L, 1, V>(token, &mut matrix, col, sink);
            }
        }
    }
}

/// Softmax of `C` vectors of columns from `col` on.
#[inline(always)]
fn columns<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    matrix: &mut InOut<'_>,
    col: usize,
    sink: V,
) {
    let mut strip = matrix.columns(col, C * L);
    let m: [V; C] = maximum(token, strip.source());
    let m: [V; C] = array!(|c| sink.max(m[c]));
    let (m, sinks) = bound_maxima(token, &mut strip, m, [sink; C]);
    let shifts: [ColumnShift<V>; C] = array!(|c| ColumnShift::new(token, m[c]));
    let mut sums = weigh(token, &mut strip, shifts);
    for c in 0..C {
        sums[c].add(shifts[c].weight(token, sinks[c]));
    }
    let normalisers: [Normaliser<V>; C] =
        array!(|c| Normaliser::new(token, sums[c].unbiased(token), sums[c].e));
    normalise(token, strip, normalisers);
}
