//! The score grid `K · Qᵀ`: every key times every query.

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::{scale::default_scale, tile::Product},
    matrix::{MatrixMut, MatrixRef},
};

/// Computes the score grid `out[key][query] = scale · keys[key] · queries[query]`, scaled `K · Qᵀ`: a **row
/// per key and a column per query**.
///
/// | argument | shape |
/// | --- | --- |
/// | `keys` | keys × dim |
/// | `queries` | queries × dim |
/// | `scale` | any finite number; `None` is `1 / √dim` |
/// | `out` | keys × queries |
///
/// Most libraries store the transpose, a row per query: pass `out.t()` for that.
/// The query is multiplied by the scale first, rounded once; then each score is one
/// chain of multiply-adds over `dim`. The formula is equation 1 of Vaswani et al., *Attention Is All
/// You Need* (2017). Without keys or queries nothing is written. No extra memory is needed.
///
/// ```
/// use sdpa::{Matrix, scores};
///
/// let keys = Matrix::from([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]);
/// let queries = Matrix::from([[3.0, 4.0]]);
/// let mut grid = Matrix::<3, 1>::ZERO;
/// scores(keys.view(), queries.view(), Some(1.0), grid.view_mut())?;
/// assert_eq!(grid.0, [[3.0], [8.0], [7.0]]);
/// # Ok::<(), sdpa::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Shape`] if the sizes disagree or `dim` is 0, [`Error::Option`] if the
/// scale is not finite. Nothing is written then.
pub fn scores(
    keys: MatrixRef<'_>,
    queries: MatrixRef<'_>,
    scale: Option<f32>,
    out: MatrixMut<'_>,
) -> Result<(), Error> {
    Backend::best().scores(keys, queries, scale, out)
}

impl Backend {
    /// [`scores`] on this back end.
    ///
    /// # Errors
    ///
    /// Those of [`scores`].
    #[cfg_attr(portable, inline(always))]
    pub fn scores(
        self,
        keys: MatrixRef<'_>,
        queries: MatrixRef<'_>,
        scale: Option<f32>,
        out: MatrixMut<'_>,
    ) -> Result<(), Error> {
        let dim = keys.cols();
        if dim == 0 || queries.cols() != dim || out.shape() != (keys.rows(), queries.rows()) {
            return Err(Error::Shape);
        }
        let scale = scale.unwrap_or_else(|| default_scale(dim));
        if !scale.is_finite() {
            return Err(Error::Option);
        }
        let right = queries.t();
        self.run_product(&mut Product {
            left: keys,
            right,
            left_scale: 1.0,
            right_scale: scale,
            blocked: false,
            bias: None,
            out,
        });
        Ok(())
    }
}
