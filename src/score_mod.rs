//! Score modifications: softcap, bias, slopes and keep. Each is linked only if its option is set.

use crate::{
    dispatch::Backend,
    kernel::score_mod::{AddBias, Softcap, SubtractSlope},
    matrix::{MatrixMut, MatrixRef},
};

/// Applies the softcap: `s = cap · tanh(s / cap)`. 0 means no cap.
pub(crate) fn cap(backend: Backend, cap: f32, scores: MatrixMut<'_>) {
    if cap > 0.0 {
        backend.run(Softcap { cap, scores });
    }
}

/// Adds `bias`, which has the shape of `scores`; −∞ masks a score of any value. With a `fill` it only
/// writes `fill` where the bias is −∞.
pub(crate) fn bias(
    backend: Backend,
    bias: MatrixRef<'_>,
    fill: Option<f32>,
    scores: &mut MatrixMut<'_>,
) {
    backend.run(AddBias { bias, fill, scores: scores.view_mut() });
}

/// Subtracts `slope` times the distance of key and query, whose positions differ by `offset` in the first row and
/// column.
pub(crate) fn slope(backend: Backend, slope: f32, offset: i64, scores: MatrixMut<'_>) {
    // The differences of all rows and columns are in range then, and distances count up to 2^30.
    let offset = offset.clamp(-(1 << 62), 1 << 62);
    backend.run(SubtractSlope { slope, offset, scores });
}

/// Whether every element of `bias` is −∞.
pub(crate) fn bias_masks_all(bias: MatrixRef<'_>) -> bool {
    all(bias, |bias| bias == f32::NEG_INFINITY)
}

/// Writes `fill` where `keep` is 0 (masked fill).
pub(crate) fn mask_dropped(keep: MatrixRef<'_, u8>, fill: f32, scores: &mut MatrixMut<'_>) {
    for row in 0..keep.rows() {
        for col in 0..keep.cols() {
            // A loop with two exits is never unrolled.
            let (Some(keep), Some(score)) = (keep.get(row, col), scores.get_mut(row, col)) else {
                return;
            };
            if keep == 0 {
                *score = fill;
            }
        }
    }
}

/// Whether every element of `keep` is 0.
pub(crate) fn keep_masks_all(keep: MatrixRef<'_, u8>) -> bool {
    all(keep, |keep| keep == 0)
}

fn all<T: Copy>(mask: MatrixRef<'_, T>, is_masked: impl Fn(T) -> bool) -> bool {
    (0..mask.rows())
        .all(|row| (0..mask.cols()).all(|col| mask.get(row, col).is_none_or(&is_masked)))
}
