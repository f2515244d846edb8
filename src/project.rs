//! Linear projections: embeddings to queries, keys or values.

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::{blocks::AnyRows, tile::Product, widen::ProjectElements},
    matrix::{MatrixMut, MatrixRef},
    narrow::Element,
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

/// [`project`] with weights of any [`Element`]: half or a quarter of the memory.
///
/// | argument | shape |
/// | --- | --- |
/// | `x` | tokens × inputs |
/// | `w` | inputs × outputs |
/// | `scales` | outputs for [`I8`](crate::I8); none for the others: `&[]` |
/// | `bias` | outputs, or `None` |
/// | `out` | tokens × outputs |
///
/// Weights are widened, which is exact: the bits are those of [`project`] with the widened weights. An output of
/// [`I8`](crate::I8) weights is multiplied by its scale before the bias is added. A scale is not checked: with one of
/// NaN or ∞ its column is not finite.
///
/// ```
/// use sdpa::{I8, Matrix, MatrixRef, narrow, project_elements};
///
/// // Stored as outputs × inputs: `narrow` makes a scale for each row.
/// let trained = Matrix::from([[0.5, 1.0], [-0.25, 0.125]]);
/// let (mut weights, mut scales) = ([I8::default(); 4], [0.0; 2]);
/// narrow(trained.view(), &mut weights, &mut scales)?;
///
/// let weights = MatrixRef::new(&weights, 2, 2)?.t();
/// let mut out = Matrix::<1, 2>::ZERO;
/// project_elements(Matrix::from([[2.0, 4.0]]).view(), weights, &scales, None, out.view_mut())?;
/// assert_eq!(out.0, [[5.007874, 0.003937008]]); // of weights in f32: 5 and 0
/// # Ok::<(), sdpa::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Shape`] if the sizes disagree, or inputs or outputs are 0. Nothing is written then.
pub fn project_elements<E: Element>(
    x: MatrixRef<'_>,
    w: MatrixRef<'_, E>,
    scales: &[E::Scale],
    bias: Option<&[f32]>,
    out: MatrixMut<'_>,
) -> Result<(), Error> {
    Backend::best().project_elements(x, w, scales, bias, out)
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
        let bias = check(x, w.shape(), bias, &out)?;
        self.run_project(x, w, bias, out);
        Ok(())
    }

    /// Computes a projection whose shapes agree.
    #[inline(always)]
    pub(crate) fn run_project(
        self,
        x: MatrixRef<'_>,
        w: MatrixRef<'_>,
        bias: Option<MatrixRef<'_>>,
        out: MatrixMut<'_>,
    ) {
        self.run_product(&mut Product {
            left: x,
            right: w,
            left_scale: 1.0,
            right_scale: 1.0,
            blocked: false,
            bias,
            out,
        });
    }

    /// [`project_elements`] on this back end.
    ///
    /// # Errors
    ///
    /// Those of [`project_elements`].
    pub fn project_elements<E: Element>(
        self,
        x: MatrixRef<'_>,
        w: MatrixRef<'_, E>,
        scales: &[E::Scale],
        bias: Option<&[f32]>,
        out: MatrixMut<'_>,
    ) -> Result<(), Error> {
        let scaled = if size_of::<E::Scale>() == 0 { 0 } else { w.cols() };
        if scales.len() != scaled {
            return Err(Error::Shape);
        }
        let bias = check(x, w.shape(), bias, &out)?;
        E::project(self, x, w, E::scales(scales), bias, out);
        Ok(())
    }

    /// [`project_elements`] for the C library, which knows the type of the weights at run time: one kernel has all.
    /// Not part of the API.
    #[doc(hidden)]
    pub fn project_any(
        self,
        x: MatrixRef<'_>,
        w: AnyRows<'_>,
        scales: &[f32],
        bias: Option<&[f32]>,
        out: MatrixMut<'_>,
    ) -> Result<(), Error> {
        let shape = match w {
            AnyRows::F32(w) => return self.project(x, w, bias, out),
            AnyRows::F16(w) => w.shape(),
            AnyRows::Bf16(w) => w.shape(),
            AnyRows::I8(w) => w.shape(),
        };
        let bias = check(x, shape, bias, &out)?;
        self.run(ProjectElements { x, w, scales, bias, out });
        Ok(())
    }
}

/// Checks the shapes, and returns the biases as a matrix of the shape of `out`.
#[inline(always)]
fn check<'a>(
    x: MatrixRef<'_>,
    (inputs, outputs): (usize, usize),
    bias: Option<&'a [f32]>,
    out: &MatrixMut<'_>,
) -> Result<Option<MatrixRef<'a>>, Error> {
    let agree = x.cols() == inputs
        && out.shape() == (x.rows(), outputs)
        && bias.is_none_or(|bias| bias.len() == outputs);
    if !agree || inputs == 0 || outputs == 0 {
        return Err(Error::Shape);
    }
    // A row stride of 0 repeats the biases for every token.
    bias.map(|bias| MatrixRef::with_strides(bias, x.rows(), outputs, 0, 1)).transpose()
}
