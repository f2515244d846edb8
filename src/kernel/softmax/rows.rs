//! Softmax of every row; lanes run along it.

use super::{Normaliser, SUM_BIAS, Sum, normalise, one_lane, share_at_infinity};
use crate::{
    kernel::{
        Kernel,
        exp::near::{NEAR, RowShift, WITHIN},
        order,
    },
    simd::{
        Vector, array, each,
        scalar::{F32x1, Scalar},
        strip::{InOut, Row},
    },
};

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
        if L == 1 {
            let (rows, cols) = matrix.shape();
            for row in 0..if cols == 0 { 0 } else { rows } {
                let line = matrix.scalar_row(row);
                // Twice the code, in which what lies side by side takes 3 % less time.
                if !cfg!(small) && line.is_dense() {
                    one_lane::softmax::<true>(line);
                } else {
                    one_lane::softmax::<false>(line);
                }
            }
            return;
        }
        if matrix.shape().1 <= G * L {
            return groups::<L, G, V>(token, matrix);
        }
        // 8 vectors at a time, of which a core that looks ahead overlaps the chains, then a round
        // of the sum or two; 16 where a round is that long.
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

/// `W` vectors at a time, then `ROUNDS`, both whole rounds of the sum; there are columns.
#[inline(always)]
fn rows<
    const DENSE: bool,
    const L: usize,
    const G: usize,
    const W: usize,
    const ROUNDS: usize,
    V: Vector<L>,
>(
    token: V::Token,
    mut matrix: InOut<'_>,
) {
    for row in 0..matrix.shape().0 {
        let mut row = matrix.row::<DENSE>(row);
        let mut largest = maximum::<DENSE, L, V>(token, &row);
        let mut shift = RowShift::new(token);
        if largest.abs() > WITHIN {
            largest = bring_near::<DENSE, L, V>(token, &mut row, largest);
            shift = RowShift::of(token, largest);
        }
        let bias = shift.scaled(token, largest, SUM_BIAS);
        let sum = Sum::from(token, bias);
        let sums = weigh::<DENSE, L, G, W, ROUNDS, V>(token, &mut row, shift, sum);
        let normaliser = normaliser(token, sums, bias);
        normalise(token, row.strip(0, G * L), [normaliser; G]);
    }
}

/// Rows that are one group of vectors each: nothing of them waits in memory.
#[inline(always)]
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

#[inline(always)]
fn group<const L: usize, const G: usize, V: Vector<L>>(token: V::Token, mut x: [V; G]) -> [V; G] {
    let mut largest = order::maximum(token, x);
    if largest.abs() > NEAR {
        // Under −∞ every weight is +0, as it is under 0.
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
    let shift = RowShift::of(token, largest);
    let bias = shift.scaled(token, largest, SUM_BIAS);
    let w: [V; G] = shift.weights(token, x);
    let mut sums = [Sum::from(token, bias); G];
    // The first of a round: what is added with it, and after it, is 0.
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

/// As the one of columns, of a row, whose new maximum it gives.
#[inline(always)]
fn bring_near<const DENSE: bool, const L: usize, V: Vector<L>>(
    token: V::Token,
    row: &mut Row<'_, DENSE>,
    largest: f32,
) -> f32 {
    if largest.abs() <= NEAR {
        return largest;
    }
    let m = V::splat(token, largest);
    // A pass that only subtracts takes less than half of the time.
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
        row.stay_in_place();
    }
    0.0
}

/// The largest element of a row.
#[inline(always)]
fn maximum<const DENSE: bool, const L: usize, V: Vector<L>>(
    token: V::Token,
    row: &Row<'_, DENSE>,
) -> f32 {
    // 4 chains of pairs: a maximum takes as long as two vectors are loaded.
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

/// Writes the weights of a row, leaves it in place, and returns their sums.
#[inline(always)]
fn weigh<
    const DENSE: bool,
    const L: usize,
    const G: usize,
    const W: usize,
    const ROUNDS: usize,
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
        if ROUNDS < W {
            done += weigh_full::<DENSE, L, G, ROUNDS, V>(token, row, done, shift, &mut sums);
        }
    }
    if done < row.cols() {
        // A group at a time; what the last round lacks weighs nothing.
        row.strip(done, G * L).map(
            token,
            f32::NEG_INFINITY,
            #[inline(always)]
            |x: [V; G]| shift.weights(token, x),
        );
        row.stay_in_place();
        row.source(done, ROUNDS * L).for_each(
            token,
            0.0,
            #[inline(always)]
            |w: [V; ROUNDS]| add(&mut sums, w),
        );
    }
    row.stay_in_place();
    sums
}

/// Likewise as far as `W` whole vectors go, from column `begin` on, and returns how many columns that were.
#[inline(always)]
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

/// Adds rounds of weights.
#[inline(always)]
fn add<const L: usize, const G: usize, const W: usize, V: Vector<L>>(
    sums: &mut [Sum<V>; G],
    w: [V; W],
) {
    let each = if V::FMA { 4 } else { 2 };
    for round in 0..W / (each * G) {
        for g in 0..G {
            let at = each * round * G + g;
            if V::FMA {
                sums[g].add_four(w[at], w[at + G], w[at + 2 * G], w[at + 3 * G]);
            } else {
                sums[g].add(w[at] + w[at + G]);
            }
        }
    }
}
