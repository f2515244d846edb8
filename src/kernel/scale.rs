//! The scale that is left out.

use crate::simd::{root::sqrt, scalar::F32x1};

/// `1 / √dim`, the root rounded and then the quotient.
pub(crate) fn default_scale(dim: usize) -> f32 {
    (F32x1(1.0) / F32x1(sqrt(dim as f32))).0
}
