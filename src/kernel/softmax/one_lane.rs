//! Softmax of a row on a machine of one lane: the bits of [`Rows`](super::Rows) on wider
//! ones.
//!
//! Four loops, one after the other: the maximum, the weights, their sum, the division. FMA into
//! two they would need more registers than there are, and a Cortex-M55 would run none of them
//! in its vectors.

use super::{Normaliser, Sum};
use crate::{
    kernel::{exp::Shift, order},
    simd::{
        Vector, array,
        scalar::{F32x1, Scalar},
        scalar_row::{FLOATS, ScalarRow},
    },
};

/// Writes the softmax of `line`, which is dense if `DENSE`.
#[inline(always)]
pub(super) fn softmax<const DENSE: bool>(mut line: ScalarRow<'_>) {
    let token = Scalar;
    let mut lanes = [f32::NEG_INFINITY; FLOATS];
    line.for_each::<DENSE>(
        #[inline(always)]
        |i, x| lanes[i] = larger(x, lanes[i]),
    );
    let mut m = order::halve(lanes, larger);
    if m.abs() > 256.0 {
        // Under −∞ every weight is +0, as it is under 0.
        if m > f32::NEG_INFINITY {
            let far = m;
            // Exact where the weight is not 0. Where the maximum is +∞ the elements that are share the
            // weight, and the others become −∞. A NaN stays one, by a subtraction: see `lowest`.
            line.map_one_by_one::<DENSE>(
                #[inline(always)]
                |x| if x == far { 0.0 } else { (F32x1(x) - F32x1(far)).0 },
            );
            line.stay_in_place();
        }
        m = 0.0;
    }
    let shift: Shift<F32x1> = Shift::near(token, F32x1::splat(token, m));
    // The same in each lane, which the compiler may not know (a maximum might be NaN for all it
    // knows): rustc 1.95 compares the lanes of a Cortex-M55 with a single float as if NaN were less,
    // and so would lose it.
    let mut lowest = [F32x1::splat(token, 0.0); FLOATS];
    for (lowest, lane) in lowest.iter_mut().zip(lanes) {
        if lane >= f32::NEG_INFINITY {
            *lowest = shift.lowest();
        }
    }
    line.map::<DENSE>(
        #[inline(always)]
        |i, x| {
            let [w] = shift.with_lowest(lowest[i]).weight(token, F32x1::splat(token, x)).to_array();
            w
        },
    );
    line.stay_in_place();
    let mut sums: [Sum<F32x1>; 4] = array!(|_j| Sum::new(token));
    line.rounds::<DENSE>(
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
    // The next float: below it is up to the cutoff, and `<` moves one float where `<=` moves two.
    let above = f32::from_bits(cutoff.to_bits().wrapping_add(1));
    line.change::<DENSE>(
        #[inline(always)]
        |w| (F32x1(if w < above { 0.0 } else { w }) * factor).0,
    );
}

#[inline(always)]
fn larger(x: f32, m: f32) -> f32 {
    if x > m { x } else { m }
}
