//! Merging partial attention states over disjoint keys.

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::merge::Merge,
    matrix::{MatrixMut, MatrixRef},
};

/// Merges the attention outputs over two disjoint parts of the keys into the output over all of them
/// (split-KV, FlashDecoding).
///
/// For parts that other libraries computed, or that begin anywhere. Where this crate computes parts that begin at
/// multiples of [`SPAN`](crate::SPAN), prefer [`Attention::run_spans`](crate::attention::Attention::run_spans) and
/// [`join`](crate::attention::Attention::join): these lose nothing and give the bits of one call.
///
/// ```text
/// w = e^a / (e^a + e^b)                          a, b: log-sum-exps
/// out = w · out + (1 − w) · other_out
/// log_sum_exp = ln (e^a + e^b)
/// ```
///
/// | argument | shape | |
/// | --- | --- | --- |
/// | `out` | queries × width | in: the first output; out: the merged output |
/// | `log_sum_exp` | queries | in: that of the first output; out: that of the merged output |
/// | `other_out` | queries × width | the second output |
/// | `other_log_sum_exp` | queries | that of the second output |
///
/// [`Attention::run_with_log_sum_exp`](crate::attention::Attention::run_with_log_sum_exp) computes both
/// parts, for the same queries and without a key in common; only one part has the sink. Many parts are merged
/// one after another, in any order and grouping: the results agree within [the bound](crate::docs::numerics#how-exact). If a
/// query has a log-sum-exp of −∞ in one part (no key was visible), the result has the bits of the other part,
/// and the output of the empty part is not read; if it is −∞ in both, the output is +0. The formula is
/// section 3.1 of Dao et al., *FlashAttention* (2022). No extra memory is needed.
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
/// [`Error::Shape`] if sizes disagree or the width is 0. Nothing is written then.
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
    /// Those of [`merge`].
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
