//! Weighted sums of the values.

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::tile::Product,
    matrix::{MatrixMut, MatrixRef},
};

/// Computes the attention output, the weighted sums of the values:
/// `out[query] = Σ over keys of pattern[key][query] · values[key]`.
///
/// | argument | shape |
/// | --- | --- |
/// | `pattern` | keys × queries: the attention weights, a row per key, a column per query |
/// | `values` | keys × width |
/// | `out` | queries × width |
///
/// Each output is the sum of blocks of 64 keys, each one chain of multiply-adds. Its error is at most
/// `(64 + keys / 64 + 2) · 2⁻²³ · Σ |weight · value|`, half of that in the FMA family. A weight of 0 is not
/// a mask here: 0 times an infinite value is NaN. Without keys the output is +0; without queries nothing is
/// written. No extra memory is needed.
///
/// ```
/// use sdpa::{Matrix, weighted_sum};
///
/// let pattern = Matrix::from([[0.25], [0.75]]);
/// let values = Matrix::from([[4.0, 0.0, 8.0], [0.0, 4.0, 8.0]]);
/// let mut out = Matrix::<1, 3>::ZERO;
/// weighted_sum(pattern.view(), values.view(), out.view_mut())?;
/// assert_eq!(out.0, [[1.0, 3.0, 8.0]]);
/// # Ok::<(), sdpa::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Shape`] if the sizes disagree, or the width of the values is 0. Nothing is written then.
pub fn weighted_sum(
    pattern: MatrixRef<'_>,
    values: MatrixRef<'_>,
    out: MatrixMut<'_>,
) -> Result<(), Error> {
    Backend::best().weighted_sum(pattern, values, out)
}

impl Backend {
    /// [`weighted_sum`] on this back end.
    ///
    /// # Errors
    ///
    /// Those of [`weighted_sum`].
    pub fn weighted_sum(
        self,
        pattern: MatrixRef<'_>,
        values: MatrixRef<'_>,
        out: MatrixMut<'_>,
    ) -> Result<(), Error> {
        let agree =
            pattern.rows() == values.rows() && out.shape() == (pattern.cols(), values.cols());
        if !agree || values.cols() == 0 {
            return Err(Error::Shape);
        }
        let left = pattern.t();
        self.run_product(&mut Product {
            left,
            right: values,
            left_scale: 1.0,
            right_scale: 1.0,
            blocked: true,
            bias: None,
            out,
        });
        Ok(())
    }
}
