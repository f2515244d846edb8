//! Partial states over different keys, made one.

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::merge::Merge,
    matrix::{MatrixMut, MatrixRef},
};

/// Makes the attention over all keys of the attentions over two parts of them.
///
/// ```text
/// w = e^a / (e^a + e^b)                          a, b: log-sum-exps
/// out = w · out + (1 − w) · other_out
/// log_sum_exp = ln (e^a + e^b)
/// ```
///
/// | argument | shape | |
/// | --- | --- | --- |
/// | `out` | queries × width | one output, then the one over all keys |
/// | `log_sum_exp` | queries | likewise |
/// | `other_out` | queries × width | the other output |
/// | `other_log_sum_exp` | queries | |
///
/// Both are what [`Attention::run_with_log_sum_exp`](crate::attention::Attention::run_with_log_sum_exp) gives
/// for the same queries and no key in common; a sink belongs to one part only. Many
/// parts are merged one after another, in any order and grouping: within
/// [the bound](crate::docs::numerics#how-exact) the result is the same. A query whose log-sum-exp is −∞ in one of
/// them (no key was visible) keeps the bits of the other, and what stands in the empty
/// output is not read; empty in both it is +0. The formula is section 3.1 of Dao et al.,
/// *FlashAttention* (2022), and no memory is needed.
///
/// ```
/// use sdpa::{Attention, Matrix, merge};
///
/// let keys = Matrix::from([[1.0], [2.0], [3.0], [4.0]]);
/// let values = Matrix::from([[1.0], [2.0], [3.0], [9.0]]);
/// let query = Matrix::from([[0.5]]);
/// let mut workspace = [0.0; Attention::workspace(1, 1)];
/// let mut part = |from: usize, to: usize| {
///     let rows = |m: &Matrix<4, 1>| Matrix::<2, 1>::from([m.0[from], m.0[to]]);
///     let (mut out, mut log_sum_exp) = (Matrix::<1, 1>::ZERO, [0.0]);
///     Attention::new().run_with_log_sum_exp(
///         query.view(),
///         rows(&keys).view(),
///         rows(&values).view(),
///         out.view_mut(),
///         &mut log_sum_exp,
///         &mut workspace,
///     )?;
///     Ok::<_, sdpa::Error>((out, log_sum_exp))
/// };
/// let (mut out, mut log_sum_exp) = part(0, 1)?;
/// let (other_out, other_log_sum_exp) = part(2, 3)?;
/// merge(out.view_mut(), &mut log_sum_exp, other_out.view(), &other_log_sum_exp)?;
///
/// let mut whole = Matrix::<1, 1>::ZERO;
/// let workspace = &mut workspace;
/// Attention::new().run(query.view(), keys.view(), values.view(), whole.view_mut(), workspace)?;
/// assert!((out.0[0][0] - whole.0[0][0]).abs() < 1e-6);
/// # Ok::<(), sdpa::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Shape`] when sizes disagree or the width is 0. Nothing has been written then.
pub fn merge(
    out: MatrixMut<'_>,
    log_sum_exp: &mut [f32],
    other_out: MatrixRef<'_>,
    other_log_sum_exp: &[f32],
) -> Result<(), Error> {
    Backend::best().merge(out, log_sum_exp, other_out, other_log_sum_exp)
}

impl Backend {
    /// [`merge`] on this back end.
    ///
    /// # Errors
    ///
    /// As [`merge`].
    pub fn merge(
        self,
        out: MatrixMut<'_>,
        log_sum_exp: &mut [f32],
        other_out: MatrixRef<'_>,
        other_log_sum_exp: &[f32],
    ) -> Result<(), Error> {
        let queries = out.rows();
        let agree = other_out.shape() == out.shape()
            && log_sum_exp.len() == queries
            && other_log_sum_exp.len() == queries;
        if !agree || out.cols() == 0 {
            return Err(Error::Shape);
        }
        self.run(Merge { out, log_sum_exp, other_out, other_log_sum_exp });
        Ok(())
    }
}
