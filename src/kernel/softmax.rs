//! Softmax of slices, rows and columns: three passes over the same memory.
//!
//! ```text
//! m = max x                            where m = +∞: x = 0 where it is +∞, else −∞
//! w = e^(x − m), sum += w              written where the result goes
//! w = w · (1 / sum)                    +0 below 2⁻¹²⁶
//! ```
//!
//! 1. The shift goes into the exponent ([`exp`](super::exp)): nothing is rounded
//!    by it.
//! 2. The sum is compensated, four additions a vector ([`Sum`]): a plain one
//!    is off by 40 ULP at 1024 elements, this one by less than 1.
//! 3. Weights that would be subnormal are set to +0 *before* the
//!    multiplication, because an x86 core takes a slow path for each subnormal result.
//! 4. A NaN makes the sum NaN, and with it every weight. The maximum skips it.
//! 5. Where the maximum is −∞ or there is no element the sum is 0, and so are the weights.
//!
//! With the weights within 1 ULP, the sum within 1 and two roundings, a
//! result is within 6 ULP; searches that climb hills found 4.2 at worst.

mod narrow;

use super::{
    Kernel,
    exp::{Shift, WEIGHT_BIAS},
    order,
};
use crate::{
    MatrixMut, MatrixRef,
    simd::{
        Vector, array, each,
        line::Line,
        strip::{InOut, Source, Strip},
    },
};

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
/// keeps: 5.3 ULP at 2⁶⁵. Here the same searches find 4.2.
const SUM_BIAS: f32 = WEIGHT_BIAS * 64.0;

impl<V> Sum<V> {
    #[inline(always)]
    fn new<const L: usize>(token: V::Token) -> Self
    where
        V: Vector<L>,
    {
        Self { a: V::splat(token, SUM_BIAS), e: V::splat(token, 0.0) }
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

    /// Adds four weights as two pairs.
    #[inline(always)]
    fn add_four<const L: usize>(&mut self, w: [V; 4])
    where
        V: Vector<L>,
    {
        let (first, second) = (w[0] + w[1], w[2] + w[3]);
        let t = self.a + first;
        let s = t + second;
        self.e = self.e + ((first - (t - self.a)) + (second - (s - t)));
        self.a = s;
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
    /// Weights below would become subnormal.
    cutoff: V,
    factor: V,
}

/// A little more than 2⁻¹²⁶: the 4 ULP cover the three roundings between
/// `w >= cutoff` and `w · factor >= 2⁻¹²⁶`.
const SMALLEST: f32 = f32::from_bits(0x0080_0004);

impl<V> Normaliser<V> {
    #[inline(always)]
    fn new<const L: usize>(token: V::Token, sum: V) -> Self
    where
        V: Vector<L>,
    {
        // A sum of 0 or NaN is its own factor.
        let factor = sum.select_gt(V::splat(token, 0.0), V::splat(token, 1.0) / sum, sum);
        Self { cutoff: sum * V::splat(token, SMALLEST), factor }
    }

    #[inline(always)]
    fn apply<const L: usize>(self, token: V::Token, w: V) -> V
    where
        V: Vector<L>,
    {
        self.cutoff.select_gt(w, V::splat(token, 0.0), w) * self.factor
    }
}

/// The largest element in each lane; NaN is skipped, and −∞ is what no element gives.
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
        |x: [V; G]| m = array!(|g| x[g].max(m[g])),
    );
    m
}

/// Writes the weights of a strip, and returns their sums.
#[inline(always)]
fn weigh<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    strip: &mut Strip<'_>,
    shift: [Shift<V>; G],
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

/// Writes the weights of a strip of four vectors a position, and returns their sums by rounds.
#[inline(always)]
fn weigh_rounds<const L: usize, V: Vector<L>>(
    token: V::Token,
    strip: &mut Strip<'_>,
    shift: Shift<V>,
) -> Sum<V> {
    let mut sum = Sum::new(token);
    strip.map(
        token,
        f32::NEG_INFINITY,
        #[inline(always)]
        |x: [V; 4]| {
            let w = array!(|k| shift.weight(token, x[k]));
            sum.add_four(w);
            w
        },
    );
    sum
}

/// Where the maximum is +∞ the elements that are share the weight: makes them
/// 0 and the others −∞, NaN aside, leaves the strip in place, and gives the new
/// maxima.
#[inline(always)]
fn share_infinity<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    strip: &mut Strip<'_>,
    m: [V; G],
) -> [V; G] {
    let constant = |c| V::splat(token, c);
    let (infinity, largest) = (constant(f32::INFINITY), constant(f32::MAX));
    let (zero, lowest) = (constant(0.0), constant(f32::NEG_INFINITY));
    strip.map(
        token,
        f32::NEG_INFINITY,
        #[inline(always)]
        |x: [V; G]| {
            array!(|g| {
                let share = x[g].select_gt(largest, zero, infinity.select_gt(x[g], lowest, x[g]));
                m[g].select_gt(largest, share, x[g])
            })
        },
    );
    strip.stay_in_place();
    array!(|g| m[g].select_gt(largest, zero, m[g]))
}

/// Divides the weights of a strip by their sums.
#[inline(always)]
fn normalise<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    mut strip: Strip<'_>,
    sums: [V; G],
) {
    let normalisers: [Normaliser<V>; G] = array!(|g| Normaliser::new(token, sums[g]));
    strip.stay_in_place();
    strip.map(
        token,
        0.0,
        #[inline(always)]
        |w: [V; G]| array!(|g| normalisers[g].apply(token, w[g])),
    );
}

/// The second pass of the softmax of a row alone, under the maximum 0 and
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
        let shift = Shift::new(token, V::splat(token, 0.0));
        matrix.row(0, G * L).map(
            token,
            0.0,
            #[inline(always)]
            |x: [V; G]| array!(|g| shift.weight(token, x[g])),
        );
    }
}

/// Softmax of every row; lanes run along it.
pub(crate) struct Rows<'a>(pub(crate) InOut<'a>);

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self(mut matrix) = self;
        let (rows, cols) = matrix.shape();
        for row in 0..if cols == 0 { 0 } else { rows } {
            if L == 1 {
                let line = matrix.line(row);
                if line.is_dense() {
                    narrow::softmax::<true>(line);
                } else {
                    narrow::softmax::<false>(line);
                }
                continue;
            }
            let m = maximum::<L, 4, V>(token, matrix.source_row(row, 4 * L)); // 4 to hide latency
            let mut m = order::maximum(m);
            let mut far = false;
            let mut strip = matrix.row(row, G * L);
            if m == f32::INFINITY {
                share_infinity(token, &mut strip, [V::splat(token, m); G]);
                m = 0.0;
                far = true;
            }
            let shift = Shift::new(token, V::splat(token, m));
            let sums = if V::FUSED {
                weigh(token, &mut strip, [shift; G])
            } else {
                let mut strip = matrix.row(row, 4 * L);
                if far {
                    strip.stay_in_place();
                }
                [weigh_rounds(token, &mut strip, shift); G]
            };
            let strip = matrix.row(row, G * L);
            let a: [V; G] = array!(|g| sums[g].unbiased(token));
            let e: [V; G] = array!(|g| sums[g].e);
            let sum = order::sum(a) + order::sum(e);
            normalise(token, strip, [V::splat(token, sum); G]);
        }
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
            narrow::softmax::<true>(Line::new(from, to));
        } else {
            let from = from.map(MatrixRef::from_row);
            Rows(InOut::of(from, MatrixMut::from_row(to))).run::<L, G, R, C, V>(token);
        }
    }
}

/// Softmax of every column; each lane is one, so that nothing is folded.
pub(crate) struct Columns<'a>(pub(crate) InOut<'a>);

impl Kernel for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self(mut matrix) = self;
        let (rows, cols) = matrix.shape();
        let cols = if rows == 0 { 0 } else { cols };
        for col in (0..cols).step_by(C * L) {
            if cols - col > L {
                columns::<L, C, V>(token, &mut matrix, col);
            } else {
                columns::<L, 1, V>(token, &mut matrix, col);
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
) {
    let mut strip = matrix.columns(col, C * L);
    let mut m: [V; C] = maximum(token, strip.source());
    if m.iter().any(|m| m.to_array().contains(&f32::INFINITY)) {
        m = share_infinity(token, &mut strip, m);
    }
    let shifts: [Shift<V>; C] = array!(|c| Shift::new(token, m[c]));
    let sums = weigh(token, &mut strip, shifts);
    let totals: [V; C] = array!(|c| sums[c].unbiased(token) + sums[c].e);
    normalise(token, strip, totals);
}
