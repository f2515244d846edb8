//! The dot product of two slices.

use crate::{dispatch::Backend, error::Error, kernel::dot::Dot};

/// Computes the dot product `Σ a[i] · b[i]` of two slices; 0 for empty slices.
///
/// The rounding error is at most `(n / 64 + 7) · 2⁻²⁴ · Σ |a[i] · b[i]|` in the FMA
/// family, and `(n / 4 + 3) · 2⁻²⁴ · Σ |a[i] · b[i]|` in the non-FMA family.
///
/// ```
/// assert_eq!(sdpa::dot(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), Ok(32.0));
/// assert_eq!(sdpa::dot(&[1.0, 2.0], &[4.0]), Err(sdpa::Error::Shape));
/// ```
///
/// # Errors
///
/// [`Error::Shape`] if the lengths differ.
#[inline]
pub fn dot(a: &[f32], b: &[f32]) -> Result<f32, Error> {
    Backend::best().dot(a, b)
}

impl Backend {
    /// [`dot`] on this back end.
    ///
    /// # Errors
    ///
    /// Those of [`dot`].
    #[cfg_attr(portable, inline(always))]
    pub fn dot(self, a: &[f32], b: &[f32]) -> Result<f32, Error> {
        if a.len() != b.len() {
            return Err(Error::Shape);
        }
        Ok(self.run_dot(&Dot { a, b }))
    }

    /// Not inlined where the kernel is a function of its own: see [`run_product`](Self::run_product).
    #[cfg_attr(portable, inline(never))]
    #[cfg_attr(not(portable), inline(always))]
    fn run_dot(self, dot: &Dot<'_>) -> f32 {
        self.run(dot)
    }
}
