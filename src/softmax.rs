//! Softmax of a slice, of every row of a matrix, of every column.

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::softmax::{Columns, Exp, Panels, Rows, Slice},
    matrix::{MatrixMut, MatrixRef},
    simd::strip::InOut,
};

/// Computes the softmax of a slice: `out[i] = e^x[i] / Σ e^x[j]`. Weights are in [0, 1] and their sum is 1.
///
/// Weights of at least 2⁻¹²⁵ are within 6 ULP of the true value for up to 1024 inputs
/// in [−80, 80], smaller ones within 2⁻¹²⁵; no weight is subnormal. The weight of −∞ is +0,
/// even if all inputs are −∞. If inputs are +∞, they share the weight equally (the limit). A NaN makes all of
/// `out` NaN.
///
/// ```
/// let mut weights = [0.0; 4];
/// sdpa::softmax(&[0.7, -0.93, -0.24, -5.0], &mut weights)?;
/// for (weight, expected) in weights.iter().zip([0.628969, 0.123234, 0.245693, 0.002105]) {
///     assert!((weight - expected).abs() < 1e-6);
/// }
/// # Ok::<(), sdpa::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Shape`] if the lengths differ.
#[inline]
pub fn softmax(x: &[f32], out: &mut [f32]) -> Result<(), Error> {
    Backend::best().softmax(x, out)
}

/// Computes the [`softmax`] of a slice in place.
#[inline]
pub fn softmax_in_place(x: &mut [f32]) {
    Backend::best().softmax_in_place(x);
}

/// Computes the softmax of every row of `x`; `out` has the shape of `x`.
///
/// Each row has the bits that [`softmax`] returns.
///
/// # Errors
///
/// [`Error::Shape`] if the shapes differ.
#[inline]
pub fn softmax_rows(x: MatrixRef<'_>, out: MatrixMut<'_>) -> Result<(), Error> {
    Backend::best().softmax_rows(x, out)
}

/// Computes the softmax of every row in place: see [`softmax_rows`].
#[inline]
pub fn softmax_rows_in_place(x: MatrixMut<'_>) {
    Backend::best().softmax_rows_in_place(x);
}

/// Computes the softmax of every column of `x`; `out` has the shape of `x`.
///
/// This turns a score grid, a column per query, into the pattern: the attention weights. It is faster than
/// [`softmax_rows`], because lanes are columns and no vector needs a horizontal sum. A column is summed in
/// another order, so its last bits may differ from those of [`softmax`].
///
/// ```
/// use sdpa::{Matrix, softmax_columns};
///
/// let scores = Matrix::from([[0.0, f32::NEG_INFINITY], [0.0, 5.0]]);
/// let mut pattern = Matrix::<2, 2>::ZERO;
/// softmax_columns(scores.view(), pattern.view_mut())?;
/// assert_eq!(pattern.0, [[0.5, 0.0], [0.5, 1.0]]);
/// # Ok::<(), sdpa::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Shape`] if the shapes differ.
#[inline]
pub fn softmax_columns(x: MatrixRef<'_>, out: MatrixMut<'_>) -> Result<(), Error> {
    Backend::best().softmax_columns(x, out)
}

/// Computes the softmax of every column in place: see [`softmax_columns`].
#[inline]
pub fn softmax_columns_in_place(x: MatrixMut<'_>) {
    Backend::best().softmax_columns_in_place(x);
}

impl Backend {
    /// [`softmax`] on this back end.
    ///
    /// # Errors
    ///
    /// Those of [`softmax`].
    // Inlined into the caller's crate the kernel has one caller, whose slices are known not to overlap: 5 %
    // faster on one lane.
    #[inline]
    pub fn softmax(self, x: &[f32], out: &mut [f32]) -> Result<(), Error> {
        if x.len() != out.len() {
            return Err(Error::Shape);
        }
        self.run(Slice { from: Some(x), to: out });
        Ok(())
    }

    /// Computes only the exponentials of [`softmax`], times a power of two, for the benches. Not part of
    /// the API.
    #[doc(hidden)]
    pub fn exp_pass(self, x: &[f32], out: &mut [f32]) -> Result<(), Error> {
        self.run(Exp(InOut::new(MatrixRef::from_row(x), MatrixMut::from_row(out))?));
        Ok(())
    }

    /// [`softmax_in_place`] on this back end.
    #[inline]
    pub fn softmax_in_place(self, x: &mut [f32]) {
        self.run(Slice { from: None, to: x });
    }

    /// [`softmax_rows`] on this back end.
    ///
    /// # Errors
    ///
    /// Those of [`softmax_rows`].
    #[cfg_attr(portable, inline(always))]
    pub fn softmax_rows(self, x: MatrixRef<'_>, out: MatrixMut<'_>) -> Result<(), Error> {
        self.run_rows(&mut Rows(InOut::new(x, out)?));
        Ok(())
    }

    /// [`softmax_rows_in_place`] on this back end.
    pub fn softmax_rows_in_place(self, x: MatrixMut<'_>) {
        self.run_rows(&mut Rows(InOut::in_place(x)));
    }

    /// [`softmax_columns`] on this back end.
    ///
    /// # Errors
    ///
    /// Those of [`softmax_columns`].
    #[cfg_attr(portable, inline(always))]
    pub fn softmax_columns(self, x: MatrixRef<'_>, out: MatrixMut<'_>) -> Result<(), Error> {
        self.run_columns(&mut Columns::new(InOut::new(x, out)?));
        Ok(())
    }

    /// [`softmax_columns_in_place`] on this back end.
    pub fn softmax_columns_in_place(self, x: MatrixMut<'_>) {
        self.run_columns(&mut Columns::new(InOut::in_place(x)));
    }

    /// [`softmax_columns_in_place`] with a sink: one more score in the denominator of each column, whose
    /// weight is not written.
    pub(crate) fn softmax_columns_with_sink(self, sink: f32, x: MatrixMut<'_>) {
        self.run_columns(&mut Columns { sink, ..Columns::new(InOut::in_place(x)) });
    }

    /// Not inlined where the kernel is a function of its own: see [`run_product`](Self::run_product).
    #[cfg_attr(portable, inline(never))]
    #[cfg_attr(not(portable), inline(always))]
    fn run_rows(self, rows: &mut Rows<'_>) {
        self.run(rows);
    }

    /// Likewise.
    #[cfg_attr(portable, inline(never))]
    fn run_columns(self, columns: &mut Columns<'_>) {
        if columns.want_panels() {
            self.run(Panels(columns));
        } else {
            self.run(columns);
        }
    }
}
