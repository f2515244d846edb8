//! Attention, of one head and of many.

use core::ptr;

use sdpa::{Attention, HeadsMut, HeadsRef};

use crate::{
    options::{self, Options, sdpa_options},
    region::{Region, check_apart},
    status::{Checked, Failure, SDPA_ERROR_SHAPE, sdpa_status, status},
    views::{sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut, slice, slice_mut},
};

/// The pattern under all options: out[key][query] is how much a key matters to a query, of
/// queries (queries x dim) and keys (keys x dim). A column sums to 1, less what a sink takes,
/// or is 0 throughout where every key is masked. options: NULL for the defaults.
///
/// Overlap: out with no input. On failure out is as it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_pattern(
    queries: sdpa_matrix,
    keys: sdpa_matrix,
    options: *const sdpa_options,
    out: sdpa_matrix_mut,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let inputs = [queries.region()?, keys.region()?];
        let outputs = [out.region()?];
        check_apart(&outputs, &inputs)?;
        // SAFETY: as the caller promises.
        let Options { attention, regions } =
            unsafe { options::read(options, ptr::null(), 1, [keys.rows, queries.rows]) }?;
        check_apart(&outputs, &regions)?;
        // SAFETY: not NULL, apart, and as the caller promises.
        let (queries, keys, out) = unsafe { (queries.view()?, keys.view()?, out.view()?) };
        Ok(attention.pattern(queries, keys, out)?)
    };
    status(call())
}

/// How many floats of workspace an attention call needs for heads of dim columns and values of
/// value_dim; SIZE_MAX where that is more than there can be. SDPA_ATTENTION_WORKSPACE is the
/// same number for static arrays.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_attention_workspace(dim: usize, value_dim: usize) -> usize {
    Attention::workspace(dim, value_dim)
}

/// Attention, without a score grid: out[query] = sum over the keys of weight * values[key]; the
/// weights are a column of sdpa_pattern. Of queries (queries x dim), keys (keys x dim) and
/// values (keys x width); out is queries x width.
///
/// options: NULL for the defaults. log_sum_exp: takes queries.rows floats, the natural logarithm
/// of each query's sum of exponentials, the sink included; NULL: not wanted. workspace: at least
/// sdpa_attention_workspace(dim, width) floats, whatever they hold; workspace_len counts
/// floats. What is behind those is not touched.
///
/// Overlap: out, log_sum_exp and workspace with no input and not with each other. On failure
/// all three are as they were.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_attention(
    queries: sdpa_matrix,
    keys: sdpa_matrix,
    values: sdpa_matrix,
    options: *const sdpa_options,
    out: sdpa_matrix_mut,
    log_sum_exp: *mut f32,
    workspace: *mut f32,
    workspace_len: usize,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let inputs = [queries.region()?, keys.region()?, values.region()?];
        let need = Attention::workspace(keys.cols, values.cols);
        let extras = Extras { log_sum_exp, queries: queries.rows, workspace, workspace_len, need };
        let outputs = extras.beside(out.region()?)?;
        check_apart(&outputs, &inputs)?;
        // SAFETY: as the caller promises.
        let Options { attention, regions } =
            unsafe { options::read(options, ptr::null(), 1, [keys.rows, queries.rows]) }?;
        check_apart(&outputs, &regions)?;
        // SAFETY: not NULL, apart, and as the caller promises.
        unsafe {
            let (queries, keys, values) = (queries.view()?, keys.view()?, values.view()?);
            extras.run(&attention, queries.into(), keys.into(), values.into(), out.view()?.into())
        }
    };
    status(call())
}

/// Makes one of the attentions of the same queries over two parts of the keys: out and log_sum_exp
/// are those of one part, and become those of both. Of queries x width; each log_sum_exp has a
/// float a query, as sdpa_attention gives it. Where one is -INFINITY (no key was visible) its
/// output is not read. A sink belongs to one part alone.
///
/// Overlap: out and log_sum_exp with neither other, and not with each other. On failure both are
/// as they were.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_merge(
    out: sdpa_matrix_mut,
    log_sum_exp: *mut f32,
    other_out: sdpa_matrix,
    other_log_sum_exp: *const f32,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let outputs = [out.region()?, Region::array(log_sum_exp, out.rows)?];
        let inputs = [other_out.region()?, Region::array(other_log_sum_exp, other_out.rows)?];
        check_apart(&outputs, &inputs)?;
        // SAFETY: not NULL, apart, and as the caller promises.
        unsafe {
            let log_sum_exp = slice_mut(log_sum_exp, out.rows);
            let other_log_sum_exp = slice(other_log_sum_exp, other_out.rows);
            Ok(sdpa::merge(out.view()?, log_sum_exp, other_out.view()?, other_log_sum_exp)?)
        }
    };
    status(call())
}

/// Attention of many heads: head h of queries, keys, values and out is a call of
/// sdpa_attention. queries.heads is a multiple of keys.heads (as many as of values): that many
/// query heads in a row share one head of keys and values (grouped-query attention).
///
/// bias and keep of the options are for all heads. sinks: queries.heads floats, a sink for each
/// query head, beside which the options have none (SDPA_ERROR_OPTION); NULL: none.
/// log_sum_exp: takes queries.heads * queries.rows floats, head after head; NULL: not wanted.
/// workspace: as for one head, whatever the number of heads.
///
/// Overlap: out, log_sum_exp and workspace with no input and not with each other. On failure
/// all three are as they were.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_attention_heads(
    queries: sdpa_heads,
    keys: sdpa_heads,
    values: sdpa_heads,
    options: *const sdpa_options,
    sinks: *const f32,
    out: sdpa_heads_mut,
    log_sum_exp: *mut f32,
    workspace: *mut f32,
    workspace_len: usize,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let inputs = [queries.region()?, keys.region()?, values.region()?];
        let need = Attention::workspace(keys.cols, values.cols);
        let count = product(queries.heads, queries.rows)?;
        let extras = Extras { log_sum_exp, queries: count, workspace, workspace_len, need };
        let outputs = extras.beside(out.region()?)?;
        check_apart(&outputs, &inputs)?;
        let grid = [keys.rows, queries.rows];
        // SAFETY: as the caller promises.
        let Options { attention, regions } =
            unsafe { options::read(options, sinks, queries.heads, grid) }?;
        check_apart(&outputs, &regions)?;
        // SAFETY: not NULL, apart, and as the caller promises.
        unsafe {
            let (queries, keys, values) = (queries.view()?, keys.view()?, values.view()?);
            extras.run(&attention, queries, keys, values, out.view()?)
        }
    };
    status(call())
}

/// `heads * rows`, which only views without memory of their own can have too large.
pub(crate) fn product(heads: usize, rows: usize) -> Checked<usize> {
    heads.checked_mul(rows).ok_or(Failure(SDPA_ERROR_SHAPE))
}

/// What an attention call writes beside its output.
pub(crate) struct Extras {
    pub(crate) log_sum_exp: *mut f32,
    pub(crate) queries: usize,
    pub(crate) workspace: *mut f32,
    pub(crate) workspace_len: usize,
    /// How many floats of workspace the call needs.
    pub(crate) need: usize,
}

impl Extras {
    /// How many floats of workspace there are, of those that the call needs.
    fn workspace_len(&self) -> usize {
        self.workspace_len.min(self.need)
    }

    /// All that the call writes.
    pub(crate) fn beside(&self, out: Region) -> Checked<[Region; 3]> {
        let wanted = if self.log_sum_exp.is_null() { 0 } else { self.queries };
        Ok([
            out,
            Region::array(self.log_sum_exp, wanted)?,
            Region::array(self.workspace, self.workspace_len())?,
        ])
    }

    /// The workspace and, where it is wanted, the log-sum-exp.
    ///
    /// # Safety
    ///
    /// What [`beside`](Self::beside) returns is the memory of this call alone, for `'a`.
    pub(crate) unsafe fn slices<'a>(&self) -> (&'a mut [f32], Option<&'a mut [f32]>) {
        let Self { log_sum_exp, queries, workspace, .. } = *self;
        // SAFETY: as the caller promises.
        unsafe {
            let wanted = (!log_sum_exp.is_null()).then(|| slice_mut(log_sum_exp, queries));
            (slice_mut(workspace, self.workspace_len()), wanted)
        }
    }

    /// The call.
    ///
    /// # Safety
    ///
    /// As [`slices`](Self::slices).
    unsafe fn run<'a>(
        &self,
        attention: &Attention<'_>,
        queries: HeadsRef<'a>,
        keys: HeadsRef<'a>,
        values: HeadsRef<'a>,
        out: HeadsMut<'a>,
    ) -> Checked<()> {
        // SAFETY: as the caller promises.
        let (workspace, log_sum_exp) = unsafe { self.slices() };
        Ok(match log_sum_exp {
            None => attention.run(queries, keys, values, out, workspace),
            Some(log_sum_exp) => {
                attention.run_with_log_sum_exp(queries, keys, values, out, log_sum_exp, workspace)
            }
        }?)
    }
}
