//! Softmax of every row. The lanes of a vector are elements of the same row.

use super::{
    ColumnShift, Normaliser, SUM_BIAS, Sum, bound_maxima, normalise, one_lane, share_at_infinity,
};
use crate::{
    kernel::{
        Kernel, Name,
        exp::overlap::{CENTRAL_MAXIMUM, LARGE_MAXIMUM, RowShift},
        order,
    },
    simd::{
        Vector, array, each,
        scalar::{F32x1, Scalar},
        strip::{self, InOut, Row},
    },
};

/// Softmax of every row.
pub(crate) struct Rows<'a>(pub(crate) InOut<'a>);

impl Kernel for &mut Rows<'_> {
    type Output = ();

    const NAME: Name = Name::SoftmaxRows;

    /// Whether the rows go [side by side](side_by_side) and either they or their elements fill up to 8 lanes.
    #[inline(always)]
    fn fits_8_lanes(&self) -> bool {
        let (rows, cols) = self.0.shape();
        rows > 1 && (cols <= 8 || (rows <= 8 && cols <= 16))
    }

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        // A copy, as what is written through a reference may change what is read through it.
        let mut matrix = self.0.view_mut();
        if L == 1 {
            let (rows, cols) = matrix.shape();
            for row in 0..if cols == 0 { 0 } else { rows } {
                let row = matrix.scalar_row(row);
                // A second copy of the code, in which contiguous rows take 3 % less time.
                if !cfg!(small) && row.is_dense() {
                    one_lane::softmax::<true>(row);
                } else {
                    one_lane::softmax::<false>(row);
                }
            }
            return;
        }
        let (count, cols) = matrix.shape();
        if cols <= G * L {
            return match (count > 1, cols <= L) {
                (true, true) => side_by_side::<L, 1, V>(token, matrix),
                (true, false) => side_by_side::<L, G, V>(token, matrix),
                (false, _) => groups::<L, G, V>(token, matrix),
            };
        }
        // 8 vectors per iteration, whose dependency chains an out-of-order core overlaps, then one or two
        // rounds of the sum per iteration. A round is 16 vectors where `G` is 4.
        match (matrix.rows_are_dense(), V::FMA && G > 2, G > 1) {
            (true, false, false) => rows::<true, L, G, 8, 4, V>(token, matrix),
            (true, false, true) => rows::<true, L, G, 8, 8, V>(token, matrix),
            (true, true, _) => rows::<true, L, G, 16, 16, V>(token, matrix),
            (false, false, false) => rows::<false, L, G, 8, 4, V>(token, matrix),
            (false, false, true) => rows::<false, L, G, 8, 8, V>(token, matrix),
            (false, true, _) => rows::<false, L, G, 16, 16, V>(token, matrix),
        }
    }
}

/// `W` vectors per iteration, then `TAIL` vectors. Both are whole rounds of the sum. There is at least one
/// column.
#[cfg_attr(not(unoptimised), inline(always))]
fn rows<
    const DENSE: bool,
    const L: usize,
    const G: usize,
    const W: usize,
    const TAIL: usize,
    V: Vector<L>,
>(
    token: V::Token,
    mut matrix: InOut<'_>,
) {
    for row in 0..matrix.shape().0 {
        let mut row = matrix.row::<DENSE>(row);
        let mut largest = maximum::<DENSE, L, V>(token, &row);
        let mut shift = RowShift::central(token);
        if largest.abs() > CENTRAL_MAXIMUM {
            largest = bound_maximum::<DENSE, L, V>(token, &mut row, largest);
            shift = RowShift::for_maximum(token, largest);
        }
        let bias = shift.rescaled(token, largest, SUM_BIAS);
        let sum = Sum::from(token, bias);
        let sums = weigh::<DENSE, L, G, W, TAIL, V>(token, &mut row, shift, sum);
        let normaliser = normaliser(token, sums, bias);
        normalise(token, row.strip(0, G * L), [normaliser; G]);
    }
}

/// Softmax of rows of at most `S * L` elements, of which each has a partial sum of its own: `L` rows side by side,
/// one in each lane. Alone, a row waits for one result after another; here the steps of `S * L` elements overlap.
#[cfg_attr(not(unoptimised), inline(always))]
fn side_by_side<const L: usize, const S: usize, V: Vector<L>>(
    token: V::Token,
    mut matrix: InOut<'_>,
) {
    const { assert!(S * L <= if V::FMA { 16 } else { 4 }) };
    let (rows, cols) = matrix.shape();
    let lowest = V::splat(token, f32::NEG_INFINITY);
    for row in (0..if cols == 0 { 0 } else { rows }).step_by(L) {
        // Element `s * L + i` of each row.
        let mut x: [[V; L]; S] = array!(|s| {
            let square = V::transpose(strip::read_rows(token, matrix.input(), row, s * L));
            array!(|i| if s * L + i < cols { square[i] } else { lowest })
        });
        let m = fold(x, V::max);
        let ([m], _, large) = bound_maxima(token, [m], [lowest]);
        if let Some(large) = large {
            for x in x.as_flattened_mut() {
                [*x] = large.subtract(token, [*x]);
            }
        }
        let shift = ColumnShift::new(token, m);
        let w: [[V; L]; S] = array!(|s| array!(|i| shift.weight(token, x[s][i])));
        let sums: [[Sum<V>; L]; S] = array!(|s| array!(|i| {
            let mut sum = Sum::new(token);
            sum.add(w[s][i]);
            sum
        }));
        let a: [[V; L]; S] = array!(|s| array!(|i| sums[s][i].unbiased(token)));
        let e: [[V; L]; S] = array!(|s| array!(|i| sums[s][i].e));
        let normaliser = Normaliser::new(token, sum(a), sum(e));
        for (s, w) in w.into_iter().enumerate() {
            let square: [V; L] = V::transpose(array!(|i| normaliser.apply(w[i])));
            strip::write::<L, 1, L, V>(matrix.output(), row, s * L, array!(|i| [square[i]]));
        }
    }
}

/// Folds vectors in half until one is left: the tree of [`order`], where each lane is a sum of its own.
#[cfg_attr(not(unoptimised), inline(always))]
fn fold<const L: usize, const S: usize, V: Vector<L>>(
    vectors: [[V; L]; S],
    join: impl Fn(V, V) -> V + Copy,
) -> V {
    let halves: [V; L] = order::fold_in_half(
        vectors,
        #[inline(always)]
        |a, b| array!(|i| join(a[i], b[i])),
    );
    order::fold_in_half(halves, join)
}

/// The sum of vectors, folded in half.
#[inline(always)]
fn sum<const L: usize, const S: usize, V: Vector<L>>(vectors: [[V; L]; S]) -> V {
    fold(
        vectors,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// Softmax of a row that fits in one group of vectors: it stays in registers.
#[cfg_attr(not(unoptimised), inline(always))]
fn groups<const L: usize, const G: usize, V: Vector<L>>(token: V::Token, mut matrix: InOut<'_>) {
    let (rows, cols) = matrix.shape();
    for row in 0..if cols == 0 { 0 } else { rows } {
        matrix.row::<false>(row).strip(0, G * L).map(
            token,
            f32::NEG_INFINITY,
            #[inline(always)]
            |x| group::<L, G, V>(token, x),
        );
    }
}

#[cfg_attr(not(unoptimised), inline(always))]
fn group<const L: usize, const G: usize, V: Vector<L>>(token: V::Token, mut x: [V; G]) -> [V; G] {
    let mut largest = order::maximum(token, x);
    if largest.abs() > LARGE_MAXIMUM {
        // If the largest is −∞, every weight is +0 under the maximum 0 too.
        if largest > f32::NEG_INFINITY {
            let m = V::splat(token, largest);
            x = array!(|g| if largest.is_finite() {
                x[g] - m
            } else {
                share_at_infinity(token, m, x[g])
            });
        }
        largest = 0.0;
    }
    let shift = RowShift::for_maximum(token, largest);
    let bias = shift.rescaled(token, largest, SUM_BIAS);
    let w: [V; G] = shift.weights(token, x);
    let mut sums = [Sum::from(token, bias); G];
    // These are the first weights of a round; the others of the round are 0 and would change nothing.
    each::<G>(
        #[inline(always)]
        |g| sums[g].add(w[g]),
    );
    let normaliser = normaliser(token, sums, bias);
    array!(|g| normaliser.apply(w[g]))
}

#[inline(always)]
fn normaliser<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    sums: [Sum<V>; G],
    bias: V,
) -> Normaliser<V> {
    let a: [V; G] = array!(|g| sums[g].a - bias);
    let e: [V; G] = array!(|g| sums[g].e);
    let (a, e) = (F32x1(order::sum(token, a)), F32x1(order::sum(token, e)));
    Normaliser::new(Scalar, a, e).splat(token)
}

/// Bounds the maximum `largest` of a row by ±[`LARGE_MAXIMUM`]. If it is larger, a pass of its own subtracts it
/// from the row, and later passes run in place. The subtraction is exact where the weight is not 0. If the
/// maximum is +∞ the pass applies [`share_at_infinity`] instead. Returns the new maximum.
#[cfg_attr(not(unoptimised), inline(always))]
fn bound_maximum<const DENSE: bool, const L: usize, V: Vector<L>>(
    token: V::Token,
    row: &mut Row<'_, DENSE>,
    largest: f32,
) -> f32 {
    if largest.abs() <= LARGE_MAXIMUM {
        return largest;
    }
    let m = V::splat(token, largest);
    // A pass that only subtracts takes less than half the time of one that handles +∞.
    if largest.is_finite() {
        row.strip(0, 2 * L).map(
            token,
            f32::NEG_INFINITY,
            #[inline(always)]
            |x: [V; 2]| array!(|i| x[i] - m),
        );
    } else if largest > 0.0 {
        row.strip(0, L).map(
            token,
            f32::NEG_INFINITY,
            #[inline(always)]
            |[x]: [V; 1]| [share_at_infinity(token, m, x)],
        );
    }
    if largest > f32::NEG_INFINITY {
        row.read_from_output();
    }
    0.0
}

/// The largest element of a row.
#[cfg_attr(not(unoptimised), inline(always))]
fn maximum<const DENSE: bool, const L: usize, V: Vector<L>>(
    token: V::Token,
    row: &Row<'_, DENSE>,
) -> f32 {
    // 4 chains, each of which takes a pair of vectors per step: the latency of a maximum is the time of two
    // loads.
    let mut m = [V::splat(token, f32::NEG_INFINITY); 4];
    let pairs = row.source(0, 8 * L).for_each_full(
        token,
        #[inline(always)]
        |x: [V; 8]| m = array!(|i| m[i].max(x[i].max(x[i + 4]))),
    );
    let done = pairs * (8 * L);
    if done < row.cols() {
        row.source(done, 4 * L).for_each(
            token,
            f32::NEG_INFINITY,
            #[inline(always)]
            |x: [V; 4]| m = array!(|i| m[i].max(x[i])),
        );
    }
    order::maximum(token, m)
}

/// Writes the weights of a row; later passes run in place. Returns the sums.
#[cfg_attr(not(unoptimised), inline(always))]
fn weigh<
    const DENSE: bool,
    const L: usize,
    const G: usize,
    const W: usize,
    const TAIL: usize,
    V: Vector<L>,
>(
    token: V::Token,
    row: &mut Row<'_, DENSE>,
    shift: RowShift<V>,
    sum: Sum<V>,
) -> [Sum<V>; G] {
    let mut sums = [sum; G];
    let mut done = 0;
    if DENSE {
        done += weigh_full::<DENSE, L, G, W, V>(token, row, done, shift, &mut sums);
        if TAIL < W {
            done += weigh_full::<DENSE, L, G, TAIL, V>(token, row, done, shift, &mut sums);
        }
    }
    if done < row.cols() {
        // One group at a time. Missing elements of the last round have the weight 0.
        row.strip(done, G * L).map(
            token,
            f32::NEG_INFINITY,
            #[inline(always)]
            |x: [V; G]| shift.weights(token, x),
        );
        row.read_from_output();
        row.source(done, TAIL * L).for_each(
            token,
            0.0,
            #[inline(always)]
            |w: [V; TAIL]| add(&mut sums, w),
        );
    }
    row.read_from_output();
    sums
}

/// [`weigh`] from column `begin` on, for as many columns as fill `W` whole vectors per iteration. Returns the
/// number of these columns.
#[cfg_attr(not(unoptimised), inline(always))]
fn weigh_full<const DENSE: bool, const L: usize, const G: usize, const W: usize, V: Vector<L>>(
    token: V::Token,
    row: &mut Row<'_, DENSE>,
    begin: usize,
    shift: RowShift<V>,
    sums: &mut [Sum<V>; G],
) -> usize {
    let full = row.strip(begin, W * L).map_full(
        token,
        #[inline(always)]
        |x: [V; W]| {
            let w = shift.weights(token, x);
            add(sums, w);
            w
        },
    );
    full * (W * L)
}

/// Adds whole rounds of weights to the sums.
#[cfg_attr(not(unoptimised), inline(always))]
fn add<const L: usize, const G: usize, const W: usize, V: Vector<L>>(
    sums: &mut [Sum<V>; G],
    w: [V; W],
) {
    let per_round = if V::FMA { 4 } else { 2 };
    for round in 0..W / (per_round * G) {
        for g in 0..G {
            let at = per_round * round * G + g;
            if V::FMA {
                sums[g].add_four(w[at], w[at + G], w[at + 2 * G], w[at + 3 * G]);
            } else {
                sums[g].add(w[at] + w[at + G]);
            }
        }
    }
}
