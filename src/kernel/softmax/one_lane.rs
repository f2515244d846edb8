//! Softmax of a row with one lane. It returns the bits of [`Rows`](super::Rows) on vectors of the non-FMA
//! family.
//!
//! There are four loops: the maximum, the weights, their sum, the division. Merged into two loops they would
//! need more registers than a core has, and a Cortex-M55 would run none of them in its vectors.

use super::{Normaliser, Sum};
use crate::{
    kernel::{exp::Shift, order},
    simd::{
        Vector, array,
        scalar::{F32x1, Scalar},
        scalar_row::{GROUP, ScalarRow},
    },
};

/// Writes the softmax of `row`. `DENSE` requires [`is_dense`](ScalarRow::is_dense).
#[inline(always)]
pub(super) fn softmax<const DENSE: bool>(mut row: ScalarRow<'_>) {
    let token = Scalar;
    let mut lanes = [f32::NEG_INFINITY; GROUP];
    row.for_each::<DENSE>(
        #[inline(always)]
        |i, x| lanes[i] = larger(x, lanes[i]),
    );
    let mut m = order::fold_in_half(lanes, larger);
    if m.abs() > 256.0 {
        // If `m` is −∞, every weight is +0 under the maximum 0 too.
        if m > f32::NEG_INFINITY {
            let large = m;
            // Exact where the weight is not 0. If `m` is +∞, the elements that are +∞ become 0 and share the
            // weight, and the subtraction makes the others −∞. It keeps a NaN, as a comparison would not: see
            // `lowest`.
            row.map_one_by_one::<DENSE>(
                #[inline(always)]
                |x| if x == large { 0.0 } else { (F32x1(x) - F32x1(large)).0 },
            );
            row.read_from_output();
        }
        m = 0.0;
    }
    let shift: Shift<F32x1> = Shift::without_base(token, F32x1::splat(token, m));
    // An array of equal floats, of which the compiler cannot prove that they are equal, because a maximum
    // could be NaN. rustc 1.95 compares the lanes of a Cortex-M55 with a single float as if NaN were less,
    // and so would lose a NaN.
    let mut lowest = [F32x1::splat(token, 0.0); GROUP];
    for (lowest, lane) in lowest.iter_mut().zip(lanes) {
        if lane >= f32::NEG_INFINITY {
            *lowest = shift.lowest();
        }
    }
    row.map::<DENSE>(
        #[inline(always)]
        |i, x| {
            let [w] = shift.with_lowest(lowest[i]).weight(token, F32x1::splat(token, x)).to_array();
            w
        },
    );
    row.read_from_output();
    let mut sums: [Sum<F32x1>; 4] = array!(|_j| Sum::new(token));
    row.rounds::<DENSE>(
        #[inline(always)]
        |j, w| {
            sums[j].add(F32x1(w[0]) + F32x1(w[1]));
            sums[j].add(F32x1(w[2]) + F32x1(w[3]));
        },
    );
    let a: [F32x1; 4] = array!(|j| sums[j].unbiased(token));
    let e: [F32x1; 4] = array!(|j| sums[j].e);
    let (a, e) = (F32x1(order::sum(token, a)), F32x1(order::sum(token, e)));
    let Normaliser { cutoff: F32x1(cutoff), factor } = Normaliser::new(token, a, e);
    // `w < above` is `w <= cutoff`, where `above` is the next float; `<` moves one float where `<=` moves
    // two.
    let above = f32::from_bits(cutoff.to_bits().wrapping_add(1));
    row.map_in_place::<DENSE>(
        #[inline(always)]
        |w| (F32x1(if w < above { 0.0 } else { w }) * factor).0,
    );
}

#[inline(always)]
fn larger(x: f32, m: f32) -> f32 {
    if x > m { x } else { m }
}
