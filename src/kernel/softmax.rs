//! Softmax of slices, rows and columns: three passes over the same memory.
//!
//! ```text
//! m = max x                            where m = +∞: x = 0 where it is +∞, else −∞
//! w = e^(x − m), sum += w              written where the result goes
//! w = w · (1 / sum)                    +0 below 2⁻¹²⁶
//! ```
//!
//! 1. The shift goes into the exponent ([`exp`](super::exp)): nothing is rounded
//!    by it. The weights do not wait for it ([`exp::near`](super::exp::near)), so that the first
//!    two passes overlap.
//! 2. The sum is compensated ([`Sum`]): a plain one is off by 40 ULP at 1024 elements, this
//!    one by less than 1 along columns, where every weight is added so, and by less than 2 along
//!    rows, where pairs are.
//! 3. Weights that would be subnormal are set to +0 *before* the
//!    multiplication, because an x86 core takes a slow path for each subnormal result.
//! 4. A NaN makes the sum NaN, and with it every weight.
//! 5. Where the maximum is −∞ or there is no element the sum is 0, and so are the weights.
//!
//! With the weights within 1 ULP, the sum within 2 and two roundings, a
//! result is within 6 ULP; searches that climb hills found 4.8 at worst.

use super::{
    Kernel,
    exp::{
        Shift, WEIGHT_BIAS,
        near::{NEAR, NearShift},
        times,
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
/// `a` begins at [`SUM_BIAS`] and stays above every weight, so that what the
/// addition to it loses is exactly `w − (t − a)`; that goes into `e`.
#[derive(Clone, Copy)]
struct Sum<V> {
    a: V,
    e: V,
}

/// What [`Sum::a`] begins at: 2⁶⁹.
///
/// No weight is above 2⁶⁵. Further up `a` would lose more of each weight to `e`, a
/// plain sum: begun at 2⁷⁶, 1023 equal weights beside a large one leave a column 93
/// ULP off. Further down the parts of a group have more bits than their fold
/// keeps: 5.3 ULP at 2⁶⁵. Here the same searches find 4.2 for a column.
const SUM_BIAS: f32 = WEIGHT_BIAS * 64.0;

impl<V> Sum<V> {
    #[inline(always)]
    fn new<const L: usize>(token: V::Token) -> Self
    where
        V: Vector<L>,
    {
        Self::from(token, V::splat(token, SUM_BIAS))
    }

    /// The sum of no weights, where `a` begins at `bias`.
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

    /// Adds four weights as two pairs. What the two additions to `a` lose is added up before
    /// it goes into `e`, whose chain is half as long.
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

    /// The sum but for `e`.
    #[inline(always)]
    fn unbiased<const L: usize>(self, token: V::Token) -> V
    where
        V: Vector<L>,
    {
        self.a - V::splat(token, SUM_BIAS)
    }
}

/// What a sum makes of the weights.
#[derive(Clone, Copy)]
struct Normaliser<V> {
    /// Weights that are not above would become subnormal.
    cutoff: V,
    factor: V,
}

/// A little more than 2⁻¹²⁶: the 4 ULP cover the three roundings between
/// `w > cutoff` and `w · factor >= 2⁻¹²⁶`.
const SMALLEST: f32 = f32::from_bits(0x0080_0004);

impl Normaliser<F32x1> {
    /// The same in each lane: the quotient of one float takes 7 cycles less than that of a vector
    /// of AVX-512.
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
    /// Of the weights whose sum is `a + e`, of which no more than the lowest bits are in `e`.
    #[inline(always)]
    fn new<const L: usize>(token: V::Token, a: V, e: V) -> Self
    where
        V: Vector<L>,
    {
        // Where a weight is not 0 `a` is far above the smallest normal number, which keeps the factor finite
        // where all are 0. A sum that is NaN stays one.
        let sum = V::splat(token, f32::MIN_POSITIVE).max(a) + e;
        // 1 / sum, by a constant that the polynomial has too: a column is short of registers for them. A
        // row is not, but waits for it.
        let times = V::splat(token, const { if L == 1 { 1.0 } else { times(V::FMA) } });
        Self { cutoff: sum * V::splat(token, SMALLEST), factor: times / (times * sum) }
    }

    #[inline(always)]
    fn apply<const L: usize>(self, w: V) -> V
    where
        V: Vector<L>,
    {
        w.times_above(self.factor, self.cutoff)
    }
}

/// The largest element in each lane, −∞ where there is none, and anything where one is NaN:
/// the sum is too then, whatever the shift.
///
/// These operands of `max`, and not the others, let x86 take the element from memory.
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

/// The shift of a column, whose maximum is near 0: [`NearShift`], which has fewer steps, and the plain
/// one, of the same bits, on one lane: rustc 1.95 compares the lanes of a Cortex-M55 with a
/// constant as if NaN were less, and so would lose it.
#[derive(Clone, Copy)]
struct ColumnShift<V> {
    near: NearShift<V>,
    plain: Shift<V>,
}

impl<V> ColumnShift<V> {
    #[inline(always)]
    fn new<const L: usize>(token: V::Token, m: V) -> Self
    where
        V: Vector<L>,
    {
        Self { near: NearShift::new(token, m), plain: Shift::near(token, m) }
    }

    #[inline(always)]
    fn weight<const L: usize>(self, token: V::Token, x: V) -> V
    where
        V: Vector<L>,
    {
        if L == 1 {
            return self.plain.weight(token, x);
        }
        self.near.weight(token, x)
    }
}

/// Writes the weights of a strip, and returns their sums.
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

/// Where the maximum `m` is +∞ the elements that are share the weight: makes them 0 and
/// the others −∞, NaN aside.
#[inline(always)]
pub(super) fn share_at_infinity<const L: usize, V: Vector<L>>(token: V::Token, m: V, x: V) -> V {
    // No comparison makes −∞ of what is less than +∞: in the lanes of a Cortex-M55 rustc 1.95 takes a
    // NaN for less.
    let largest = V::splat(token, f32::MAX);
    let share = x.select_gt(largest, V::splat(token, 0.0), x - m);
    m.select_gt(largest, share, x)
}

/// Brings the maxima `m` of a strip near 0 where one is not: writes the strip less those, which is
/// exact where the weight is not 0, or where they are +∞ [`share_at_infinity`]s it, and leaves it in place. Gives
/// the new maxima, and what becomes of the elements `beside` that are not in the strip.
#[inline(always)]
fn bring_near<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    strip: &mut Strip<'_>,
    m: [V; G],
    beside: [V; G],
) -> ([V; G], [V; G]) {
    let constant = |c| V::splat(token, c);
    let zero = constant(0.0);
    // −∞, where every weight is +0, serves like any other.
    let m: [V; G] = array!(|g| m[g].select_gt(constant(f32::NEG_INFINITY), m[g], zero));
    let far: [V; G] = array!(|g| {
        let below = constant(-NEAR).select_gt(m[g], m[g], zero);
        m[g].select_gt(constant(NEAR), m[g], below)
    });
    let mut is_far = false;
    for far in far {
        is_far |= far.to_array() != [0.0; L];
    }
    if is_far {
        let base: [V; G] = array!(|g| far[g].select_gt(constant(f32::MAX), zero, far[g]));
        strip.map(
            token,
            f32::NEG_INFINITY,
            #[inline(always)]
            |x: [V; G]| array!(|g| share_at_infinity(token, m[g], x[g]) - base[g]),
        );
        strip.stay_in_place();
        return (
            array!(|g| far[g].select_gt(constant(f32::MAX), zero, m[g] - base[g])),
            array!(|g| share_at_infinity(token, m[g], beside[g]) - base[g]),
        );
    }
    (m, beside)
}

/// Divides the weights of a strip by their sums.
#[inline(always)]
fn normalise<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    mut strip: Strip<'_>,
    normalisers: [Normaliser<V>; G],
) {
    strip.stay_in_place();
    strip.map(
        token,
        0.0,
        #[inline(always)]
        |w: [V; G]| array!(|g| normalisers[g].apply(w[g])),
    );
}

/// The weights of a row by [`Shift`] alone, under the maximum 0 and
/// without the sum: what the benches hold the whole against.
pub(crate) struct Exp<'a>(pub(crate) InOut<'a>);

impl Kernel for Exp<'_> {
    type Output = ();

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

/// Softmax of every column; each lane is one, so that nothing is folded.
pub(crate) struct Columns<'a> {
    pub(crate) matrix: InOut<'a>,
    /// One more logit in each column, which takes its share; −∞ is none.
    pub(crate) sink: f32,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(matrix: InOut<'a>) -> Self {
        Self { matrix, sink: f32::NEG_INFINITY }
    }
}

/// Softmax of one row that lies side by side.
pub(crate) struct Slice<'a> {
    /// `None`: what is written is what is read.
    pub(crate) from: Option<&'a [f32]>,
    /// Of the length of `from`.
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Slice<'_> {
    type Output = ();

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

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self { mut matrix, sink } = self;
        let sink = V::splat(token, sink);
        let (rows, cols) = matrix.shape();
        let cols = if rows == 0 { 0 } else { cols };
        // Four columns of one lane at a time take 9 % less time than one, in five times the code.
        let abreast = if cfg!(small) && L == 1 { 1 } else { C };
        for col in (0..cols).step_by(abreast * L) {
            if abreast > 1 && cols - col > L {
                columns::<L, C, V>(token, &mut matrix, col, sink);
            } else {
                columns::<L, 1, V>(token, &mut matrix, col, sink);
            }
        }
    }
}

/// `C` vectors of columns from `col` on.
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
    let (m, sinks) = bring_near(token, &mut strip, m, [sink; C]);
    let shifts: [ColumnShift<V>; C] = array!(|c| ColumnShift::new(token, m[c]));
    let mut sums = weigh(token, &mut strip, shifts);
    for c in 0..C {
        sums[c].add(shifts[c].weight(token, sinks[c]));
    }
    let normalisers: [Normaliser<V>; C] =
        array!(|c| Normaliser::new(token, sums[c].unbiased(token), sums[c].e));
    normalise(token, strip, normalisers);
}
