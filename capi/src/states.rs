//! States of spans: attention over a part of the keys, and the join.

use core::ptr;

use sdpa::{Attention, Backend, SPAN};

use crate::{
    attention::{AttentionCall, CommonArguments},
    library::{backend_of, operation, sdpa_backend_t},
    options::{Options, sdpa_options},
    region::{Region, array, check_disjoint},
    status::{
        Checked, Failure, SDPA_ERROR_SHAPE, SDPA_ERROR_SHAPE_OUT, SDPA_ERROR_SHAPE_STATES,
        sdpa_status, status,
    },
    views::{
        Out, Output, Slot, sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut, slice,
        slice_mut,
    },
};

/// The number of keys in a span: spans are counted from absolute key 0, and each has a state of its
/// own.
pub const SDPA_SPAN: usize = 1024;

const _: () = assert!(SDPA_SPAN == SPAN);

/// Returns the number of floats of the state of one query and one span, value_dim + 4; SIZE_MAX if the
/// number overflows. SDPA_STATE_FLOATS is the same number as a constant expression. The floats are:
/// the index of the span (first key / SDPA_SPAN) as two whole numbers of 24 bits, the upper one first;
/// the largest visible score, -INFINITY if there is none; the sum of the weights exp(score - N ln 2),
/// with a whole number N chosen from that score; and the weighted sums of the value columns.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_state_floats(value_dim: usize) -> usize {
    Attention::state_floats(value_dim)
}

operation! {
    /// Computes the states of the spans that these keys fill, for sdpa_join: attention over a part of
    /// the keys, on any thread or machine. The keys are those at positions first_key, first_key + 1,
    /// ...; first_key is a multiple of SDPA_SPAN (else SDPA_ERROR_POSITION), and the last span may be
    /// short. Arguments are those of sdpa_attention, with states instead of out: as many floats as
    /// there are spans, (keys.rows + SDPA_SPAN - 1) / SDPA_SPAN, times queries.rows times
    /// sdpa_state_floats(width), in that order. states_len counts floats, exactly these (else
    /// SDPA_ERROR_SHAPE_STATES). Positions are absolute: query i is at query_offset + i. bias and keep
    /// have a row for each of these keys. A sink is not used here: sdpa_join reads it.
    ///
    /// Overlap: states and workspace must not overlap any input or each other. On failure both are
    /// unchanged.
    fn sdpa_attention_states, sdpa_attention_states_on(
        on, queries: sdpa_matrix, keys: sdpa_matrix, values: sdpa_matrix,
        options: *const sdpa_options, first_key: u64, states: *mut f32, states_len: usize,
        workspace: *mut f32, workspace_len: usize,
    ) {
        let call = arguments(queries.into(), options, [states, workspace], [states_len, workspace_len]);
        let (keys, values) = (Slot::new(keys.into()), Slot::new(values.into()));
        // SAFETY: as the caller promises.
        unsafe { AttentionCall { call, keys, values }.states(on, first_key) }
    }
}

operation! {
    /// Computes sdpa_attention_states for each query head, with heads as in sdpa_attention_heads. states:
    /// spans * queries.heads * queries.rows * sdpa_state_floats(width) floats, in that order.
    ///
    /// Overlap: states and workspace must not overlap any input or each other. On failure both are
    /// unchanged.
    fn sdpa_attention_states_heads, sdpa_attention_states_heads_on(
        on, queries: sdpa_heads, keys: sdpa_heads, values: sdpa_heads,
        options: *const sdpa_options, first_key: u64, states: *mut f32, states_len: usize,
        workspace: *mut f32, workspace_len: usize,
    ) {
        let call = arguments(queries, options, [states, workspace], [states_len, workspace_len]);
        let (keys, values) = (Slot::new(keys), Slot::new(values));
        // SAFETY: as the caller promises.
        unsafe { AttentionCall { call, keys, values }.states(on, first_key) }
    }
}

operation! {
    /// Joins the states of spans into the output of each query, out: queries x width. The bits are
    /// those of one sdpa_attention over all the keys, if all states and this call have back ends of one
    /// family. states: those of one or several calls, one after another; states_len counts floats, a
    /// multiple of out.rows * sdpa_state_floats(out.cols) (else SDPA_ERROR_SHAPE_STATES). Spans may be
    /// in any order, and spans may be absent: their keys then count as masked. A span that is there
    /// twice, or an index that is none, is SDPA_ERROR_POSITION. options: NULL, or options of which only
    /// the sink is read. log_sum_exp: NULL, or receives out.rows floats, as sdpa_attention writes them.
    /// It needs no workspace.
    ///
    /// Overlap: out and log_sum_exp must not overlap any input or each other. On failure both are
    /// unchanged.
    fn sdpa_join, sdpa_join_on(
        on, states: *const f32, states_len: usize, options: *const sdpa_options,
        out: sdpa_matrix_mut, log_sum_exp: *mut f32,
    ) {
        let out = Slot::new(out.into());
        let call = JoinCall { states, states_len, options, sinks: ptr::null(), out, log_sum_exp };
        // SAFETY: as the caller promises.
        unsafe { call.join(on) }
    }
}

operation! {
    /// Computes sdpa_join for several query heads: the states are those of sdpa_attention_states_heads.
    /// sinks and log_sum_exp are as in sdpa_attention_heads.
    ///
    /// Overlap: out and log_sum_exp must not overlap any input or each other. On failure both are
    /// unchanged.
    fn sdpa_join_heads, sdpa_join_heads_on(
        on, states: *const f32, states_len: usize, options: *const sdpa_options,
        sinks: *const f32, out: sdpa_heads_mut, log_sum_exp: *mut f32,
    ) {
        let call =
            JoinCall { states, states_len, options, sinks, out: Slot::new(out), log_sum_exp };
        // SAFETY: as the caller promises.
        unsafe { call.join(on) }
    }
}

/// The arguments of a call that writes states: an array in the place of the output.
// Inlined, they are built where they stay: a stack frame has them once.
#[inline(always)]
pub(crate) fn arguments<'a>(
    queries: sdpa_heads,
    options: *const sdpa_options,
    [states, workspace]: [*mut f32; 2],
    [states_len, workspace_len]: [usize; 2],
) -> CommonArguments<'a> {
    let out = sdpa_heads_mut {
        data: states,
        heads: 1,
        rows: 1,
        cols: states_len,
        head_stride: 0,
        row_stride: 0,
        col_stride: 0,
    };
    let (queries, out) = (Slot::new(queries), Slot::new(out));
    let (sinks, log_sum_exp) = (ptr::null(), ptr::null_mut());
    CommonArguments { queries, options, sinks, out, log_sum_exp, workspace, workspace_len }
}

/// The arguments of a join. A matrix is passed as heads with one head.
struct JoinCall<'a> {
    states: *const f32,
    states_len: usize,
    options: *const sdpa_options,
    sinks: *const f32,
    out: Out<'a>,
    log_sum_exp: *mut f32,
}

impl JoinCall<'_> {
    /// # Safety
    ///
    /// The arguments meet the requirements of the header.
    #[inline(always)]
    unsafe fn join(mut self, on: Backend) -> Checked<()> {
        // SAFETY: as the caller promises; `check` comes before the view is made, and this before `run`.
        unsafe {
            self.check()?;
            self.out.make_view();
            self.run(on)
        }
    }

    /// # Safety
    ///
    /// As [`join`](Self::join), before the view is made.
    #[inline(never)]
    unsafe fn check(&self) -> Checked<()> {
        // SAFETY: as the caller promises.
        let out = unsafe { self.out.raw() };
        let count = out.heads.checked_mul(out.rows).ok_or(Failure(SDPA_ERROR_SHAPE_OUT))?;
        let wanted = if self.log_sum_exp.is_null() { 0 } else { count };
        let log_sum_exp: Region<'_> = array(self.log_sum_exp.cast_const(), wanted)?.into();
        let outputs = [out.output()?, log_sum_exp];
        outputs[0].check_disjoint(outputs[1])?;
        check_disjoint(&outputs, array(self.states, self.states_len)?)?;
        // SAFETY: as the caller promises.
        unsafe { Options::new(self.options, self.sinks, out.heads, [0; 2]) }?.check_sinks(&outputs)
    }

    /// # Safety
    ///
    /// As [`join`](Self::join), after [`check`](Self::check), with the view made.
    #[inline(never)]
    unsafe fn run(&mut self, on: Backend) -> Checked<()> {
        // SAFETY: as the caller promises.
        let (states, log_sum_exp, out, options) = unsafe {
            let out = self.out.view_mut();
            let count = out.heads().wrapping_mul(out.rows()); // checked
            let is_wanted = !self.log_sum_exp.is_null();
            let log_sum_exp = is_wanted.then(|| slice_mut(self.log_sum_exp, count));
            let options = Options::checked(self.options, self.sinks, out.heads(), [0; 2]);
            (slice(self.states, self.states_len), log_sum_exp, out, options)
        };
        let width = out.cols();
        // SAFETY: as the caller promises.
        let attention = unsafe { options.read_sinks(on) };
        attention.join_views(states, out, log_sum_exp).map_err(|error| {
            let status = if width == 0 { SDPA_ERROR_SHAPE_OUT } else { SDPA_ERROR_SHAPE_STATES };
            Failure::of(error, || status)
        })
    }
}

impl AttentionCall<'_> {
    /// Computes states, with a call of [`arguments`].
    ///
    /// # Safety
    ///
    /// The arguments meet the requirements of the header.
    #[inline(always)]
    unsafe fn states(mut self, on: Backend, first_key: u64) -> Checked<()> {
        // SAFETY: as the caller promises; `check` comes before the views are made, and these before `run`.
        unsafe {
            self.check()?;
            self.call.queries.make_view();
            self.keys.make_view();
            self.values.make_view();
            self.run_states(on, first_key)
        }
    }

    /// # Safety
    ///
    /// As [`states`](Self::states), after [`check`](Self::check), with the views of the inputs made.
    #[inline(never)]
    unsafe fn run_states(&mut self, on: Backend, first_key: u64) -> Checked<()> {
        let Self { call, keys, values } = self;
        // SAFETY: as the caller promises.
        let result = unsafe {
            let (keys, values) = (keys.view(), values.view());
            let mut attention = Attention::new();
            call.read_options(on, keys.rows(), &mut attention);
            let (states, workspace) = call.state_slices();
            let queries = call.queries.view();
            attention.run_spans_views(queries, [keys, values], first_key, states, workspace)
        };
        result.map_err(|error| {
            // SAFETY: as the caller promises.
            Failure::of(error, || unsafe {
                let status = self.operand_status();
                status.unwrap_or_else(|| self.call.state_status(self.keys.view().rows()))
            })
        })
    }
}

impl CommonArguments<'_> {
    /// Returns the states and the workspace.
    ///
    /// # Safety
    ///
    /// The call is one of [`arguments`] and has been checked, with the view of the queries made; for `'b` both
    /// slices are used by this call alone.
    pub(crate) unsafe fn state_slices<'b>(&self) -> (&'b mut [f32], &'b mut [f32]) {
        // SAFETY: as the caller promises.
        unsafe {
            let states = self.out.raw();
            let (_, workspace) = self.slices();
            (slice_mut(states.data, states.cols), workspace)
        }
    }

    /// Returns the status that names the bias or the states as the argument of wrong shape, once queries, keys
    /// and values have been ruled out.
    ///
    /// # Safety
    ///
    /// The call has been checked and the view of the queries made.
    pub(crate) unsafe fn state_status(&self, keys: usize) -> sdpa_status {
        // SAFETY: as the caller promises.
        match unsafe { self.options(keys) }.shape_status([0; 3], [0; 3]) {
            SDPA_ERROR_SHAPE => SDPA_ERROR_SHAPE_STATES,
            status => status,
        }
    }
}
