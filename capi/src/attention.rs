//! Attention: single-head and multi-head calls, the attention pattern, merging of partial results.

use core::ptr;

use sdpa::{Attention, Backend, HeadsRef};

use crate::{
    library::{backend_of, operation, sdpa_backend_t},
    options::{ALL_ARE_PLAIN, Options, sdpa_options},
    region::{Region, Span, Strided, array, check_disjoint},
    status::{
        Checked, Failure, SDPA_ERROR_SHAPE, SDPA_ERROR_SHAPE_CU_SEQLENS, SDPA_ERROR_SHAPE_KEYS,
        SDPA_ERROR_SHAPE_OTHER_OUT, SDPA_ERROR_SHAPE_OUT, SDPA_ERROR_SHAPE_QUERIES,
        SDPA_ERROR_SHAPE_VALUES, SDPA_ERROR_STRIDE, general, sdpa_status, status,
    },
    views::{
        In, Operand, Out, Output, Slot, sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut,
        slice, slice_mut,
    },
};

operation! {
    /// Computes the pattern (attention weights) under all options: out[key][query] is the weight of
    /// a key for a query. queries: queries x dim; keys: keys x dim; out: keys x queries. Each column
    /// sums to 1 minus the weight of the sink, or is all 0 if every key is masked. options: NULL for
    /// the defaults.
    ///
    /// Overlap: out must not overlap any input. On failure out is unchanged.
    fn sdpa_pattern, sdpa_pattern_on(
        on, queries: sdpa_matrix, keys: sdpa_matrix, options: *const sdpa_options,
        out: sdpa_matrix_mut,
    ) {
        let (queries, keys, out) = (queries.into(), keys.into(), out.into());
        // SAFETY: as the caller promises.
        unsafe { PatternCall::new(queries, keys, options, ptr::null(), out).run::<false>(on) }
    }
}

operation! {
    /// Computes the pattern of each query head: out[head] is what sdpa_pattern gives for that head.
    /// queries: heads x queries x dim; keys: KV heads x keys x dim, shared by groups of query heads as
    /// in sdpa_attention_heads; out: query heads x keys x queries. options and sinks: as in
    /// sdpa_attention_heads.
    ///
    /// Overlap: out must not overlap any input. On failure out is unchanged.
    fn sdpa_pattern_heads, sdpa_pattern_heads_on(
        on, queries: sdpa_heads, keys: sdpa_heads, options: *const sdpa_options, sinks: *const f32,
        out: sdpa_heads_mut,
    ) {
        // SAFETY: as the caller promises.
        unsafe { PatternCall::new(queries, keys, options, sinks, out).run::<false>(on) }
    }
}

operation! {
    /// Computes the mean over all query heads of what sdpa_pattern_heads gives, of which there is at
    /// least one: the weights are added head after head, and the sum is divided by the number of
    /// heads. out: keys x queries. workspace: at least keys.rows * queries.rows floats of any content;
    /// workspace_len counts floats. Floats beyond the required number are not touched.
    ///
    /// Overlap: out and workspace must not overlap any input or each other. On failure both are
    /// unchanged.
    fn sdpa_pattern_mean, sdpa_pattern_mean_on(
        on, queries: sdpa_heads, keys: sdpa_heads, options: *const sdpa_options, sinks: *const f32,
        out: sdpa_matrix_mut, workspace: *mut f32, workspace_len: usize,
    ) {
        let mut pattern = PatternCall::new(queries, keys, options, sinks, out.into());
        pattern.call.workspace = workspace;
        pattern.call.workspace_len = workspace_len.min(keys.rows.saturating_mul(queries.rows));
        // SAFETY: as the caller promises.
        unsafe { pattern.run::<true>(on) }
    }
}

/// The arguments of a pattern. A matrix is passed as heads with one head.
struct PatternCall<'a> {
    call: CommonArguments<'a>,
    keys: In<'a>,
}

// In this file and in cache.rs neither the checks nor the calls into the crate are inlined, so that their
// stack frames never exist at the same time. tests/frames.sh limits the sum of the frames.

impl PatternCall<'_> {
    /// Without a workspace.
    #[inline(always)]
    fn new(
        queries: sdpa_heads,
        keys: sdpa_heads,
        options: *const sdpa_options,
        sinks: *const f32,
        out: sdpa_heads_mut,
    ) -> Self {
        let call =
            CommonArguments::of_pattern(queries, (options, sinks), out, (ptr::null_mut(), 0));
        Self { call, keys: Slot::new(keys) }
    }

    /// Computes the pattern of each head, or the mean of all.
    ///
    /// # Safety
    ///
    /// The arguments meet the requirements of the header.
    #[inline(always)]
    unsafe fn run<const MEAN: bool>(mut self, on: Backend) -> Checked<()> {
        // SAFETY: as the caller promises; the checks come before the views are made, and these before `compute`.
        unsafe {
            let keys = self.keys.raw();
            self.call.check(&[keys], &[])?;
            self.call.check_options(keys.rows)?;
            self.call.queries.make_view();
            self.call.out.make_view();
            self.keys.make_view();
            self.compute::<MEAN>(on)
        }
    }

    /// # Safety
    ///
    /// As [`run`](Self::run), checked and with the views made.
    #[inline(never)]
    unsafe fn compute<const MEAN: bool>(&mut self, on: Backend) -> Checked<()> {
        let Self { call, keys } = self;
        // SAFETY: as the caller promises.
        let result = unsafe {
            let keys = keys.view();
            let mut attention = Attention::new();
            call.read_options(on, keys.rows(), &mut attention);
            let (_, workspace) = call.slices();
            let (queries, out) = (call.queries.view(), call.out.view_mut());
            match out.head_mut(0) {
                Some(out) if MEAN => attention.mean_pattern_views(queries, keys, out, workspace),
                _ => attention.pattern_views(queries, keys, out),
            }
        };
        result.map_err(|error| {
            // SAFETY: as the caller promises.
            Failure::of(error, || unsafe {
                let keys = self.keys.view();
                self.call.pattern_status::<MEAN>([keys.heads(), keys.rows(), keys.cols()])
            })
        })
    }
}

/// Returns the number of floats of workspace that an attention call needs for keys of dim columns
/// and values of value_dim columns; SIZE_MAX if the number overflows. SDPA_ATTENTION_WORKSPACE is
/// the same number as a constant expression, for static arrays.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_attention_workspace(dim: usize, value_dim: usize) -> usize {
    Attention::workspace(dim, value_dim)
}

operation! {
    /// Computes scaled dot-product attention of one head without storing the scores (online softmax,
    /// as in FlashAttention): out[query] = sum over the keys of weight[key] * values[key], where the
    /// weights are the query's column of sdpa_pattern. queries: queries x dim; keys: keys x dim;
    /// values: keys x width; out: queries x width.
    ///
    /// options: NULL for the defaults. log_sum_exp: NULL, or receives queries.rows floats: the
    /// natural logarithm of each query's sum of exponentials, including the sink. workspace: at
    /// least sdpa_attention_workspace(dim, width) floats of any content; workspace_len counts
    /// floats. Floats beyond the required number are not touched.
    ///
    /// Overlap: out, log_sum_exp and workspace must not overlap any input or each other. On failure
    /// all three are unchanged.
    fn sdpa_attention, sdpa_attention_on(
        on, queries: sdpa_matrix, keys: sdpa_matrix, values: sdpa_matrix,
        options: *const sdpa_options, out: sdpa_matrix_mut, log_sum_exp: *mut f32,
        workspace: *mut f32, workspace_len: usize,
    ) {
        let arrays = ([log_sum_exp, workspace], workspace_len);
        // SAFETY: as the caller promises.
        if unsafe { attend_plain(on, [&queries, &keys, &values], options, &out, arrays) }.is_some() {
            return Ok(());
        }
        general(|| {
            let out = Slot::new(out.into());
            let call = CommonArguments {
                queries: Slot::new(queries.into()), options, sinks: ptr::null(), out, log_sum_exp, workspace,
                workspace_len,
            };
            let (keys, values) = (Slot::new(keys.into()), Slot::new(values.into()));
            // SAFETY: as the caller promises.
            unsafe { AttentionCall { call, keys, values }.attend(on) }
        })
    }
}

operation! {
    /// Merges the attention of the same queries over two disjoint sets of keys (split keys, as in
    /// FlashDecoding). On entry out and log_sum_exp hold the result over one set, other_out and
    /// other_log_sum_exp the result over the other; on return out and log_sum_exp hold the result
    /// over both sets. out and other_out: queries x width; each log_sum_exp: one float per query, as
    /// sdpa_attention writes it. If a log-sum-exp is -INFINITY (no visible key) its output is not
    /// read. Give a sink to one of the two attention calls only.
    ///
    /// Overlap: out and log_sum_exp must not overlap other_out, other_log_sum_exp or each other. On
    /// failure both are unchanged.
    fn sdpa_merge, sdpa_merge_on(
        on, out: sdpa_matrix_mut, log_sum_exp: *mut f32,
        other_out: sdpa_matrix, other_log_sum_exp: *const f32,
    ) {
        let outputs = [out.output()?, array(log_sum_exp.cast_const(), out.rows)?.into()];
        outputs[0].check_disjoint(outputs[1])?;
        check_disjoint(&outputs, other_out.operand()?)?;
        check_disjoint(&outputs, array(other_log_sum_exp, other_out.rows)?)?;
        // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
        let (to, lse, other, other_lse) = unsafe {
            let lse = slice_mut(log_sum_exp, out.rows);
            (out.view(), lse, other_out.view(), slice(other_log_sum_exp, other_out.rows))
        };
        let shape_status = || {
            if out.cols == 0 {
                SDPA_ERROR_SHAPE_OUT
            } else if other_out.shape() != out.shape() {
                SDPA_ERROR_SHAPE_OTHER_OUT
            } else {
                SDPA_ERROR_SHAPE
            }
        };
        on.merge(to, lse, other, other_lse).map_err(|error| Failure::of(error, shape_status))
    }
}

operation! {
    /// Computes multi-head attention: sdpa_attention for each query head. keys.heads and
    /// values.heads are equal and at least 1, and queries.heads is a multiple of them: each group of
    /// queries.heads / keys.heads consecutive query heads shares one KV head (grouped-query
    /// attention; multi-query attention if keys.heads is 1).
    ///
    /// bias and keep of the options apply to all heads, unless their head strides are set. sinks: NULL,
    /// or queries.heads floats, one sink per query head; options.sink must then be NULL (else
    /// SDPA_ERROR_OPTION). log_sum_exp: NULL, or receives queries.heads * queries.rows floats, head
    /// after head. workspace: as for one head; it does not grow with the number of heads.
    ///
    /// Overlap: out, log_sum_exp and workspace must not overlap any input or each other. On failure
    /// all three are unchanged.
    fn sdpa_attention_heads, sdpa_attention_heads_on(
        on, queries: sdpa_heads, keys: sdpa_heads, values: sdpa_heads,
        options: *const sdpa_options, sinks: *const f32, out: sdpa_heads_mut,
        log_sum_exp: *mut f32, workspace: *mut f32, workspace_len: usize,
    ) {
        let out = Slot::new(out);
        let call = CommonArguments {
            queries: Slot::new(queries), options, sinks, out, log_sum_exp, workspace, workspace_len,
        };
        // SAFETY: as the caller promises.
        unsafe { AttentionCall { call, keys: Slot::new(keys), values: Slot::new(values) }.attend(on) }
    }
}

operation! {
    /// Computes sdpa_attention_heads for each of several sequences that lie one after another (packed, of
    /// variable length): a query sees the keys of its own sequence only, and the bits are those of a call
    /// with this sequence alone. Nothing is padded or copied.
    ///
    /// cu_seqlens_q and cu_seqlens_k are cumulative lengths in int32_t, as FlashAttention and vLLM have
    /// them at hand: sequences + 1 numbers each, from 0 to queries.rows and keys.rows, none less than the
    /// one before (else SDPA_ERROR_SHAPE_CU_SEQLENS). Sequence s has the queries cu_seqlens_q[s] to
    /// cu_seqlens_q[s + 1] - 1, and the keys likewise; both may be one array.
    ///
    /// Positions are counted in each sequence: its query i is at position query_offset + i, its key j at
    /// position j. bias and keep have a row for each key and a column for each query of all sequences; only
    /// those of one sequence are read. log_sum_exp: NULL, or receives queries.heads * queries.rows floats,
    /// sequence after sequence, and in each head after head. workspace: as for one sequence.
    ///
    /// Overlap: out, log_sum_exp and workspace must not overlap any input or each other. On failure
    /// all three are unchanged.
    fn sdpa_attention_packed, sdpa_attention_packed_on(
        on, queries: sdpa_heads, keys: sdpa_heads, values: sdpa_heads, cu_seqlens_q: *const i32,
        cu_seqlens_k: *const i32, sequences: usize, options: *const sdpa_options, sinks: *const f32,
        out: sdpa_heads_mut, log_sum_exp: *mut f32, workspace: *mut f32, workspace_len: usize,
    ) {
        let out = Slot::new(out);
        let call = CommonArguments {
            queries: Slot::new(queries), options, sinks, out, log_sum_exp, workspace, workspace_len,
        };
        let call = AttentionCall { call, keys: Slot::new(keys), values: Slot::new(values) };
        // SAFETY: as the caller promises.
        unsafe { call.attend_packed(on, cu_seqlens_q, cu_seqlens_k, sequences) }
    }
}

/// Attention of plain matrices; `None` leaves the call, whose outputs are unchanged, to the general case.
///
/// # Safety
///
/// The arguments meet the requirements of the header.
#[inline(always)]
unsafe fn attend_plain(
    on: Backend,
    inputs: [&sdpa_matrix; 3],
    options: *const sdpa_options,
    out: &sdpa_matrix_mut,
    ([log_sum_exp, workspace], workspace_len): ([*mut f32; 2], usize),
) -> Option<()> {
    let [queries, keys, values] = inputs;
    let is_wanted = !log_sum_exp.is_null();
    let workspace_len = workspace_len.min(Attention::workspace(keys.cols, values.cols));
    // SAFETY: as the caller promises; used only if they are disjoint.
    let ((q, queries), (k, keys), (v, values), (o, out)) =
        unsafe { (queries.plain()?, keys.plain()?, values.plain()?, out.plain()?) };
    let l = array(log_sum_exp.cast_const(), if is_wanted { queries.rows() } else { 0 }).ok()?;
    let w = array(workspace.cast_const(), workspace_len).ok()?;
    let share = |a: Span, others: &[Span]| others.iter().any(|b| a.intersects(*b));
    if share(o, &[l, w, q, k, v]) || share(l, &[w, q, k, v]) || share(w, &[q, k, v]) {
        return None;
    }
    let grid = [keys.rows(), queries.rows()];
    // SAFETY: as the caller promises.
    let options = unsafe { Options::new(options, ptr::null(), 1, grid) }.ok()?;
    options.check(&[o, l, w].map(Region::from)).ok()?;
    // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
    let (attention, log_sum_exp, workspace) = unsafe {
        let log_sum_exp = is_wanted.then(|| slice_mut(log_sum_exp, queries.rows()));
        let mut attention = Attention::new();
        options.read(on, &mut attention);
        (attention, log_sum_exp, slice_mut(workspace, workspace_len))
    };
    attention
        .run_views(
            &queries.into(),
            &keys.into(),
            &values.into(),
            &mut out.into(),
            log_sum_exp,
            workspace,
        )
        .ok()
}

/// The arguments that all attention calls share. A matrix is passed as heads with one head.
pub(crate) struct CommonArguments<'a> {
    pub(crate) queries: In<'a>,
    pub(crate) options: *const sdpa_options,
    pub(crate) sinks: *const f32,
    pub(crate) out: Out<'a>,
    pub(crate) log_sum_exp: *mut f32,
    pub(crate) workspace: *mut f32,
    /// The number of floats in the workspace; [`trim_workspace`](Self::trim_workspace) lowers it to the
    /// number that the call uses.
    pub(crate) workspace_len: usize,
}

/// The arguments of attention over keys and values that are passed as matrices or heads.
pub(crate) struct AttentionCall<'a> {
    pub(crate) call: CommonArguments<'a>,
    pub(crate) keys: In<'a>,
    pub(crate) values: In<'a>,
}

impl AttentionCall<'_> {
    /// # Safety
    ///
    /// The arguments meet the requirements of the header.
    #[inline(always)]
    pub(crate) unsafe fn attend(mut self, on: Backend) -> Checked<()> {
        // SAFETY: as the caller promises; `check` comes before the views are made, and these before `run`.
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
    /// As [`attend`](Self::attend), before the views are made.
    // The frames of the two checks that it calls are not on the stack at the same time.
    #[inline(always)]
    pub(crate) unsafe fn check(&mut self) -> Checked<()> {
        // SAFETY: as the caller promises.
        unsafe {
            let (keys, values) = (self.keys.raw(), self.values.raw());
            self.call.trim_workspace(Attention::workspace(keys.cols, values.cols));
            self.call.check(&[keys, values], &[])?;
            self.call.check_options(keys.rows)
        }
    }

    /// # Safety
    ///
    /// As [`attend`](Self::attend), after [`check`](Self::check), with the views made.
    #[inline(never)]
    unsafe fn run(&mut self, on: Backend) -> Checked<()> {
        #[cfg(feature = "deliberate-frame")]
        core::hint::black_box([0u8; 512]);
        let Self { call, keys, values } = self;
        // SAFETY: as the caller promises.
        let result = unsafe {
            let (keys, values) = (keys.view(), values.view());
            let mut attention = Attention::new();
            call.read_options(on, keys.rows(), &mut attention);
            let (log_sum_exp, workspace) = call.slices();
            let (queries, out) = (call.queries.view(), call.out.view_mut());
            attention.run_views(queries, keys, values, out, log_sum_exp, workspace)
        };
        result.map_err(|error| {
            // SAFETY: as the caller promises.
            Failure::of(error, || unsafe { self.shape_status() })
        })
    }

    /// [`attend`](Self::attend) for each of several sequences.
    ///
    /// # Safety
    ///
    /// The arguments meet the requirements of the header.
    #[inline(always)]
    unsafe fn attend_packed(
        mut self,
        on: Backend,
        of_queries: *const i32,
        of_keys: *const i32,
        sequences: usize,
    ) -> Checked<()> {
        // SAFETY: as the caller promises; the checks come before the views are made, and these before `run_packed`.
        unsafe {
            self.check()?;
            check_cu_seqlens(&self.call, of_queries, of_keys, sequences)?;
            self.call.queries.make_view();
            self.call.out.make_view();
            self.keys.make_view();
            self.values.make_view();
            self.run_packed(on, of_queries, of_keys, sequences)
        }
    }

    /// # Safety
    ///
    /// As [`run`](Self::run), with checked lengths.
    #[inline(never)]
    unsafe fn run_packed(
        &mut self,
        on: Backend,
        of_queries: *const i32,
        of_keys: *const i32,
        sequences: usize,
    ) -> Checked<()> {
        let Self { call, keys, values } = self;
        // SAFETY: as the caller promises.
        let result = unsafe {
            let mut attention = Attention::new();
            call.read_options(on, keys.view().rows(), &mut attention);
            let (log_sum_exp, workspace) = call.slices();
            let (queries, out) = (call.queries.view(), call.out.view_mut());
            let operands = [keys.view(), values.view()];
            let (of_queries, of_keys) =
                (cu_seqlens(of_queries, sequences), cu_seqlens(of_keys, sequences));
            attention.run_cu_seqlens_views(
                queries,
                operands,
                of_queries,
                of_keys,
                out,
                log_sum_exp,
                workspace,
            )
        };
        result.map_err(|error| {
            // SAFETY: as the caller promises.
            Failure::of(error, || unsafe { sequences_status(self.shape_status()) })
        })
    }

    /// Returns the status that names the argument of wrong shape.
    ///
    /// # Safety
    ///
    /// The call has been checked and its views made.
    unsafe fn shape_status(&self) -> sdpa_status {
        // SAFETY: as the caller promises.
        unsafe {
            let (rows, width) = (self.keys.view().rows(), self.values.view().cols());
            self.operand_status().unwrap_or_else(|| self.call.shape_status(rows, width))
        }
    }

    /// Returns the status that names the queries, keys or values as the argument of wrong shape.
    ///
    /// # Safety
    ///
    /// The call has been checked and its views made.
    pub(crate) unsafe fn operand_status(&self) -> Option<sdpa_status> {
        // SAFETY: as the caller promises.
        let (queries, keys, values) =
            unsafe { (self.call.queries.view(), self.keys.view(), self.values.view()) };
        let of = |of: &HeadsRef<'_>| [of.heads(), of.rows(), of.cols()];
        operand_status(of(queries), of(keys), of(values))
    }
}

/// Returns the status that names the queries, keys or values of these sizes (heads, rows, columns) as the argument of
/// wrong shape.
pub(crate) fn operand_status(
    [heads, _, dim]: [usize; 3],
    [key_heads, rows, cols]: [usize; 3],
    [value_heads, value_rows, width]: [usize; 3],
) -> Option<sdpa_status> {
    if dim == 0 {
        Some(SDPA_ERROR_SHAPE_QUERIES)
    } else if cols != dim || heads.checked_rem(key_heads) != Some(0) {
        Some(SDPA_ERROR_SHAPE_KEYS)
    } else if (value_heads, value_rows) != (key_heads, rows) || width == 0 {
        Some(SDPA_ERROR_SHAPE_VALUES)
    } else {
        None
    }
}

// The cumulative lengths of sequences are passed as two pointers and a number: a structure of them would be on the stack.

/// Fails if a pointer to cumulative lengths is invalid, or if an output of the call overlaps the lengths.
///
/// # Safety
///
/// As [`CommonArguments::check`].
#[inline(never)]
pub(crate) unsafe fn check_cu_seqlens(
    call: &CommonArguments<'_>,
    of_queries: *const i32,
    of_keys: *const i32,
    sequences: usize,
) -> Checked<()> {
    let mut outputs = [Region::EMPTY; 3];
    // SAFETY: as the caller promises.
    unsafe { call.output_regions(&mut outputs)? };
    let len = sequences.checked_add(1).ok_or(Failure(SDPA_ERROR_STRIDE))?;
    check_disjoint(&outputs, array(of_queries, len)?)?;
    check_disjoint(&outputs, array(of_keys, len)?)
}

/// Returns the cumulative lengths of so many sequences.
///
/// # Safety
///
/// [`check_cu_seqlens`] has returned `Ok`; for `'a` the numbers may be read and nobody writes them.
#[inline(always)]
pub(crate) unsafe fn cu_seqlens<'a>(first: *const i32, sequences: usize) -> &'a [i32] {
    // SAFETY: as the caller promises.
    unsafe { slice(first, sequences.wrapping_add(1)) }
}

/// Returns the status for a call of sequences whose other arguments have this one: their shapes agree if it names none.
pub(crate) fn sequences_status(of_others: sdpa_status) -> sdpa_status {
    if of_others == SDPA_ERROR_SHAPE { SDPA_ERROR_SHAPE_CU_SEQLENS } else { of_others }
}

impl CommonArguments<'_> {
    /// Those of a pattern.
    #[inline(always)]
    pub(crate) fn of_pattern(
        queries: sdpa_heads,
        (options, sinks): (*const sdpa_options, *const f32),
        out: sdpa_heads_mut,
        (workspace, workspace_len): (*mut f32, usize),
    ) -> Self {
        Self {
            queries: Slot::new(queries),
            options,
            sinks,
            out: Slot::new(out),
            log_sum_exp: ptr::null_mut(),
            workspace,
            workspace_len,
        }
    }

    /// The number of cells of a grid with so many keys; saturates.
    ///
    /// # Safety
    ///
    /// As [`check`](Self::check).
    pub(crate) unsafe fn cells(&self, keys: usize) -> usize {
        // SAFETY: as the caller promises.
        keys.saturating_mul(unsafe { self.queries.raw() }.rows)
    }

    /// Lowers `workspace_len` to what the call needs.
    pub(crate) fn trim_workspace(&mut self, needed: usize) {
        self.workspace_len = self.workspace_len.min(needed);
    }

    /// Fails if an argument is invalid, or if an output overlaps another output, the queries, one of
    /// `operands` or one of `others`.
    ///
    /// # Safety
    ///
    /// The views have not been made.
    #[inline(never)]
    pub(crate) unsafe fn check(&self, operands: &[&sdpa_heads], others: &[Span]) -> Checked<()> {
        let mut outputs = [Region::EMPTY; 3];
        // SAFETY: as the caller promises.
        let queries = unsafe {
            self.out.raw().output()?;
            self.output_regions(&mut outputs)?;
            self.queries.raw()
        };
        let [out, log_sum_exp, workspace] = outputs;
        out.check_disjoint(log_sum_exp)?;
        out.check_disjoint(workspace)?;
        log_sum_exp.check_disjoint(workspace)?;
        for operand in [queries].iter().chain(operands) {
            check_disjoint(&outputs, operand.operand()?)?;
        }
        for other in others {
            check_disjoint(&outputs, *other)?;
        }
        Ok(())
    }

    /// Checks the options of a call over `keys` keys.
    ///
    /// # Safety
    ///
    /// As [`check`](Self::check) and [`Options::new`].
    #[inline(never)]
    pub(crate) unsafe fn check_options(&self, keys: usize) -> Checked<()> {
        if self.options.is_null() && self.sinks.is_null() {
            return Ok(());
        }
        // SAFETY: as the caller promises.
        unsafe {
            let queries = self.queries.raw();
            let grid = [keys, queries.rows];
            let options = Options::new(self.options, self.sinks, queries.heads, grid)?;
            let mut outputs = [Region::EMPTY; 3];
            self.output_regions(&mut outputs)?;
            options.check(&outputs)
        }
    }

    /// Writes the regions of the output, the log-sum-exps and the workspace to `regions`.
    ///
    /// # Safety
    ///
    /// As [`check`](Self::check).
    #[inline(never)]
    pub(crate) unsafe fn output_regions<'b>(
        &'b self,
        regions: &mut [Region<'b>; 3],
    ) -> Checked<()> {
        // SAFETY: as the caller promises.
        let (queries, out) = unsafe { (self.queries.raw(), self.out.raw()) };
        // Overflows only if the queries have no columns or repeat a head or row (a stride of 0).
        let count = queries.heads.checked_mul(queries.rows);
        let count = count.ok_or(Failure(SDPA_ERROR_SHAPE_QUERIES))?;
        let wanted = if self.log_sum_exp.is_null() { 0 } else { count };
        *regions = [
            out.region()?,
            array(self.log_sum_exp.cast_const(), wanted)?.into(),
            array(self.workspace.cast_const(), self.workspace_len)?.into(),
        ];
        Ok(())
    }

    /// # Safety
    ///
    /// The call has been checked and its views made.
    pub(crate) unsafe fn options<'b>(&self, keys: usize) -> Options<'b> {
        // SAFETY: as the caller promises.
        unsafe {
            let queries = self.queries.view();
            Options::checked(self.options, self.sinks, queries.heads(), [keys, queries.rows()])
        }
    }

    /// Writes the crate's options for a call over `keys` keys to `attention`: see [`Options::read`].
    ///
    /// # Safety
    ///
    /// The call has been checked and its views made; what the options point to may be read for `'b`.
    pub(crate) unsafe fn read_options<'b>(
        &self,
        on: Backend,
        keys: usize,
        attention: &mut Attention<'b>,
    ) {
        // SAFETY: as the caller promises.
        unsafe { self.options(keys).read(on, attention) }
    }

    /// Returns the log-sum-exps (`None` if the pointer is NULL) and the workspace.
    ///
    /// # Safety
    ///
    /// The call has been checked and its views made; for `'b` both slices are used by this call alone.
    pub(crate) unsafe fn slices<'b>(&self) -> (Option<&'b mut [f32]>, &'b mut [f32]) {
        // SAFETY: as the caller promises.
        unsafe {
            let queries = self.queries.view();
            let count = queries.heads().wrapping_mul(queries.rows()); // checked
            let is_wanted = !ALL_ARE_PLAIN && !self.log_sum_exp.is_null();
            let log_sum_exp = is_wanted.then(|| slice_mut(self.log_sum_exp, count));
            (log_sum_exp, slice_mut(self.workspace, self.workspace_len))
        }
    }

    /// Returns the status that names the argument of wrong shape of a pattern over keys of these sizes.
    ///
    /// # Safety
    ///
    /// The call has been checked and its views made.
    pub(crate) unsafe fn pattern_status<const MEAN: bool>(&self, keys: [usize; 3]) -> sdpa_status {
        // SAFETY: as the caller promises.
        let (queries, out, options) =
            unsafe { (self.queries.view(), self.out.view(), self.options(keys[1])) };
        let heads = if MEAN { 1 } else { queries.heads() };
        let want = [heads, keys[1], queries.rows()];
        if MEAN && queries.heads() == 0 {
            return SDPA_ERROR_SHAPE_QUERIES;
        }
        operand_status([queries.heads(), queries.rows(), queries.cols()], keys, keys)
            .unwrap_or_else(|| options.shape_status(want, [out.heads(), out.rows(), out.cols()]))
    }

    /// Returns the status that names the bias or the output as the argument of wrong shape, once queries,
    /// keys and values have been ruled out.
    ///
    /// # Safety
    ///
    /// The call has been checked and its views made.
    pub(crate) unsafe fn shape_status(&self, keys: usize, width: usize) -> sdpa_status {
        // SAFETY: as the caller promises.
        let (queries, out, options) =
            unsafe { (self.queries.view(), self.out.view(), self.options(keys)) };
        let want = [queries.heads(), queries.rows(), width];
        options.shape_status(want, [out.heads(), out.rows(), out.cols()])
    }
}
