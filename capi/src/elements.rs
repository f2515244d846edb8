//! Keys, values and weights in formats of 16 and 8 bits.

use core::ffi::c_void;

use sdpa::{
    AnyElementsRef, AnyRows, Attention, Backend, Bf16, Error, F16, HeadsRef, I8, KEY_BLOCK,
    MatrixRef, narrow,
};

use crate::{
    attention::{CommonArguments, check_cu_seqlens, cu_seqlens, operand_status, sequences_status},
    library::{backend_of, operation, sdpa_backend_t},
    options::sdpa_options,
    region::{Region, Span, Strided, array, check_disjoint},
    states::arguments,
    status::{
        Checked, Failure, SDPA_ERROR_FORMAT, SDPA_ERROR_SHAPE, SDPA_ERROR_SHAPE_OUT,
        SDPA_ERROR_SHAPE_W, SDPA_ERROR_SHAPE_X, SDPA_ERROR_STRIDE, sdpa_status, status,
    },
    views::{
        Operand, Output, Slot, sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut, slice,
        slice_mut, strides,
    },
};

/// The format of elements.
#[expect(non_camel_case_types, reason = "the name in the header")]
pub type sdpa_format = u32;

/// IEEE binary32: float.
pub const SDPA_F32: sdpa_format = 0;
/// IEEE binary16, as uint16_t: 11 bits of precision, finite up to 65504.
pub const SDPA_F16: sdpa_format = 1;
/// bfloat16, as uint16_t: the upper half of a float.
pub const SDPA_BF16: sdpa_format = 2;
/// int8_t, to be multiplied by a scale.
pub const SDPA_I8: sdpa_format = 3;

/// Keys, values or weights of any format, which are read: element (h, r, c) is
/// data[h * head_stride + r * row_stride + c * col_stride]; strides count elements, under the rules of
/// sdpa_heads. Elements are converted to float, which is exact: the bits of a call are those of the same call over
/// the floats.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sdpa_array {
    /// Aligned for its format. May be NULL if rows or cols is 0.
    pub data: *const c_void,
    /// SDPA_F32, SDPA_F16, SDPA_BF16 or SDPA_I8 (else SDPA_ERROR_FORMAT).
    pub format: sdpa_format,
    /// Number of heads; 0 means 1.
    pub heads: usize,
    /// Rows of a head.
    pub rows: usize,
    /// Columns of a head.
    pub cols: usize,
    /// See sdpa_heads.
    pub head_stride: usize,
    /// See sdpa_heads.
    pub row_stride: usize,
    /// See sdpa_heads.
    pub col_stride: usize,
    /// With SDPA_I8: keys and values have a scale for each row of each head, scales[h * scale_head_stride +
    /// r * scale_row_stride], finite; weights have one for each column. Not read with other formats.
    pub scales: *const f32,
    /// Both strides 0 means contiguous [heads][rows]; for weights they must be 0 (else SDPA_ERROR_STRIDE).
    pub scale_head_stride: usize,
    /// See scale_head_stride.
    pub scale_row_stride: usize,
}

impl Strided for sdpa_array {
    type Element = c_void;

    fn first(&self) -> *const c_void {
        self.data
    }

    fn counts(&self) -> [usize; 3] {
        [self.heads.max(1), self.rows, self.cols]
    }

    fn strides(&self) -> [usize; 3] {
        match [self.head_stride, self.row_stride, self.col_stride] {
            // As in `sdpa_heads`.
            [0, 0, 0] => [self.rows.saturating_mul(self.cols), self.cols, 1],
            strides => strides,
        }
    }

    fn size(&self) -> usize {
        match self.format {
            SDPA_F32 => size_of::<f32>(),
            SDPA_I8 => size_of::<I8>(),
            _ => size_of::<F16>(),
        }
    }

    fn span(&self) -> Checked<Span> {
        let (data, counts, strides) = (self.data, self.counts(), self.strides());
        match self.format {
            SDPA_F32 => Span::of::<f32>(data.cast(), counts, strides),
            SDPA_F16 => Span::of::<F16>(data.cast(), counts, strides),
            SDPA_BF16 => Span::of::<Bf16>(data.cast(), counts, strides),
            SDPA_I8 => Span::of::<I8>(data.cast(), counts, strides),
            _ => Err(Failure(SDPA_ERROR_FORMAT)),
        }
    }
}

impl Operand for sdpa_array {}

impl sdpa_array {
    /// Returns the rows of the first head.
    ///
    /// # Safety
    ///
    /// As [`sdpa_matrix::view`].
    unsafe fn rows<'a>(&self) -> AnyRows<'a> {
        let ([_, rows, cols], [_, row, col]) = (self.counts(), self.strides());
        macro_rules! rows {
            ($name:ident) => {
                // SAFETY: as the caller promises; the elements have any bits.
                AnyRows::$name(unsafe {
                    MatrixRef::from_checked_parts(self.data.cast(), rows, cols, row, col)
                })
            };
        }
        match self.format {
            SDPA_F16 => rows!(F16),
            SDPA_BF16 => rows!(Bf16),
            SDPA_I8 => rows!(I8),
            _ => rows!(F32),
        }
    }
}

impl sdpa_array {
    /// Returns the scales: heads x rows, or none.
    fn scales(&self) -> Scales {
        let [heads, rows, _] = self.counts();
        let shape = if self.format == SDPA_I8 { [heads, rows] } else { [0; 2] };
        let strides = strides(rows, self.scale_head_stride, self.scale_row_stride);
        Scales { first: self.scales, shape, strides }
    }
}

/// The scales of keys or values.
struct Scales {
    first: *const f32,
    shape: [usize; 2],
    strides: [usize; 2],
}

impl Strided for Scales {
    type Element = f32;

    fn first(&self) -> *const f32 {
        self.first
    }

    fn counts(&self) -> [usize; 3] {
        [1, self.shape[0], self.shape[1]]
    }

    fn strides(&self) -> [usize; 3] {
        [0, self.strides[0], self.strides[1]]
    }
}

/// Rounds floats to a format, to nearest, ties to even: to receives floats.rows * floats.cols elements, row after
/// row; it is aligned for the format. scales: with SDPA_I8, receives floats.rows floats, the largest magnitude of
/// each row divided by 127 (0 if that is below 2^-126: the row is then 0); not used with other formats.
/// SDPA_ERROR_RANGE if a finite number would become infinite, or with SDPA_I8 if a number is NaN or infinite.
///
/// Overlap: to and scales must not overlap floats or each other. On failure both are unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_narrow(
    floats: sdpa_matrix,
    format: sdpa_format,
    to: *mut c_void,
    scales: *mut f32,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let count = floats.rows.checked_mul(floats.cols).ok_or(Failure(SDPA_ERROR_STRIDE))?;
        let scaled = if format == SDPA_I8 { floats.rows } else { 0 };
        let to_span = match format {
            SDPA_F32 => array::<f32>(to.cast(), count),
            SDPA_F16 => array::<F16>(to.cast(), count),
            SDPA_BF16 => array::<Bf16>(to.cast(), count),
            SDPA_I8 => array::<I8>(to.cast(), count),
            _ => Err(Failure(SDPA_ERROR_FORMAT)),
        }?;
        let (from, scales_span) = (floats.operand()?, array(scales.cast_const(), scaled)?);
        from.check_disjoint(to_span)?;
        from.check_disjoint(scales_span)?;
        to_span.check_disjoint(scales_span)?;
        // SAFETY: aligned, not NULL, disjoint, and as the caller promises; the elements have any bits.
        Ok(unsafe {
            let from = floats.view();
            match format {
                SDPA_F32 => narrow::<f32>(from, slice_mut(to.cast(), count), &mut []),
                SDPA_F16 => narrow::<F16>(from, slice_mut(to.cast(), count), &mut []),
                SDPA_BF16 => narrow::<Bf16>(from, slice_mut(to.cast(), count), &mut []),
                _ => {
                    let scales = slice_mut(scales, scaled);
                    narrow::<I8>(from, slice_mut(to.cast(), count), scales)
                }
            }
        }?)
    };
    status(call())
}

operation! {
    /// Computes sdpa_project with weights w (inputs x outputs, one head) of any format: out = x * w + bias. Weights
    /// that are stored as outputs x inputs, as sdpa_narrow writes them, have row_stride 1 and col_stride inputs. With
    /// SDPA_I8 each output is multiplied by its scale before the bias is added; a scale that is not finite is no
    /// error, and its column is not finite.
    ///
    /// Overlap: out must not overlap any input. On failure out is unchanged.
    fn sdpa_project_elements, sdpa_project_elements_on(
        on, x: sdpa_matrix, w: sdpa_array, bias: *const f32, out: sdpa_matrix_mut,
    ) {
        let call = ProjectCall { x, w: &w, bias, out };
        // SAFETY: as the caller promises; `check` comes before `run`.
        unsafe {
            call.check()?;
            call.run(on)
        }
    }
}

/// The arguments of `sdpa_project_elements`.
struct ProjectCall<'a> {
    x: sdpa_matrix,
    w: &'a sdpa_array,
    bias: *const f32,
    out: sdpa_matrix_mut,
}

// Checks and runs are not inlined, as in attention.rs.

impl ProjectCall<'_> {
    /// The number of scales.
    fn scaled(&self) -> usize {
        if self.w.format == SDPA_I8 { self.w.cols } else { 0 }
    }

    #[inline(never)]
    fn check(&self) -> Checked<()> {
        let Self { x, w, bias, out } = self;
        let out = out.output()?;
        out.check_disjoint(x.operand()?)?;
        out.check_disjoint(w.operand()?)?;
        out.check_disjoint(array(w.scales, self.scaled())?)?;
        out.check_disjoint(array(*bias, if bias.is_null() { 0 } else { w.cols })?)?;
        if w.heads > 1 {
            return Err(Failure(SDPA_ERROR_SHAPE_W));
        }
        if w.scale_head_stride != 0 || w.scale_row_stride != 0 {
            return Err(Failure(SDPA_ERROR_STRIDE));
        }
        Ok(())
    }

    /// # Safety
    ///
    /// The arguments meet the requirements of the header, and [`check`](Self::check) has returned `Ok`.
    #[inline(never)]
    unsafe fn run(&self, on: Backend) -> Checked<()> {
        let Self { x, w, bias, out } = self;
        // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
        let result = unsafe {
            let scales = slice(w.scales, self.scaled());
            let bias = (!bias.is_null()).then(|| slice(*bias, w.cols));
            on.project_any(x.view(), w.rows(), scales, bias, out.view())
        };
        result.map_err(|error| {
            Failure::of(error, || {
                if x.cols == 0 {
                    SDPA_ERROR_SHAPE_X
                } else if w.rows != x.cols || w.cols == 0 {
                    SDPA_ERROR_SHAPE_W
                } else if out.shape() != [x.rows, w.cols] {
                    SDPA_ERROR_SHAPE_OUT
                } else {
                    SDPA_ERROR_SHAPE
                }
            })
        })
    }
}

/// Returns the number of floats of workspace that a call over elements needs: four times
/// sdpa_attention_workspace and the converted keys or values of a block; on microcontrollers no more than
/// sdpa_attention_workspace. SIZE_MAX if the number overflows.
/// SDPA_ELEMENTS_WORKSPACE is the same number as a constant expression.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub extern "C" fn sdpa_elements_workspace(dim: usize, value_dim: usize) -> usize {
    Attention::elements_workspace(dim, value_dim)
}

operation! {
    /// Computes sdpa_attention_heads over keys and values of any format, each of its own: those of a
    /// memory-mapped model, say. The scale of a key multiplies its score before the softcap; the scale of a value
    /// multiplies its weight. SDPA_ERROR_RANGE if a scale is NaN or infinite. workspace: at least
    /// sdpa_elements_workspace(dim, width) floats.
    ///
    /// Overlap: out, log_sum_exp and workspace must not overlap any input or each other. On failure
    /// all three are unchanged.
    fn sdpa_attention_elements, sdpa_attention_elements_on(
        on, queries: sdpa_heads, keys: sdpa_array, values: sdpa_array,
        options: *const sdpa_options, sinks: *const f32, out: sdpa_heads_mut,
        log_sum_exp: *mut f32, workspace: *mut f32, workspace_len: usize,
    ) {
        let out = Slot::new(out);
        let call = CommonArguments {
            queries: Slot::new(queries), options, sinks, out, log_sum_exp, workspace, workspace_len,
        };
        // SAFETY: as the caller promises.
        unsafe { ElementsCall { call, keys: Slot::new(keys), values: Slot::new(values) }.attend(on) }
    }
}

operation! {
    /// Computes sdpa_pattern_heads over keys of any format, as in sdpa_attention_elements. workspace: at least
    /// SDPA_KEY_BLOCK * dim floats of any content.
    ///
    /// Overlap: out and workspace must not overlap any input or each other. On failure both are
    /// unchanged.
    fn sdpa_pattern_elements, sdpa_pattern_elements_on(
        on, queries: sdpa_heads, keys: sdpa_array, options: *const sdpa_options, sinks: *const f32,
        out: sdpa_heads_mut, workspace: *mut f32, workspace_len: usize,
    ) {
        let call = CommonArguments::of_pattern(queries, (options, sinks), out, (workspace, workspace_len));
        // SAFETY: as the caller promises.
        unsafe { PatternCall { call, keys: Slot::new(keys) }.compute::<false>(on) }
    }
}

operation! {
    /// Computes sdpa_pattern_mean over keys of any format, as in sdpa_attention_elements. workspace: at least
    /// keys.rows * queries.rows + SDPA_KEY_BLOCK * dim floats of any content.
    ///
    /// Overlap: out and workspace must not overlap any input or each other. On failure both are
    /// unchanged.
    fn sdpa_pattern_mean_elements, sdpa_pattern_mean_elements_on(
        on, queries: sdpa_heads, keys: sdpa_array, options: *const sdpa_options, sinks: *const f32,
        out: sdpa_matrix_mut, workspace: *mut f32, workspace_len: usize,
    ) {
        let call = CommonArguments::of_pattern(
            queries, (options, sinks), out.into(), (workspace, workspace_len),
        );
        // SAFETY: as the caller promises.
        unsafe { PatternCall { call, keys: Slot::new(keys) }.compute::<true>(on) }
    }
}

operation! {
    /// Computes sdpa_attention_packed over keys and values of any format, as in sdpa_attention_elements.
    ///
    /// Overlap: out, log_sum_exp and workspace must not overlap any input or each other. On failure
    /// all three are unchanged.
    fn sdpa_attention_packed_elements, sdpa_attention_packed_elements_on(
        on, queries: sdpa_heads, keys: sdpa_array, values: sdpa_array, cu_seqlens_q: *const i32,
        cu_seqlens_k: *const i32, sequences: usize, options: *const sdpa_options, sinks: *const f32,
        out: sdpa_heads_mut, log_sum_exp: *mut f32, workspace: *mut f32, workspace_len: usize,
    ) {
        let out = Slot::new(out);
        let call = CommonArguments {
            queries: Slot::new(queries), options, sinks, out, log_sum_exp, workspace, workspace_len,
        };
        let call = ElementsCall { call, keys: Slot::new(keys), values: Slot::new(values) };
        // SAFETY: as the caller promises.
        unsafe { call.attend_packed(on, cu_seqlens_q, cu_seqlens_k, sequences) }
    }
}

operation! {
    /// Computes sdpa_attention_states_heads over keys and values of any format, as in
    /// sdpa_attention_elements.
    ///
    /// Overlap: states and workspace must not overlap any input or each other. On failure both are
    /// unchanged.
    fn sdpa_attention_states_elements, sdpa_attention_states_elements_on(
        on, queries: sdpa_heads, keys: sdpa_array, values: sdpa_array,
        options: *const sdpa_options, first_key: u64, states: *mut f32, states_len: usize,
        workspace: *mut f32, workspace_len: usize,
    ) {
        let call = arguments(queries, options, [states, workspace], [states_len, workspace_len]);
        // SAFETY: as the caller promises.
        unsafe {
            ElementsCall { call, keys: Slot::new(keys), values: Slot::new(values) }.states(on, first_key)
        }
    }
}

type Array<'a> = Slot<sdpa_array, AnyElementsRef<'a>>;

impl<'a> Array<'a> {
    /// Makes the view; SDPA_ERROR_RANGE if a scale is not finite.
    ///
    /// # Safety
    ///
    /// The view has not been made; as [`sdpa_matrix::view`], for the scales too.
    #[inline(never)]
    unsafe fn make_view(&mut self) -> Checked<()> {
        // SAFETY: as the caller promises.
        unsafe {
            match self.raw().format {
                SDPA_F16 => self.make(|heads| Ok(AnyElementsRef::F16(heads.into()))),
                SDPA_BF16 => self.make(|heads| Ok(AnyElementsRef::Bf16(heads.into()))),
                SDPA_I8 => {
                    let Scales { first, shape: [heads, rows], strides: [head, row] } =
                        self.raw().scales();
                    let scales = MatrixRef::from_checked_parts(first, heads, rows, head, row);
                    self.make(|heads| AnyElementsRef::with_scales(heads, scales))
                }
                _ => self.make(|heads| Ok(AnyElementsRef::F32(heads.into()))),
            }
        }
    }

    /// Makes the view by `of`. Not inlined: a stack frame has one view.
    ///
    /// # Safety
    ///
    /// As [`make_view`](Self::make_view), for elements of type `E`, which have any bits.
    #[inline(never)]
    unsafe fn make<E: Copy + 'a>(
        &mut self,
        of: impl FnOnce(HeadsRef<'a, E>) -> Result<AnyElementsRef<'a>, Error>,
    ) -> Checked<()> {
        // SAFETY: as the caller promises.
        let heads = unsafe {
            let raw = self.raw();
            HeadsRef::from_checked_parts(raw.data.cast(), raw.counts(), raw.strides())
        };
        self.set_view(of(heads)?);
        Ok(())
    }
}

/// The arguments of attention over keys and values of any format.
struct ElementsCall<'a> {
    call: CommonArguments<'a>,
    keys: Array<'a>,
    values: Array<'a>,
}

impl ElementsCall<'_> {
    /// # Safety
    ///
    /// The arguments meet the requirements of the header.
    #[inline(always)]
    unsafe fn attend(mut self, on: Backend) -> Checked<()> {
        // SAFETY: as the caller promises; `check` comes before the views are made, and these before `run`.
        let result = unsafe {
            self.check()?;
            self.call.queries.make_view();
            self.call.out.make_view();
            self.keys.make_view()?;
            self.values.make_view()?;
            self.run(on)
        };
        // SAFETY: as the caller promises.
        result.map_err(|error| unsafe { self.failure(error) })
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
        let result = unsafe {
            self.check()?;
            check_cu_seqlens(&self.call, of_queries, of_keys, sequences)?;
            self.call.queries.make_view();
            self.call.out.make_view();
            self.keys.make_view()?;
            self.values.make_view()?;
            self.run_packed(on, of_queries, of_keys, sequences)
        };
        // SAFETY: as the caller promises.
        result.map_err(|error| unsafe {
            let Failure(status) = self.failure(error);
            Failure(sequences_status(status))
        })
    }

    /// # Safety
    ///
    /// As [`attend`](Self::attend), with a call of [`arguments`].
    #[inline(always)]
    unsafe fn states(mut self, on: Backend, first_key: u64) -> Checked<()> {
        // SAFETY: as the caller promises; `check` comes before the views are made, and these before `run_states`.
        let result = unsafe {
            self.check()?;
            self.call.queries.make_view();
            self.keys.make_view()?;
            self.values.make_view()?;
            self.run_states(on, first_key)
        };
        // SAFETY: as the caller promises.
        result.map_err(|error| unsafe { self.failure_of_states(error) })
    }

    /// # Safety
    ///
    /// As [`attend`](Self::attend), before the views are made.
    #[inline(always)]
    unsafe fn check(&mut self) -> Checked<()> {
        let call = &mut self.call;
        // SAFETY: as the caller promises.
        unsafe {
            let (keys, values) = (self.keys.raw(), self.values.raw());
            call.trim_workspace(Attention::elements_workspace(keys.cols, values.cols));
            call.check(&[], &[])?;
            check_array(call, keys)?;
            check_array(call, values)?;
            call.check_options(keys.rows)
        }
    }

    /// # Safety
    ///
    /// As [`attend`](Self::attend), after [`check`](Self::check), with the views made.
    #[inline(never)]
    unsafe fn run(&mut self, on: Backend) -> Result<(), Error> {
        let Self { call, keys, values } = self;
        // SAFETY: as the caller promises.
        unsafe {
            let elements = [keys.view(), values.view()];
            let mut attention = Attention::new();
            call.read_options(on, keys.view().rows(), &mut attention);
            let (log_sum_exp, workspace) = call.slices();
            let (queries, out) = (call.queries.view(), call.out.view_mut());
            attention.run_any(queries, elements, out, log_sum_exp, workspace)
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
    ) -> Result<(), Error> {
        // SAFETY: as the caller promises.
        unsafe {
            let mut attention = Attention::new();
            self.call.read_options(on, self.keys.view().rows(), &mut attention);
            self.run_sequences(&attention, of_queries, of_keys, sequences)
        }
    }

    /// [`run_packed`](Self::run_packed) with these options: the many arguments of the call are not on the stack while the
    /// options are read.
    ///
    /// # Safety
    ///
    /// As [`run_packed`](Self::run_packed).
    #[inline(never)]
    unsafe fn run_sequences(
        &mut self,
        attention: &Attention<'_>,
        of_queries: *const i32,
        of_keys: *const i32,
        sequences: usize,
    ) -> Result<(), Error> {
        let Self { call, keys, values } = self;
        // SAFETY: as the caller promises.
        unsafe {
            let (log_sum_exp, workspace) = call.slices();
            let (queries, out) = (call.queries.view(), call.out.view_mut());
            let elements = [keys.view(), values.view()];
            let (of_queries, of_keys) =
                (cu_seqlens(of_queries, sequences), cu_seqlens(of_keys, sequences));
            attention.run_cu_seqlens_any(
                queries,
                elements,
                of_queries,
                of_keys,
                out,
                log_sum_exp,
                workspace,
            )
        }
    }

    /// # Safety
    ///
    /// As [`states`](Self::states), after [`check`](Self::check), with the views of the inputs made.
    #[inline(never)]
    unsafe fn run_states(&mut self, on: Backend, first_key: u64) -> Result<(), Error> {
        let Self { call, keys, values } = self;
        // SAFETY: as the caller promises.
        unsafe {
            let elements = [keys.view(), values.view()];
            let mut attention = Attention::new();
            call.read_options(on, keys.view().rows(), &mut attention);
            let (states, workspace) = call.state_slices();
            attention.run_any_spans(call.queries.view(), elements, first_key, states, workspace)
        }
    }

    /// # Safety
    ///
    /// The views have been made.
    #[cold]
    #[inline(never)]
    unsafe fn failure(&self, error: Error) -> Failure {
        // SAFETY: as the caller promises.
        Failure::of(error, || unsafe {
            let ([_, rows, _], [.., width]) =
                (self.keys.view().sizes(), self.values.view().sizes());
            self.operand_status().unwrap_or_else(|| self.call.shape_status(rows, width))
        })
    }

    /// # Safety
    ///
    /// The views of the inputs have been made.
    #[cold]
    #[inline(never)]
    unsafe fn failure_of_states(&self, error: Error) -> Failure {
        // SAFETY: as the caller promises.
        Failure::of(error, || unsafe {
            let [_, rows, _] = self.keys.view().sizes();
            self.operand_status().unwrap_or_else(|| self.call.state_status(rows))
        })
    }

    /// Returns the status that names the queries, keys or values as the argument of wrong shape.
    ///
    /// # Safety
    ///
    /// The views of the inputs have been made.
    unsafe fn operand_status(&self) -> Option<sdpa_status> {
        // SAFETY: as the caller promises.
        let (queries, keys, values) = unsafe {
            (self.call.queries.view(), self.keys.view().sizes(), self.values.view().sizes())
        };
        operand_status([queries.heads(), queries.rows(), queries.cols()], keys, values)
    }
}

/// The arguments of a pattern over keys of any format.
struct PatternCall<'a> {
    call: CommonArguments<'a>,
    keys: Array<'a>,
}

impl PatternCall<'_> {
    /// Computes the pattern of each head, or the mean of all.
    ///
    /// # Safety
    ///
    /// The arguments meet the requirements of the header.
    #[inline(always)]
    unsafe fn compute<const MEAN: bool>(mut self, on: Backend) -> Checked<()> {
        // SAFETY: as the caller promises; the checks come before the views are made, and these before `run`.
        let result = unsafe {
            let keys = self.keys.raw();
            let cells = if MEAN { self.call.cells(keys.rows) } else { 0 };
            let widened = keys.cols.saturating_mul(KEY_BLOCK);
            self.call.trim_workspace(cells.saturating_add(widened));
            self.call.check(&[], &[])?;
            check_array(&self.call, keys)?;
            self.call.check_options(keys.rows)?;
            self.call.queries.make_view();
            self.call.out.make_view();
            self.keys.make_view()?;
            self.run::<MEAN>(on)
        };
        result.map_err(|error| {
            // SAFETY: as the caller promises.
            Failure::of(error, || unsafe {
                self.call.pattern_status::<MEAN>(self.keys.view().sizes())
            })
        })
    }

    /// # Safety
    ///
    /// As [`compute`](Self::compute), checked and with the views made.
    #[inline(never)]
    unsafe fn run<const MEAN: bool>(&mut self, on: Backend) -> Result<(), Error> {
        let Self { call, keys } = self;
        // SAFETY: as the caller promises.
        unsafe {
            let keys = keys.view();
            let mut attention = Attention::new();
            call.read_options(on, keys.rows(), &mut attention);
            let (_, workspace) = call.slices();
            let (queries, out) = (call.queries.view(), call.out.view_mut());
            match out.head_mut(0) {
                Some(out) if MEAN => attention.mean_pattern_any(queries, keys, out, workspace),
                _ => attention.pattern_any(queries, keys, out, workspace),
            }
        }
    }
}

/// Fails if keys or values are invalid, or if an output of the call overlaps them.
///
/// # Safety
///
/// As [`CommonArguments::check`].
#[inline(never)]
unsafe fn check_array(call: &CommonArguments<'_>, of: &sdpa_array) -> Checked<()> {
    let scales = of.scales();
    let mut outputs = [Region::EMPTY; 3];
    // SAFETY: as the caller promises.
    unsafe { call.output_regions(&mut outputs)? };
    check_disjoint(&outputs, of.operand()?)?;
    check_disjoint(&outputs, scales.region()?)
}
