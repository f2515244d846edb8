//! Softmax of every row; lanes run along it.

use super::{Normaliser, Sum, maximum, narrow, normalise, share};
use crate::{
    kernel::{
        Kernel,
        exp::near::{NEAR, NearShift},
        order,
    },
    simd::{
        Vector, array,
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
                let line = matrix.line(row);
                if line.is_dense() {
                    narrow::softmax::<true>(line);
                } else {
                    narrow::softmax::<false>(line);
                }
            }
            return;
        }
        // 8 vectors at a time, of which a core that looks ahead overlaps the chains; 16
        // where a round of the sum takes as many.
        match (matrix.rows_are_dense(), V::FUSED && G > 2) {
            (true, false) => rows::<true, L, G, 8, V>(token, matrix),
            (true, true) => rows::<true, L, G, 16, V>(token, matrix),
            (false, false) => rows::<false, L, G, 8, V>(token, matrix),
            (false, true) => rows::<false, L, G, 16, V>(token, matrix),
        }
    }
}

#[inline(always)]
fn rows<const DENSE: bool, const L: usize, const G: usize, const W: usize, V: Vector<L>>(
    token: V::Token,
    mut matrix: InOut<'_>,
) {
    let (rows, cols) = matrix.shape();
    for row in 0..if cols == 0 { 0 } else { rows } {
        softmax::<DENSE, L, G, W, V>(token, &mut matrix.row(row));
    }
}

/// Softmax of one row, `W` vectors at a time: whole rounds of the sum.
#[inline(always)]
fn softmax<const DENSE: bool, const L: usize, const G: usize, const W: usize, V: Vector<L>>(
    token: V::Token,
    row: &mut Row<'_, DENSE>,
) {
    let m: [V; 4] = maximum(token, row.source(0, 4 * L)); // 4 to hide latency
    let largest = order::maximum(token, m);
    let mut m = V::splat(token, largest);
    if largest.abs() > NEAR {
        // As `bring_near`, of one maximum: a pass that only subtracts takes less than half of the time.
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
                |[x]: [V; 1]| [share(token, m, x)],
            );
        }
        if largest > f32::NEG_INFINITY {
            row.stay_in_place();
        }
        m = V::splat(token, 0.0);
    }
    let sums = weigh::<DENSE, L, G, W, V>(token, row, NearShift::new(token, m));
    let a: [V; G] = array!(|g| sums[g].unbiased(token));
    let e: [V; G] = array!(|g| sums[g].e);
    let sum = order::sum(token, a) + order::sum(token, e);
    let normaliser = Normaliser::new(Scalar, F32x1(sum));
    normalise(token, row.strip(0, G * L), [normaliser.splat::<L, V>(token); G]);
}

/// Writes the weights of a row, leaves it in place, and returns their sums.
#[inline(always)]
fn weigh<const DENSE: bool, const L: usize, const G: usize, const W: usize, V: Vector<L>>(
    token: V::Token,
    row: &mut Row<'_, DENSE>,
    shift: NearShift<V>,
) -> [Sum<V>; G] {
    let mut sums = [Sum::new(token); G];
    let mut full = 0;
    if DENSE {
        full = row.strip(0, W * L).map_full(
            token,
            #[inline(always)]
            |x: [V; W]| {
                let w = shift.weights(token, x);
                add(&mut sums, w);
                w
            },
        );
    }
    let rest = full * (W * L);
    if rest < row.cols() {
        // A group at a time; what the last round lacks weighs nothing.
        row.strip(rest, G * L).map(
            token,
            f32::NEG_INFINITY,
            #[inline(always)]
            |x: [V; G]| shift.weights(token, x),
        );
        row.stay_in_place();
        row.source(rest, W * L).for_each(
            token,
            0.0,
            #[inline(always)]
            |w: [V; W]| add(&mut sums, w),
        );
    }
    row.stay_in_place();
    sums
}

/// Adds rounds of weights.
#[inline(always)]
fn add<const L: usize, const G: usize, const W: usize, V: Vector<L>>(
    sums: &mut [Sum<V>; G],
    w: [V; W],
) {
    let each = if V::FUSED { 4 } else { 2 };
    for round in 0..W / (each * G) {
        for g in 0..G {
            let at = each * round * G + g;
            if V::FUSED {
                sums[g].add_four(w[at], w[at + G], w[at + 2 * G], w[at + 3 * G]);
            } else {
                sums[g].add(w[at] + w[at + G]);
            }
        }
    }
}
