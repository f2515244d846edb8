//! The default scale of scores.

use crate::simd::{root::sqrt, scalar::F32x1};

/// `1 / √dim`: the square root is rounded, then the quotient.
#[inline]
pub(crate) fn default_scale(dim: usize) -> f32 {
    (F32x1(1.0) / F32x1(sqrt(dim as f32))).0
}
