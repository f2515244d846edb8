//! Linear projections: embeddings to queries, keys or values.

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::tile::Product,
    matrix::{MatrixMut, MatrixRef},
};

/// Computes a linear projection `out = x · w + bias`: embeddings to queries, keys or values.
///
/// | argument | shape |
/// | --- | --- |
/// | `x` | tokens × inputs |
/// | `w` | inputs × outputs |
/// | `bias` | outputs, or `None` |
/// | `out` | tokens × outputs |
///
/// This is the linear layer `X W` of Vaswani et al., *Attention Is All You Need*
/// (2017), section 3.2.2. Pass `w.t()` if the weights are stored as outputs × inputs, as in most
/// frameworks. Without tokens nothing is written. No extra memory is needed.
///
/// ```
/// use sdpa::{Matrix, project};
///
/// let x = Matrix::from([[1.0, 2.0]]);
/// let w = Matrix::from([[1.0, 0.0, -1.0], [0.5, 1.0, 0.0]]);
/// let mut out = Matrix::<1, 3>::ZERO;
/// project(x.view(), w.view(), Some(&[0.0, 10.0, 0.0]), out.view_mut())?;
/// assert_eq!(out.0, [[2.0, 12.0, -1.0]]);
/// # Ok::<(), sdpa::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Shape`] if the sizes disagree, or inputs or outputs are 0. Nothing is written then.
pub fn project(
    x: MatrixRef<'_>,
    w: MatrixRef<'_>,
    bias: Option<&[f32]>,
    out: MatrixMut<'_>,
) -> Result<(), Error> {
    Backend::best().project(x, w, bias, out)
}

impl Backend {
    /// [`project`] on this back end.
    ///
    /// # Errors
    ///
    /// Those of [`project`].
    pub fn project(
        self,
        x: MatrixRef<'_>,
        w: MatrixRef<'_>,
        bias: Option<&[f32]>,
        out: MatrixMut<'_>,
    ) -> Result<(), Error> {
        let (inputs, outputs) = w.shape();
        let agree = x.cols() == inputs
            && out.shape() == (x.rows(), outputs)
            && bias.is_none_or(|bias| bias.len() == outputs);
        if !agree || w.is_empty() {
            return Err(Error::Shape);
        }
        // A row stride of 0 repeats the biases for every token.
        let bias = bias.map(|bias| MatrixRef::with_strides(bias, x.rows(), outputs, 0, 1));
        let bias = bias.transpose()?;
        self.run_product(&mut Product {
            left: x,
            right: w,
            left_scale: 1.0,
            right_scale: 1.0,
            blocked: false,
            bias,
            out,
        });
        Ok(())
    }
}
