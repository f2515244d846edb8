//! The scale that is left out.

use crate::simd::root::sqrt;

/// `1 / √dim`, the root rounded and then the quotient.
pub(crate) fn default_scale(dim: usize) -> f32 {
    1.0 / sqrt(dim as f32)
}
