//! Attention, of one head and of many.

use core::ptr;

use sdpa::{Attention, Backend};

use crate::{
    library::{backend_of, operation, sdpa_backend_t},
    options::{Options, sdpa_options},
    region::{Place, Strided, array, check_apart},
    status::{
        Checked, Failure, SDPA_ERROR_SHAPE, SDPA_ERROR_SHAPE_KEYS, SDPA_ERROR_SHAPE_OTHER_OUT,
        SDPA_ERROR_SHAPE_OUT, SDPA_ERROR_SHAPE_QUERIES, SDPA_ERROR_SHAPE_VALUES, sdpa_status,
        status,
    },
    views::{
        In, Operand, Out, Output, Slot, sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut,
        slice, slice_mut,
    },
};

operation! {
    /// The pattern under all options: out[key][query] is how much a key matters to a query, of
    /// queries (queries x dim) and keys (keys x dim). A column sums to 1, less what a sink takes,
    /// or is 0 throughout where every key is masked. options: NULL for the defaults.
    ///
    /// Overlap: out with no input. On failure out is as it was.
    fn sdpa_pattern, sdpa_pattern_on(
        on, queries: sdpa_matrix, keys: sdpa_matrix, options: *const sdpa_options,
        out: sdpa_matrix_mut,
    ) {
        let grid = Grid { queries, keys, options, out };
        // SAFETY: as the caller promises; checked before it runs.
        unsafe {
            grid.check()?;
            grid.run(on)
        }
    }
}

/// The arguments of a pattern.
struct Grid {
    queries: sdpa_matrix,
    keys: sdpa_matrix,
    options: *const sdpa_options,
    out: sdpa_matrix_mut,
}

// In what follows a check is not inlined, and nor is the call of the crate: their frames are never there at
// the same time. tests/frames.sh holds their sums to a limit.

impl Grid {
    /// # Safety
    ///
    /// As [`Options::new`].
    #[inline(never)]
    unsafe fn check(&self) -> Checked<()> {
        let outputs = [self.out.output()?];
        check_apart(&outputs, &self.queries.operand()?)?;
        check_apart(&outputs, &self.keys.operand()?)?;
        let grid = [self.keys.rows, self.queries.rows];
        // SAFETY: as the caller promises.
        unsafe { Options::new(self.options, ptr::null(), 1, grid) }?.check(&outputs)
    }

    /// # Safety
    ///
    /// As [`Options::read`], of what has been checked.
    #[inline(never)]
    unsafe fn run(&self, on: Backend) -> Checked<()> {
        let Self { queries, keys, options, out } = self;
        let grid = [keys.rows, queries.rows];
        // SAFETY: as the caller promises.
        let options = unsafe { Options::checked(*options, ptr::null(), 1, grid) };
        // SAFETY: as the caller promises.
        let result = unsafe { options.read(on).pattern(queries.view(), keys.view(), out.view()) };
        result.map_err(|error| {
            Failure::of(error, || {
                if queries.cols == 0 {
                    SDPA_ERROR_SHAPE_QUERIES
                } else if keys.cols != queries.cols {
                    SDPA_ERROR_SHAPE_KEYS
                } else {
                    options.whose([1, keys.rows, queries.rows], out.counts())
                }
            })
        })
    }
}

/// How many floats of workspace an attention call needs for heads of dim columns and values of
/// value_dim; SIZE_MAX where that is more than there can be. SDPA_ATTENTION_WORKSPACE is the
/// same number for static arrays.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_attention_workspace(dim: usize, value_dim: usize) -> usize {
    Attention::workspace(dim, value_dim)
}

operation! {
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
    fn sdpa_attention, sdpa_attention_on(
        on, queries: sdpa_matrix, keys: sdpa_matrix, values: sdpa_matrix,
        options: *const sdpa_options, out: sdpa_matrix_mut, log_sum_exp: *mut f32,
        workspace: *mut f32, workspace_len: usize,
    ) {
        let out = Slot::new(out.into());
        let call = Call {
            queries: Slot::new(queries.into()), options, sinks: ptr::null(), out, log_sum_exp, workspace,
            workspace_len,
        };
        // SAFETY: as the caller promises.
        unsafe { OverHeads { call, keys: Slot::new(keys.into()), values: Slot::new(values.into()) }.attend(on) }
    }
}

operation! {
    /// Makes one of the attentions of the same queries over two parts of the keys: out and log_sum_exp
    /// are those of one part, and become those of both. Of queries x width; each log_sum_exp has a
    /// float a query, as sdpa_attention gives it. Where one is -INFINITY (no key was visible) its
    /// output is not read. A sink belongs to one part alone.
    ///
    /// Overlap: out and log_sum_exp with neither other, and not with each other. On failure both are
    /// as they were.
    fn sdpa_merge, sdpa_merge_on(
        on, out: sdpa_matrix_mut, log_sum_exp: *mut f32,
        other_out: sdpa_matrix, other_log_sum_exp: *const f32,
    ) {
        let outputs = [out.output()?, array(log_sum_exp.cast_const(), out.rows)?];
        outputs[0].check_apart(&outputs[1])?;
        check_apart(&outputs, &other_out.operand()?)?;
        check_apart(&outputs, &array(other_log_sum_exp, other_out.rows)?)?;
        // SAFETY: aligned, not NULL, apart, and as the caller promises.
        let (to, lse, other, other_lse) = unsafe {
            let lse = slice_mut(log_sum_exp, out.rows);
            (out.view(), lse, other_out.view(), slice(other_log_sum_exp, other_out.rows))
        };
        let whose = || {
            if out.cols == 0 {
                SDPA_ERROR_SHAPE_OUT
            } else if other_out.shape() != out.shape() {
                SDPA_ERROR_SHAPE_OTHER_OUT
            } else {
                SDPA_ERROR_SHAPE
            }
        };
        on.merge(to, lse, other, other_lse).map_err(|error| Failure::of(error, whose))
    }
}

operation! {
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
    fn sdpa_attention_heads, sdpa_attention_heads_on(
        on, queries: sdpa_heads, keys: sdpa_heads, values: sdpa_heads,
        options: *const sdpa_options, sinks: *const f32, out: sdpa_heads_mut,
        log_sum_exp: *mut f32, workspace: *mut f32, workspace_len: usize,
    ) {
        let out = Slot::new(out);
        let call = Call {
            queries: Slot::new(queries), options, sinks, out, log_sum_exp, workspace, workspace_len,
        };
        // SAFETY: as the caller promises.
        unsafe { OverHeads { call, keys: Slot::new(keys), values: Slot::new(values) }.attend(on) }
    }
}

/// What the calls of attention have in common; a matrix is heads of which there is one.
pub(crate) struct Call<'a> {
    pub(crate) queries: In<'a>,
    pub(crate) options: *const sdpa_options,
    pub(crate) sinks: *const f32,
    pub(crate) out: Out<'a>,
    pub(crate) log_sum_exp: *mut f32,
    pub(crate) workspace: *mut f32,
    /// How many floats there are, and once it is checked how many of those are used.
    pub(crate) workspace_len: usize,
}

/// A call over keys and values.
struct OverHeads<'a> {
    call: Call<'a>,
    keys: In<'a>,
    values: In<'a>,
}

impl OverHeads<'_> {
    /// # Safety
    ///
    /// What the arguments point to is as the functions of the header have it.
    #[inline(always)]
    unsafe fn attend(mut self, on: Backend) -> Checked<()> {
        // SAFETY: as the caller promises; checked before views are made, and made before it runs.
        unsafe {
            self.check()?;
            self.call.queries.make_view();
            self.call.out.make_view();
            self.keys.make_view();
            self.values.make_view();
            self.run(on)
        }
    }

    /// # Safety
    ///
    /// As [`attend`](Self::attend), of arguments as they are given.
    #[inline(never)]
    unsafe fn check(&mut self) -> Checked<()> {
        // SAFETY: as the caller promises.
        unsafe {
            let (keys, values) = (self.keys.given(), self.values.given());
            self.call.use_workspace_of(keys.cols, values.cols);
            self.call.check(&[keys, values], &[])?;
            self.call.check_options(keys.rows)
        }
    }

    /// # Safety
    ///
    /// As [`attend`](Self::attend), of views.
    #[inline(never)]
    unsafe fn run(&mut self, on: Backend) -> Checked<()> {
        #[cfg(feature = "deliberate-frame")]
        core::hint::black_box([0u8; 512]);
        let Self { call, keys, values } = self;
        // SAFETY: as the caller promises.
        let result = unsafe {
            let (keys, values) = (keys.view(), values.view());
            let attention = call.read_options(on, keys.rows());
            let (log_sum_exp, workspace) = call.slices();
            let (queries, out) = (call.queries.view(), call.out.view_mut());
            attention.run_views(queries, [keys, values], out, log_sum_exp, workspace)
        };
        result.map_err(|error| {
            Failure::of(error, || {
                // SAFETY: as the caller promises.
                let (queries, keys, values) =
                    unsafe { (call.queries.view(), keys.view(), values.view()) };
                if queries.cols() == 0 {
                    SDPA_ERROR_SHAPE_QUERIES
                } else if keys.cols() != queries.cols()
                    || queries.heads().checked_rem(keys.heads()) != Some(0)
                {
                    SDPA_ERROR_SHAPE_KEYS
                } else if (values.heads(), values.rows()) != (keys.heads(), keys.rows())
                    || values.cols() == 0
                {
                    SDPA_ERROR_SHAPE_VALUES
                } else {
                    // SAFETY: as above.
                    unsafe { call.whose(keys.rows(), values.cols()) }
                }
            })
        })
    }
}

impl Call<'_> {
    /// No more of the workspace than the call needs.
    pub(crate) fn use_workspace_of(&mut self, dim: usize, width: usize) {
        self.workspace_len = self.workspace_len.min(Attention::workspace(dim, width));
    }

    /// Fails where an argument cannot be, or an output is not apart from another argument: queries, `operands`
    /// and `others`.
    ///
    /// # Safety
    ///
    /// Of arguments as they are given.
    #[inline(never)]
    pub(crate) unsafe fn check(
        &self,
        operands: &[&sdpa_heads],
        others: &[Place<'_>],
    ) -> Checked<()> {
        let mut outputs = [Place::EMPTY; 3];
        // SAFETY: as the caller promises.
        let queries = unsafe {
            self.place_outputs(&mut outputs)?;
            self.queries.given()
        };
        let [out, log_sum_exp, workspace] = &outputs;
        out.check_apart(log_sum_exp)?;
        out.check_apart(workspace)?;
        log_sum_exp.check_apart(workspace)?;
        for operand in [queries].iter().chain(operands) {
            check_apart(&outputs, &operand.operand()?)?;
        }
        for other in others {
            check_apart(&outputs, other)?;
        }
        Ok(())
    }

    /// [`check`](Self::check), of the options for so many keys.
    ///
    /// # Safety
    ///
    /// As [`check`](Self::check), and [`Options::new`].
    #[inline(never)]
    pub(crate) unsafe fn check_options(&self, keys: usize) -> Checked<()> {
        if self.options.is_null() && self.sinks.is_null() {
            return Ok(());
        }
        // SAFETY: as the caller promises.
        unsafe {
            let queries = self.queries.given();
            let grid = [keys, queries.rows];
            let options = Options::new(self.options, self.sinks, queries.heads, grid)?;
            let mut outputs = [Place::EMPTY; 3];
            self.place_outputs(&mut outputs)?;
            options.check(&outputs)
        }
    }

    /// Where the output, the log-sum-exps and the workspace lie.
    ///
    /// # Safety
    ///
    /// As [`check`](Self::check).
    #[inline(never)]
    unsafe fn place_outputs<'b>(&'b self, places: &mut [Place<'b>; 3]) -> Checked<()> {
        // SAFETY: as the caller promises.
        let (queries, out) = unsafe { (self.queries.given(), self.out.given()) };
        // Only heads without memory of their own can be too many.
        let count = queries.heads.checked_mul(queries.rows);
        let count = count.ok_or(Failure(SDPA_ERROR_SHAPE_QUERIES))?;
        let wanted = if self.log_sum_exp.is_null() { 0 } else { count };
        *places = [
            out.output()?,
            array(self.log_sum_exp.cast_const(), wanted)?,
            array(self.workspace.cast_const(), self.workspace_len)?,
        ];
        Ok(())
    }

    /// # Safety
    ///
    /// Of a checked call with views.
    unsafe fn options<'b>(&self, keys: usize) -> Options<'b> {
        // SAFETY: as the caller promises.
        unsafe {
            let queries = self.queries.view();
            Options::checked(self.options, self.sinks, queries.heads(), [keys, queries.rows()])
        }
    }

    /// The options as the crate has them, for so many keys.
    ///
    /// # Safety
    ///
    /// Of a checked call with views; what the options point to may be read for `'b`.
    pub(crate) unsafe fn read_options<'b>(&self, on: Backend, keys: usize) -> Attention<'b> {
        // SAFETY: as the caller promises.
        unsafe { self.options(keys).read(on) }
    }

    /// The log-sum-exps, where they are wanted, and the workspace.
    ///
    /// # Safety
    ///
    /// Of a checked call with views; both are its memory, for `'b`.
    pub(crate) unsafe fn slices<'b>(&self) -> (Option<&'b mut [f32]>, &'b mut [f32]) {
        // SAFETY: as the caller promises.
        unsafe {
            let queries = self.queries.view();
            let count = queries.heads().wrapping_mul(queries.rows()); // checked
            let is_wanted = !self.log_sum_exp.is_null();
            let log_sum_exp = is_wanted.then(|| slice_mut(self.log_sum_exp, count));
            (log_sum_exp, slice_mut(self.workspace, self.workspace_len))
        }
    }

    /// Whose shape is wrong, where it is neither that of queries nor of what is attended to.
    ///
    /// # Safety
    ///
    /// Of a checked call with views.
    pub(crate) unsafe fn whose(&self, keys: usize, width: usize) -> sdpa_status {
        // SAFETY: as the caller promises.
        let (queries, out, options) =
            unsafe { (self.queries.view(), self.out.view(), self.options(keys)) };
        let want = [queries.heads(), queries.rows(), width];
        options.whose(want, [out.heads(), out.rows(), out.cols()])
    }
}
