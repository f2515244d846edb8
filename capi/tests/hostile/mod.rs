//! Calls of the C functions with arbitrary sizes, strides and pointers, within allocated memory: the body
//! of the fuzz target `capi`, which `tests/regressions.rs` replays.
//!
//! ```text
//! bytes ─▶ a function, a back end, and arguments: in one arena of canaries, NULL, beyond the address
//!          space, or misaligned
//! an error: nothing has changed
//! SDPA_OK:  only elements of outputs have changed, outputs overlap nothing, no argument was invalid
//! states of any parts of the keys, joined in any order: the bits of one call
//! ```

use std::{ops::Range, ptr};

use sdpa_capi::*;

/// Bytes, read from the front, then zeros. Read from the back: choices that are nearly always valid.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }

    fn last_byte(&mut self) -> usize {
        let Some((&last, rest)) = self.0.split_last() else { return 0 };
        self.0 = rest;
        usize::from(last)
    }

    fn below(&mut self, end: usize) -> usize {
        self.byte() % end
    }

    /// A small number, or now and then one beyond the address space.
    fn any(&mut self, end: usize) -> usize {
        match self.byte() {
            0xf8..=0xff => [1 << 61, 1 << 62, usize::MAX / 2, usize::MAX][self.below(4)],
            byte => byte % end,
        }
    }
}

/// The number of floats: small arguments are in the first half, workspaces in the second.
const FLOATS: usize = 1 << 13;
const CANARY: u32 = 0x7fc5_a5a5;

/// [`SDPA_SPAN`] in the type of positions.
const SPAN: u64 = SDPA_SPAN as u64;

const NO_MATRIX: sdpa_matrix =
    sdpa_matrix { data: ptr::null(), rows: 0, cols: 0, row_stride: 0, col_stride: 0 };

const NO_CACHE: sdpa_cache = sdpa_cache {
    storage: ptr::null_mut(),
    dim: 0,
    value_dim: 0,
    blocks: 0,
    appended: 0,
    dropped: 0,
    key_format: SDPA_F32,
    value_format: SDPA_F32,
    kept: 0,
};

struct Arena<'a> {
    input: Input<'a>,
    floats: Vec<f32>,
    /// The role of each float: [`INPUT`], [`OUTPUT`], neither or both.
    roles: Vec<u8>,
    /// Whether two elements of outputs share a float.
    outputs_overlap: bool,
    /// What else the call must refuse: a misaligned pointer, a repeated column, a window without its flag, a
    /// back end that this machine lacks.
    wrong: Option<&'static str>,
    /// The back end of an `_on` variant.
    on: Option<sdpa_backend_t>,
    /// Memory for the options of a call.
    options: Bytes,
}

/// Memory for options, which may be misaligned.
#[repr(align(16))]
struct Bytes([u8; 2 * size_of::<sdpa_options>()]);

const INPUT: u8 = 1;
const OUTPUT: u8 = 2;

/// Calls a function of the header, or its `_on` variant.
macro_rules! call {
    ($on:expr, $plain:ident, $name_on:ident($($argument:expr),+ $(,)?)) => {
        match $on {
            None => $plain($($argument),+),
            Some(handle) => $name_on(handle, $($argument),+),
        }
    };
}

/// The pointer, sizes and strides of a matrix or heads.
struct Region {
    data: *mut f32,
    sizes: [usize; 3],
    strides: [usize; 3],
}

impl Arena<'_> {
    /// Draws a region of floats: see [`region_of`](Self::region_of).
    fn region(&mut self, axes: usize, sizes: [usize; 3], is_output: bool) -> Region {
        self.region_of(size_of::<f32>(), axes, sizes, is_output)
    }

    /// Draws a region of the last `axes` axes, of about these sizes, with elements of `size` bytes. A region that
    /// exceeds the arena but not the address space becomes one element.
    fn region_of(
        &mut self,
        size: usize,
        axes: usize,
        mut sizes: [usize; 3],
        is_output: bool,
    ) -> Region {
        if self.input.below(16) == 15 {
            let axis = if sizes[0] == 1 { 1 + self.input.below(2) } else { self.input.below(3) };
            sizes[axis] = self.input.any(9);
        }
        let [heads, rows, cols] = sizes;
        let mut strides = match self.input.below(4) {
            0 => [0; 3],
            1 => [cols, heads.wrapping_mul(cols), 1],
            2 => [rows.wrapping_mul(cols).saturating_add(1), 1, rows],
            _ => [self.input.any(40), self.input.any(40), self.input.any(40)],
        };
        strides[..3 - axes].fill(0);
        let taken = if strides == [0; 3] { [rows.saturating_mul(cols), cols, 1] } else { strides };
        let at = 16 * self.input.byte() + self.input.below(16);
        if self.input.below(16) == 15 {
            return Region { data: ptr::null_mut(), sizes, strides };
        }
        let far = |axis: usize| (sizes[axis] as u128).saturating_sub(1) * taken[axis] as u128;
        let last = far(0).saturating_add(far(1)).saturating_add(far(2));
        let count = sizes.iter().fold(1, |all: u128, &n| all * (n as u128).min(1 << 40));
        let mut taken = taken;
        let is_nowhere = count == 0 || last >= isize::MAX as u128 / size as u128;
        if !is_nowhere && (at as u128 + last >= FLOATS as u128 || count > 4096) {
            (sizes, strides, taken) = ([sizes[0].min(1); 3], [0; 3], [1; 3]);
            sizes[0] = 1;
        }
        if !is_nowhere {
            for head in 0..sizes[0] {
                for row in 0..sizes[1] {
                    for col in 0..sizes[2] {
                        let offset = head * taken[0] + row * taken[1] + col * taken[2];
                        self.note(at + offset * size / size_of::<f32>(), is_output);
                    }
                }
            }
        }
        Region { data: self.at_element(at, size), sizes, strides }
    }

    /// Draws an operand, in which a repeated column is an error.
    fn operand(&mut self, axes: usize, sizes: [usize; 3]) -> Region {
        self.operand_of(size_of::<f32>(), axes, sizes)
    }

    fn operand_of(&mut self, size: usize, axes: usize, sizes: [usize; 3]) -> Region {
        let region = self.region_of(size, axes, sizes, false);
        let Region { sizes, strides, .. } = region;
        if !sizes.contains(&0) && strides != [0; 3] && strides[2] == 0 && sizes[2] > 1 {
            self.wrong = Some("a column is shown many times");
        }
        region
    }

    fn note(&mut self, i: usize, is_output: bool) {
        let role = if is_output { OUTPUT } else { INPUT };
        self.outputs_overlap |= is_output && self.roles[i] & OUTPUT != 0;
        self.roles[i] |= role;
    }

    /// A pointer to float `i`, now and then misaligned.
    fn at(&mut self, i: usize) -> *mut f32 {
        self.at_element(i, size_of::<f32>())
    }

    /// [`at`](Self::at) for elements of `size` bytes.
    fn at_element(&mut self, i: usize, size: usize) -> *mut f32 {
        let misalignment = self.misalignment(size);
        self.floats.as_mut_ptr().wrapping_add(i).wrapping_byte_add(misalignment)
    }

    /// Draws a misalignment in bytes for this alignment, mostly 0.
    fn misalignment(&mut self, align: usize) -> usize {
        let misalignment = match self.input.last_byte() {
            byte @ 0xe0.. => byte % align,
            _ => 0,
        };
        if misalignment != 0 {
            self.wrong = Some("a pointer is not aligned");
        }
        misalignment
    }

    /// Writes the options to memory and returns a pointer to them.
    fn write_options(&mut self, options: &sdpa_options) -> *const sdpa_options {
        let misalignment = self.misalignment(align_of::<sdpa_options>());
        let at: *mut sdpa_options = self.options.0[misalignment..].as_mut_ptr().cast();
        // SAFETY: that many bytes follow: `Bytes` has room for two structures.
        unsafe { at.write_unaligned(*options) };
        at
    }

    /// A format, now and then none, and the size of its elements.
    fn format(&mut self) -> (sdpa_format, usize) {
        match self.input.below(16) {
            15 => {
                self.wrong = Some("no format");
                (4 + self.input.byte() as u32, 1)
            }
            byte => {
                let format = byte % 4;
                (format as u32, [4, 2, 2, 1][format])
            }
        }
    }

    /// Keys, values or weights of any format. Scales are every third float, as those of the arena between are NaN; now
    /// and then they are any floats.
    fn elements(&mut self, axes: usize, sizes: [usize; 3], are_weights: bool) -> sdpa_array {
        let (format, size) = self.format();
        let Region { data, sizes: [heads, rows, cols], strides } =
            self.operand_of(size, axes, sizes);
        let [head_stride, row_stride, col_stride] = strides;
        let mut array = sdpa_array {
            data: data.cast(),
            format,
            heads: if heads == 1 { self.input.below(2) } else { heads },
            rows,
            cols,
            head_stride,
            row_stride,
            col_stride,
            scales: ptr::without_provenance(1),
            scale_head_stride: 0,
            scale_row_stride: 0,
        };
        if heads == 0 {
            array.rows = 0; // 0 heads are one
        }
        if format != SDPA_I8 {
            return array;
        }
        if are_weights {
            array.scales = self.array(if cols < 99 { cols } else { 0 }, false);
            return array;
        }
        let at = (16 * self.input.byte() + self.input.below(16)).next_multiple_of(3) + 1;
        let is_far = heads > 9 || rows > 9;
        if self.input.below(16) == 15 || is_far {
            array.scales = ptr::null();
            return array;
        }
        [array.scale_head_stride, array.scale_row_stride] = match self.input.below(4) {
            0 => [0, 0],
            1 => [3 * rows.max(1), 3],
            2 => [3, 3 * heads.max(1)],
            _ => [3, 0],
        };
        let [head, row] = match [array.scale_head_stride, array.scale_row_stride] {
            [0, 0] => [rows, 1],
            strides => strides,
        };
        for i in 0..array.heads.max(1) {
            for j in 0..array.rows {
                let float = at + i * head + j * row;
                self.note(float, false);
                if !self.floats[float].is_finite() {
                    self.wrong = Some("a scale that is not finite");
                }
            }
        }
        array.scales = self.at(at);
        array
    }

    fn matrix(&mut self, rows: usize, cols: usize) -> sdpa_matrix {
        matrix_of(self.heads(2, [1, rows, cols]))
    }

    /// A bias, and its head stride: for one or all heads, or the rows of one head after those of another.
    fn bias(&mut self, heads: usize, keys: usize, queries: usize) -> (sdpa_matrix, usize) {
        let per_head = self.input.below(2) == 1;
        let all = if per_head { heads.saturating_mul(keys) } else { keys };
        let Region { data, sizes: [_, rows, cols], strides: [_, row_stride, col_stride] } =
            self.region(2, [1, all, queries], false);
        let is_dense = row_stride == 0 && col_stride == 0;
        let row = if is_dense { cols } else { row_stride };
        let (rows, head_stride) = match per_head && rows == all {
            true => (keys, keys.saturating_mul(row)),
            false => (rows, 0),
        };
        (sdpa_matrix { data, rows, cols, row_stride, col_stride }, head_stride)
    }

    fn output(&mut self, rows: usize, cols: usize) -> sdpa_matrix_mut {
        matrix_mut_of(self.output_heads(2, [1, rows, cols]))
    }

    /// Heads, or with 2 axes one head without a stride.
    fn heads(&mut self, axes: usize, sizes: [usize; 3]) -> sdpa_heads {
        let Region { data, sizes: [heads, rows, cols], strides } = self.operand(axes, sizes);
        let [head_stride, row_stride, col_stride] = strides;
        sdpa_heads { data, heads, rows, cols, head_stride, row_stride, col_stride }
    }

    fn output_heads(&mut self, axes: usize, sizes: [usize; 3]) -> sdpa_heads_mut {
        let Region { data, sizes: [heads, rows, cols], strides } = self.region(axes, sizes, true);
        let [head_stride, row_stride, col_stride] = strides;
        sdpa_heads_mut { data, heads, rows, cols, head_stride, row_stride, col_stride }
    }

    /// A pointer to `n` floats, or NULL if `n` is 0 or too large.
    fn array(&mut self, n: usize, is_output: bool) -> *mut f32 {
        let at = 16 * self.input.byte() + self.input.below(16);
        if n == 0 || n > 1024 || at + n > FLOATS || self.input.below(8) == 7 {
            return ptr::null_mut();
        }
        (at..at + n).for_each(|i| self.note(i, is_output));
        self.at(at)
    }

    /// A workspace: of the required length, one float shorter, or of any length.
    fn workspace(&mut self, dim: usize, value_dim: usize) -> (*mut f32, usize) {
        self.workspace_of(sdpa_attention_workspace(dim, value_dim))
    }

    fn workspace_of(&mut self, need: usize) -> (*mut f32, usize) {
        let at = if self.input.below(8) == 7 { 16 * self.input.byte() } else { FLOATS / 2 };
        let len = match self.input.below(8) {
            0 => need.saturating_sub(1),
            1 => self.input.any(4096),
            _ => need,
        };
        let used = len.min(need);
        if 4 * used as u128 >= isize::MAX as u128 {
            return (self.at(at), len);
        }
        if at + used > FLOATS {
            return (ptr::null_mut(), len);
        }
        (at..at + used).for_each(|i| self.note(i, true));
        (self.at(at), len)
    }

    /// States of `need` floats, one float less, or any number; returns also which floats of the arena these are.
    fn states(&mut self, need: usize, is_output: bool) -> (*mut f32, usize, Range<usize>) {
        let at = 16 * self.input.byte() + self.input.below(16);
        let len = match self.input.below(8) {
            0 => need.saturating_sub(1),
            1 => self.input.any(200),
            _ => need,
        };
        if 4 * len as u128 >= isize::MAX as u128 {
            return (self.at(at), len, 0..0);
        }
        if at + len > FLOATS || self.input.below(8) == 7 {
            return (ptr::null_mut(), len, 0..0);
        }
        (at..at + len).for_each(|i| self.note(i, is_output));
        (self.at(at), len, at..at + len)
    }

    fn output_states(
        &mut self,
        spans: usize,
        queries: sdpa_heads,
        width: usize,
    ) -> (*mut f32, usize) {
        let need = [queries.heads, queries.rows, sdpa_state_floats(width)]
            .iter()
            .fold(spans, |all, &n| all.saturating_mul(n));
        let (states, len, _) = self.states(need, true);
        if len != need {
            self.wrong = Some("states of another length");
        }
        (states, len)
    }

    /// The number of axes, KV heads and query heads per KV head.
    fn head_counts(&mut self) -> (usize, [usize; 2]) {
        match self.input.below(2) {
            0 => (2, [1; 2]),
            _ => (3, [1 + self.input.below(2), 1 + self.input.below(3)]),
        }
    }

    /// The position of the first key of `spans` spans.
    fn first_key(&mut self, spans: usize) -> u64 {
        let span = self.input.below(9) as u64;
        let first_key = match self.input.below(8) {
            6 => (1 << 58) - SPAN * span,
            7 => self.input.any(256) as u64,
            _ => SPAN * span,
        };
        let end = (first_key / SPAN).saturating_add(spans as u64);
        if !first_key.is_multiple_of(SPAN) || end > 1 << 48 {
            self.wrong = Some("a span does not begin there");
        }
        first_key
    }

    /// Writes the indices of spans, in any order and some absent, to the states of `queries` queries; now and then
    /// one is there twice, is none, or is that of one query alone.
    fn write_indices(&mut self, states: Range<usize>, queries: usize, row: usize) {
        let count = states.len().checked_div(queries.saturating_mul(row)).unwrap_or(0);
        let first = [0, (1 << 24) - 99, (1 << 48) - 252][self.input.below(3)];
        let step = 1 + self.input.below(250);
        let mut indices: Vec<u64> = (0..count).map(|i| first + (i * step % 251) as u64).collect();
        let damage = self.input.below(8);
        if damage == 5 && count > 1 {
            indices[count - 1] = indices[self.input.below(count - 1)];
            self.wrong = Some("a span is there twice");
        }
        for (i, at) in states.clone().step_by(row.max(1)).take(count * queries).enumerate() {
            let index = indices[i / queries];
            self.floats[at] = (index >> 24) as f32;
            self.floats[at + 1] = (index & 0xff_ffff) as f32;
        }
        if damage > 5 && count > 0 {
            let at = states.start + row * self.input.below(count * queries);
            if damage == 6 {
                let part = [f32::NAN, f32::INFINITY, -1.0, 0.5, 16_777_216.0, 1e30];
                self.floats[at + self.input.below(2)] = part[self.input.below(6)];
                self.wrong = Some("an index is none");
            } else if queries > 1 {
                [self.floats[at], self.floats[at + 1]] = [3.0, 3.0];
                self.wrong = Some("queries of a span have different indices");
            }
        }
    }

    /// Cumulative lengths of `sequences` sequences of about `rows` rows: valid ones, or now and then with one number that is
    /// any.
    fn cu_seqlens(&mut self, sequences: usize, rows: usize) -> *mut i32 {
        let at = 16 * self.input.byte() + self.input.below(16);
        if self.input.below(16) == 15 {
            self.wrong = Some("no lengths");
            return ptr::null_mut();
        }
        let mut from = 0;
        for i in 0..=sequences.min(9) {
            self.note(at + i, false);
            self.floats[at + i] = f32::from_bits(from as u32);
            from = if i + 1 < sequences { from + self.input.below(rows - from + 1) } else { rows };
        }
        if self.input.below(16) == 15 {
            let any = [-1, rows as i32 + 1, i32::MAX, i32::MIN][self.input.below(4)];
            self.floats[at + self.input.below(sequences.min(9) + 1)] = f32::from_bits(any as u32);
        }
        self.at(at).cast()
    }

    /// Notes whether these are no cumulative lengths of that many rows.
    fn check_cu_seqlens(&mut self, first: *const i32, sequences: usize, rows: usize) {
        let start = (first.addr() - self.floats.as_ptr().addr()) / size_of::<f32>();
        let of = &self.floats[start..][..sequences + 1];
        let of: Vec<_> = of.iter().map(|float| float.to_bits() as i32).collect();
        if of[0] != 0 || !of.is_sorted() || of.last().is_none_or(|&last| last as usize != rows) {
            self.wrong = Some("lengths that do not fit");
        }
    }

    fn options(&mut self, heads: usize, keys: usize, queries: usize) -> sdpa_options {
        let flags = match self.input.byte() {
            byte @ 0..=250 => byte as u32 % 4,
            byte => (byte as u32) << self.input.below(24),
        };
        let mut float = |special: [f32; 4]| match self.input.byte() {
            byte @ 0..=199 => 0.0 + (byte / 100) as f32 * (byte as f32 / 64.0),
            byte => special[byte % 4],
        };
        let scale = float([f32::NAN, f32::INFINITY, -1.0, 1e-40]);
        let softcap = float([f32::NAN, f32::INFINITY, -1.0, 1e-40]);
        let query_offset = self.input.any(90) as isize;
        let mut window = [self.input.any(20), self.input.any(20)];
        if flags & SDPA_WINDOW == 0 {
            match self.input.last_byte() {
                0xf0.. if window != [0; 2] => self.wrong = Some("a window without its flag"),
                _ => window = [0; 2],
            }
        }
        let has_bias = self.input.below(3) == 2;
        let (bias, bias_head_stride) =
            if has_bias { self.bias(heads, keys, queries) } else { (NO_MATRIX, 0) };
        let has_slopes = self.input.below(3) == 2;
        let keeps = self.input.below(8) == 7;
        let keep_first = if keeps { self.input.byte() } else { 0 };
        let slopes = if has_slopes { self.array(heads, false) } else { ptr::null_mut() };
        let sink = if self.input.below(3) == 2 { self.array(1, false) } else { ptr::null_mut() };
        // The mask is the bytes of the first floats.
        let (mut keep, mut keep_row_stride, mut keep_col_stride) = (ptr::null(), 0, 0);
        let keep_head_stride = self.input.any(20);
        let kept_heads = if keep_head_stride == 0 { 1 } else { heads };
        if self.input.below(3) == 2 {
            (keep_row_stride, keep_col_stride) = (self.input.any(20), self.input.any(20));
            let is_dense = keep_row_stride == 0 && keep_col_stride == 0;
            let [row, col] =
                if is_dense { [queries, 1] } else { [keep_row_stride, keep_col_stride] };
            let steps = |n: usize| (n as u128).saturating_sub(1);
            let last = (steps(keys) * row as u128).saturating_add(steps(queries) * col as u128);
            let last = last.saturating_add(steps(kept_heads) * keep_head_stride as u128);
            if kept_heads == 0 || keys == 0 || queries == 0 || last >= isize::MAX as u128 {
                keep = self.floats.as_ptr().cast();
            } else if last < 4096 {
                keep = self.floats.as_ptr().cast();
                for head in 0..kept_heads {
                    for key in 0..keys.min(4096) {
                        for query in 0..queries.min(4096) {
                            let byte = head * keep_head_stride + key * row + query * col;
                            self.note(byte / 4, false);
                        }
                    }
                }
            }
        }
        sdpa_options {
            flags,
            scale,
            softcap,
            query_offset,
            window_left: window[0],
            window_right: window[1],
            bias,
            keep,
            keep_row_stride,
            keep_col_stride,
            sink,
            bias_head_stride,
            keep_head_stride,
            slopes,
            keep_first,
        }
    }
}

/// Heads as an array of floats.
fn array_of(heads: sdpa_heads) -> sdpa_array {
    let sdpa_heads { data, heads, rows, cols, head_stride, row_stride, col_stride } = heads;
    let [scale_head_stride, scale_row_stride] = [0; 2];
    let (data, format, scales) = (data.cast(), SDPA_F32, ptr::null());
    sdpa_array {
        data,
        format,
        heads,
        rows,
        cols,
        head_stride,
        row_stride,
        col_stride,
        scales,
        scale_head_stride,
        scale_row_stride,
    }
}

fn heads_of(array: sdpa_array) -> sdpa_heads {
    let sdpa_array { data, heads, rows, cols, head_stride, row_stride, col_stride, .. } = array;
    sdpa_heads { data: data.cast(), heads, rows, cols, head_stride, row_stride, col_stride }
}

fn matrix_of(heads: sdpa_heads) -> sdpa_matrix {
    let sdpa_heads { data, rows, cols, row_stride, col_stride, .. } = heads;
    sdpa_matrix { data, rows, cols, row_stride, col_stride }
}

fn matrix_mut_of(heads: sdpa_heads_mut) -> sdpa_matrix_mut {
    let sdpa_heads_mut { data, rows, cols, row_stride, col_stride, .. } = heads;
    sdpa_matrix_mut { data, rows, cols, row_stride, col_stride }
}

/// Whether a softmax runs in place.
fn is_in_place(x: &sdpa_matrix, out: &sdpa_matrix_mut) -> bool {
    ptr::eq(x.data, out.data)
}

/// One call.
pub(crate) fn check(bytes: &[u8]) {
    let mut arena = Arena {
        input: Input(bytes),
        floats: vec![f32::from_bits(CANARY); FLOATS],
        roles: vec![0; FLOATS],
        outputs_overlap: false,
        wrong: None,
        on: None,
        options: Bytes([0; 2 * size_of::<sdpa_options>()]),
    };
    let handle = arena.input.last_byte();
    if handle & 1 != 0 {
        let handle = (handle as i32 / 2) % 8 - 1;
        arena.on = Some(handle);
        if usize::try_from(handle).is_ok_and(|index| sdpa_backend_at(index) < 0) || handle < 0 {
            arena.wrong = Some("no back end of this machine");
        }
    }
    let kind = match arena.input.byte() {
        0xfe.. => 23,
        0xfc.. => 22,
        0xf8.. => 21,
        byte @ 0xe0.. => 16 + byte % 5,
        byte => byte % 16,
    };
    let [rows, cols, depth, width] = [0; 4].map(|_| arena.input.below(9));
    for i in 0..FLOATS / 2 {
        if i % 3 != 0 {
            arena.floats[i] = (i % 17) as f32 / 4.0 - 2.0;
        }
    }
    let (on, a) = (arena.on, &mut arena);
    let mut in_place = false;
    let (status, before) = match kind {
        0 => {
            let (x, y) = (a.array(depth, false), a.array(depth, false));
            let out = a.array(1, true);
            let n = if a.input.below(16) == 15 { usize::MAX >> a.input.below(3) } else { depth };
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe { call!(on, sdpa_dot, sdpa_dot_on(x, y, n, out)) })
        }
        1 => {
            let (x, out) = (a.array(8 * depth, false), a.array(8 * depth, true));
            in_place = ptr::eq(x, out);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe { call!(on, sdpa_softmax, sdpa_softmax_on(x, 8 * depth, out)) })
        }
        2 | 3 => {
            let x = a.matrix(rows, cols);
            let (wrong, mut out) = (a.wrong, a.output(rows, cols));
            if a.input.below(8) == 7 {
                let sdpa_matrix { data, rows, cols, row_stride, col_stride } = x;
                let as_output = |role: &mut u8| *role = (*role & INPUT) * (INPUT | OUTPUT);
                a.roles.iter_mut().for_each(as_output);
                (a.outputs_overlap, a.wrong) = (false, wrong);
                out = sdpa_matrix_mut { data: data.cast_mut(), rows, cols, row_stride, col_stride };
            }
            in_place = is_in_place(&x, &out);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                if kind == 2 {
                    call!(on, sdpa_softmax_rows, sdpa_softmax_rows_on(x, out))
                } else {
                    call!(on, sdpa_softmax_columns, sdpa_softmax_columns_on(x, out))
                }
            })
        }
        4 => {
            let (x, w) = (a.matrix(rows, depth), a.matrix(depth, cols));
            let bias = if w.cols < 99 { a.array(w.cols, false) } else { ptr::null_mut() };
            let out = a.output(rows, cols);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe { call!(on, sdpa_project, sdpa_project_on(x, w, bias, out)) })
        }
        5 => {
            let (keys, queries) = (a.matrix(rows, depth), a.matrix(cols, depth));
            let (scale, out) = (a.input.byte() as f32 / 64.0, a.output(rows, cols));
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe { call!(on, sdpa_scores, sdpa_scores_on(keys, queries, scale, out)) })
        }
        6 => {
            let (pattern, values) = (a.matrix(rows, cols), a.matrix(rows, width));
            let out = a.output(cols, width);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                call!(on, sdpa_weighted_sum, sdpa_weighted_sum_on(pattern, values, out))
            })
        }
        7 => {
            let (queries, keys) = (a.matrix(cols, depth), a.matrix(rows, depth));
            let (options, out) = (a.options(1, keys.rows, queries.rows), a.output(rows, cols));
            let options = a.write_options(&options);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                call!(on, sdpa_pattern, sdpa_pattern_on(queries, keys, options, out))
            })
        }
        8 => {
            let (queries, keys) = (a.matrix(cols, depth), a.matrix(rows, depth));
            let values = a.matrix(rows, width);
            let options = a.options(1, keys.rows, queries.rows);
            let (out, lse) = (a.output(cols, width), a.array(queries.rows, true));
            let (space, len) = a.workspace(keys.cols, values.cols);
            let options = a.write_options(&options);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                call!(
                    on,
                    sdpa_attention,
                    sdpa_attention_on(queries, keys, values, options, out, lse, space, len,)
                )
            })
        }
        9 => {
            let (key_heads, group) = (1 + a.input.below(2), 1 + a.input.below(3));
            let heads = key_heads * group;
            let queries = a.heads(3, [heads, cols, depth]);
            let keys = a.heads(3, [key_heads, rows, depth]);
            let values = a.heads(3, [key_heads, rows, width]);
            let options = a.options(queries.heads, keys.rows, queries.rows);
            let sinks =
                if a.input.below(3) == 2 { a.array(queries.heads, false) } else { ptr::null_mut() };
            let out = a.output_heads(3, [heads, cols, width]);
            let lse = a.array(queries.heads.saturating_mul(queries.rows), true);
            let (space, len) = a.workspace(keys.cols, values.cols);
            let options = a.write_options(&options);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                call!(
                    on,
                    sdpa_attention_heads,
                    sdpa_attention_heads_on(
                        queries, keys, values, options, sinks, out, lse, space, len,
                    )
                )
            })
        }
        10 => {
            let (out, other) = (a.output(rows, cols), a.matrix(rows, cols));
            // One float per row, unless the rows were drawn larger.
            let fits = out.rows <= rows && other.rows <= rows;
            let n = if fits { rows } else { 0 };
            let (lse, other_lse) = (a.array(n, true), a.array(n, false));
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe { call!(on, sdpa_merge, sdpa_merge_on(out, lse, other, other_lse)) })
        }
        11 => return cache(a, rows, depth, width, None, false),
        12 => {
            // Now and then keys of several spans, of one column.
            let spans = a.input.below(6).saturating_sub(3);
            let rows = spans * SDPA_SPAN + rows;
            let [depth, width] = [depth, width].map(|n| if spans > 0 { n.min(1) } else { n });
            let (axes, [key_heads, group]) = a.head_counts();
            let queries = a.heads(axes, [key_heads * group, cols, depth]);
            let keys = a.heads(axes, [key_heads, rows, depth]);
            let values = a.heads(axes, [key_heads, rows, width]);
            let options = a.options(queries.heads, keys.rows, queries.rows);
            let spans = keys.rows.div_ceil(SDPA_SPAN);
            let first_key = a.first_key(spans);
            let (states, states_len) = a.output_states(spans, queries, values.cols);
            let (space, len) = a.workspace(keys.cols, values.cols);
            let options = a.write_options(&options);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                if axes == 3 {
                    call!(
                        on,
                        sdpa_attention_states_heads,
                        sdpa_attention_states_heads_on(
                            queries, keys, values, options, first_key, states, states_len, space,
                            len,
                        )
                    )
                } else {
                    let [queries, keys, values] = [queries, keys, values].map(matrix_of);
                    call!(
                        on,
                        sdpa_attention_states,
                        sdpa_attention_states_on(
                            queries, keys, values, options, first_key, states, states_len, space,
                            len,
                        )
                    )
                }
            })
        }
        13 => {
            let (axes, [key_heads, group]) = a.head_counts();
            let out = a.output_heads(axes, [key_heads * group, cols, width]);
            let sink = if a.input.below(3) == 2 { a.array(1, false) } else { ptr::null_mut() };
            // Nothing else is read.
            let nowhere = ptr::without_provenance(1);
            let options = sdpa_options {
                flags: !0,
                scale: f32::NAN,
                softcap: -1.0,
                query_offset: 0,
                window_left: 1,
                window_right: 1,
                bias: sdpa_matrix { data: nowhere, rows: 9, cols: 9, ..NO_MATRIX },
                keep: nowhere.cast(),
                keep_row_stride: usize::MAX,
                keep_col_stride: usize::MAX,
                sink,
                bias_head_stride: usize::MAX,
                keep_head_stride: usize::MAX,
                slopes: nowhere,
                keep_first: 0,
            };
            let has_sinks = axes == 3 && a.input.below(3) == 2;
            let sinks = if has_sinks { a.array(out.heads, false) } else { ptr::null_mut() };
            let queries = out.heads.saturating_mul(out.rows);
            let lse = a.array(queries, true);
            let row = sdpa_state_floats(out.cols);
            let span = queries.saturating_mul(row);
            let spans = a.input.below(6);
            let (states, len, held) = a.states(span.saturating_mul(spans), false);
            if !len.is_multiple_of(span) {
                a.wrong = Some("states of no number of spans");
            }
            a.write_indices(held, queries, row);
            let options = a.write_options(&options);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                if axes == 3 {
                    call!(
                        on,
                        sdpa_join_heads,
                        sdpa_join_heads_on(states, len, options, sinks, out, lse)
                    )
                } else {
                    let out = matrix_mut_of(out);
                    call!(on, sdpa_join, sdpa_join_on(states, len, options, out, lse))
                }
            })
        }
        14 => return split(a, cols, depth, width),
        16 => {
            let (x, w) = (a.matrix(rows, depth), a.elements(2, [1, depth, cols], true));
            let bias = if w.cols < 99 { a.array(w.cols, false) } else { ptr::null_mut() };
            let out = a.output(rows, cols);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                call!(on, sdpa_project_elements, sdpa_project_elements_on(x, w, bias, out))
            })
        }
        17 => {
            a.wrong = None; // it has no back end
            let (format, size) = a.format();
            let floats = a.matrix(rows, cols);
            let count = floats.rows.saturating_mul(floats.cols);
            let taken = count.saturating_mul(size).div_ceil(size_of::<f32>());
            let at = 16 * a.input.byte() + a.input.below(16);
            let to = if taken > 1024 || a.input.below(8) == 7 {
                ptr::null_mut()
            } else {
                (at..at + taken).for_each(|i| a.note(i, true));
                a.at_element(at, size)
            };
            let n = if floats.rows < 99 { floats.rows } else { 0 };
            let is_scaled = format == SDPA_I8;
            let scales = if is_scaled { a.array(n, true) } else { ptr::null_mut() };
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe { sdpa_narrow(floats, format, to.cast(), scales) })
        }
        23 => {
            let (key_heads, group) = (1 + a.input.below(2), 1 + a.input.below(3));
            let heads = key_heads * group;
            let queries = a.heads(3, [heads, cols, depth]);
            let keys = a.elements(3, [key_heads, rows, depth], false);
            let options = a.options(queries.heads, keys.rows, queries.rows);
            let is_given = a.input.below(3) == 2;
            let sinks = if is_given { a.array(queries.heads, false) } else { ptr::null_mut() };
            let is_mean = a.input.below(2) == 1;
            let cells = if is_mean { keys.rows.saturating_mul(queries.rows) } else { 0 };
            let out = a.output_heads(3, [if is_mean { 1 } else { heads }, rows, cols]);
            let widened = keys.cols.saturating_mul(SDPA_KEY_BLOCK);
            let (space, len) = a.workspace_of(cells.saturating_add(widened));
            let options = a.write_options(&options);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                if is_mean {
                    let out = matrix_mut_of(out);
                    call!(
                        on,
                        sdpa_pattern_mean_elements,
                        sdpa_pattern_mean_elements_on(
                            queries, keys, options, sinks, out, space, len,
                        )
                    )
                } else {
                    call!(
                        on,
                        sdpa_pattern_elements,
                        sdpa_pattern_elements_on(queries, keys, options, sinks, out, space, len)
                    )
                }
            })
        }
        18 | 19 => {
            let (key_heads, group) = (1 + a.input.below(2), 1 + a.input.below(3));
            let heads = key_heads * group;
            let queries = a.heads(3, [heads, cols, depth]);
            let keys = a.elements(3, [key_heads, rows, depth], false);
            let values = a.elements(3, [key_heads, rows, width], false);
            let options = a.options(queries.heads, keys.rows, queries.rows);
            if kind == 18 {
                let is_given = a.input.below(3) == 2;
                let sinks = if is_given { a.array(queries.heads, false) } else { ptr::null_mut() };
                let out = a.output_heads(3, [heads, cols, width]);
                let lse = a.array(queries.heads.saturating_mul(queries.rows), true);
                let need = sdpa_elements_workspace(keys.cols, values.cols);
                let (space, len) = a.workspace_of(need);
                let options = a.write_options(&options);
                // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
                run(a, || unsafe {
                    call!(
                        on,
                        sdpa_attention_elements,
                        sdpa_attention_elements_on(
                            queries, keys, values, options, sinks, out, lse, space, len,
                        )
                    )
                })
            } else {
                let spans = keys.rows.div_ceil(SDPA_SPAN);
                let first_key = a.first_key(spans);
                let (states, states_len) = a.output_states(spans, queries, values.cols);
                let need = sdpa_elements_workspace(keys.cols, values.cols);
                let (space, len) = a.workspace_of(need);
                let options = a.write_options(&options);
                // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
                run(a, || unsafe {
                    call!(
                        on,
                        sdpa_attention_states_elements,
                        sdpa_attention_states_elements_on(
                            queries, keys, values, options, first_key, states, states_len, space,
                            len,
                        )
                    )
                })
            }
        }
        21 => {
            let heads = 1 + a.input.below(3);
            let x = a.heads(3, [heads, rows, depth]);
            let (wrong, mut out) = (a.wrong, a.output_heads(3, [heads, rows, depth]));
            if a.input.below(4) == 3 {
                let sdpa_heads { data, heads, rows, cols, head_stride, row_stride, col_stride } = x;
                let as_output = |role: &mut u8| *role = (*role & INPUT) * (INPUT | OUTPUT);
                a.roles.iter_mut().for_each(as_output);
                (a.outputs_overlap, a.wrong) = (false, wrong);
                let data = data.cast_mut();
                out =
                    sdpa_heads_mut { data, heads, rows, cols, head_stride, row_stride, col_stride };
            }
            in_place = ptr::eq(x.data, out.data);
            let positions = rows + a.input.below(3);
            let pairs = (depth / 2).saturating_sub(a.input.below(2));
            let [cosines, sines] = [0; 2].map(|_| a.matrix(positions, pairs));
            let first = u64::MAX >> (8 * a.input.below(8)) << a.input.below(2);
            let position = first.wrapping_add(a.input.any(4) as u64);
            let layout = a.input.any(2) as u32;
            let table = sdpa_rotary { cosines, sines, first: first.wrapping_sub(positions as u64) };
            let table = if a.input.below(32) == 31 { ptr::null() } else { &raw const table };
            let position = position.wrapping_sub(positions as u64);
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                call!(on, sdpa_rotate, sdpa_rotate_on(x, table, position, layout, out))
            })
        }
        22 => {
            let elements = a.input.below(2) == 1;
            let (key_heads, group) = (1 + a.input.below(2), 1 + a.input.below(3));
            let heads = key_heads * group;
            let sequences = a.input.any(4);
            // The lengths first: those that are written over others are then no lengths.
            let [of_q, of_k] = [cols, rows].map(|rows| a.cu_seqlens(sequences, rows));
            let queries = a.heads(3, [heads, cols, depth]);
            let [keys, values] = [depth, width].map(|cols| match elements {
                true => a.elements(3, [key_heads, rows, cols], false),
                false => array_of(a.heads(3, [key_heads, rows, cols])),
            });
            let options = a.options(queries.heads, keys.rows, queries.rows);
            let is_given = a.input.below(3) == 2;
            let sinks = if is_given { a.array(queries.heads, false) } else { ptr::null_mut() };
            let out = a.output_heads(3, [heads, cols, width]);
            let lse = a.array(queries.heads.saturating_mul(queries.rows), true);
            let need = if elements { sdpa_elements_workspace } else { sdpa_attention_workspace };
            let (space, len) = a.workspace_of(need(keys.cols, values.cols));
            let options = a.write_options(&options);
            if sequences > 9 {
                a.wrong = Some("lengths beyond the address space");
            } else if a.wrong.is_none() {
                a.check_cu_seqlens(of_q, sequences, queries.rows);
                a.check_cu_seqlens(of_k, sequences, keys.rows);
            }
            // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
            run(a, || unsafe {
                if elements {
                    let (k, v) = (keys, values);
                    call!(
                        on,
                        sdpa_attention_packed_elements,
                        sdpa_attention_packed_elements_on(
                            queries, k, v, of_q, of_k, sequences, options, sinks, out, lse, space,
                            len,
                        )
                    )
                } else {
                    let [k, v] = [keys, values].map(heads_of);
                    call!(
                        on,
                        sdpa_attention_packed,
                        sdpa_attention_packed_on(
                            queries, k, v, of_q, of_k, sequences, options, sinks, out, lse, space,
                            len,
                        )
                    )
                }
            })
        }
        _ => {
            let elements = kind == 20;
            let position = match a.input.below(4) {
                0 => SPAN * a.input.byte() as u64,
                1 => a.input.any(256) as u64,
                2 => (1 << 58) - a.input.byte() as u64,
                _ => u64::MAX - a.input.byte() as u64,
            };
            return cache(a, rows, depth, width, Some(position), elements);
        }
    };
    check_result(a, status, &before, in_place);
}

/// Calls, and returns the status and a copy of the arena before the call.
fn run(arena: &Arena<'_>, call: impl FnOnce() -> sdpa_status) -> (sdpa_status, Vec<f32>) {
    let before = arena.floats.clone();
    (call(), before)
}

/// Fails if the call changed memory that it must not change, or accepted invalid arguments.
fn check_result(arena: &mut Arena<'_>, status: sdpa_status, before: &[f32], in_place: bool) {
    let is_known = (SDPA_OK..=SDPA_ERROR_FORMAT).contains(&status)
        || (status % 100 == SDPA_ERROR_SHAPE && status <= SDPA_ERROR_SHAPE_CU_SEQLENS);
    assert!(is_known, "status {status}");
    if std::env::var_os("SDPA_BREAK_BITS").is_some_and(|set| set == "1") {
        arena.floats[FLOATS - 1] = 0.0;
    }
    if status == SDPA_OK {
        assert!(arena.wrong.is_none(), "{:?}", arena.wrong);
        assert!(!arena.outputs_overlap, "an output lies over itself or another");
        let shared = arena.roles.iter().position(|role| *role == INPUT | OUTPUT);
        assert!(in_place || shared.is_none(), "an output lies over an input at {shared:?}");
    }
    for (i, (now, before)) in arena.floats.iter().zip(before).enumerate() {
        let may_change = status == SDPA_OK && arena.roles[i] & OUTPUT != 0;
        assert!(may_change || now.to_bits() == before.to_bits(), "status {status}: wrote at {i}");
    }
}

/// Calls on a cache through many steps, with now and then a corrupted field of the structure. A cache that begins
/// at a position also computes states; with `elements` it is of any formats.
fn cache(
    a: &mut Arena<'_>,
    rows: usize,
    depth: usize,
    width: usize,
    position: Option<u64>,
    elements: bool,
) {
    let [key_format, value_format] =
        [0; 2].map(|_| if elements { a.input.below(5) as sdpa_format } else { SDPA_F32 });
    let (len, backend_error) = (FLOATS / 4, a.wrong.take());
    let storage = a.at(len);
    let alignment_error = a.wrong;
    let mut cache = NO_CACHE;
    let asked = if a.input.below(8) == 7 { a.input.any(200) } else { len };
    if 4 * asked as u128 >= isize::MAX as u128 || asked <= len {
        // SAFETY: the storage is in the arena, or refused as too large.
        unsafe {
            match position {
                Some(at) if elements => sdpa_cache_init_elements(
                    &mut cache,
                    depth,
                    width,
                    key_format,
                    value_format,
                    storage,
                    asked,
                    at,
                ),
                None => sdpa_cache_init(&mut cache, depth, width, storage, asked),
                Some(at) => sdpa_cache_init_at(&mut cache, depth, width, storage, asked, at),
            }
        };
    }
    let floats_of = |cache: &sdpa_cache| {
        let &sdpa_cache { dim, value_dim, blocks, key_format, value_format, .. } = cache;
        sdpa_cache_floats_of(dim, value_dim, blocks, key_format, value_format)
    };
    let keys_of = |cache: &sdpa_cache| {
        let between = cache.dropped.saturating_sub(cache.kept as u64);
        cache.appended.saturating_sub(between) as usize
    };
    let spans_of = |cache: &sdpa_cache| {
        let kept = if cache.dropped == 0 { 0 } else { (cache.kept as u64).div_ceil(SPAN) };
        let others = match cache.appended.saturating_sub(cache.dropped) {
            0 => 0,
            _ => cache.appended.div_ceil(SPAN).saturating_sub(kept.max(cache.dropped / SPAN)),
        };
        (kept + others) as usize
    };
    let workspace = |cache: &sdpa_cache| {
        let need = if elements { sdpa_elements_workspace } else { sdpa_attention_workspace };
        need(cache.dim, cache.value_dim)
    };
    for _ in 0..12 {
        if a.input.below(16) == 15 {
            let odd = a.input.any(70);
            match a.input.below(if elements { 6 } else { 4 }) {
                0 => cache.appended = odd as u64,
                1 => cache.dropped = odd as u64,
                2 => cache.blocks = odd,
                3 => cache.kept = odd,
                4 => cache.key_format = odd as sdpa_format,
                _ => cache.value_format = odd as sdpa_format,
            }
            let floats = floats_of(&cache);
            if floats > len && 4 * (floats as u128) < isize::MAX as u128 {
                cache.blocks = 1;
            }
        }
        a.roles.fill(0);
        (a.outputs_overlap, a.wrong) = (false, alignment_error);
        let floats = floats_of(&cache);
        let held = len..len + floats.min(len);
        let was = cache;
        let what = a.input.below(7);
        let (status, before) = match what {
            0 | 1 => {
                let n = rows + 8 * a.input.below(8);
                let (keys, values) = (a.matrix(n, depth), a.matrix(n, width));
                a.roles[held.clone()].fill(OUTPUT);
                // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
                run(a, || unsafe {
                    if elements {
                        sdpa_cache_append_elements(&mut cache, keys, values)
                    } else {
                        sdpa_cache_append(&mut cache, keys, values)
                    }
                })
            }
            2 => {
                let n = a.input.any(100);
                let keeps = a.input.below(4) == 3;
                // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
                run(a, || unsafe {
                    if keeps {
                        sdpa_cache_keep_first(&mut cache, n)
                    } else {
                        sdpa_cache_slide(&mut cache, n)
                    }
                })
            }
            3 => {
                let n = a.input.any(100);
                // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
                run(a, || unsafe { sdpa_cache_truncate(&mut cache, n) })
            }
            4 => {
                let position = position.unwrap_or(0).wrapping_add(a.input.any(100) as u64);
                // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
                run(a, || unsafe { sdpa_cache_truncate_to(&mut cache, position) })
            }
            6 => {
                a.roles[held.clone()].fill(INPUT);
                let (axes, [_, heads]) = a.head_counts();
                let queries = a.heads(axes, [heads, rows, depth]);
                let keys = keys_of(&cache);
                let options = a.options(queries.heads, keys, queries.rows);
                let sinks = a.array(queries.heads, false);
                let is_mean = a.input.below(2) == 1;
                let cells = if is_mean { keys.saturating_mul(queries.rows) } else { 0 };
                let out =
                    a.output_heads(axes, [if is_mean { 1 } else { heads }, keys.min(99), rows]);
                let widened = match cache.key_format {
                    SDPA_F32 => 0,
                    _ => cache.dim.saturating_mul(SDPA_KEY_BLOCK),
                };
                let (space, len) = a.workspace_of(cells.saturating_add(widened));
                let options = a.write_options(&options);
                a.wrong = a.wrong.or(backend_error);
                // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
                run(a, || unsafe {
                    if is_mean {
                        let out = matrix_mut_of(out);
                        call!(
                            a.on,
                            sdpa_cache_pattern_mean,
                            sdpa_cache_pattern_mean_on(
                                &cache, queries, options, sinks, out, space, len,
                            )
                        )
                    } else {
                        call!(
                            a.on,
                            sdpa_cache_pattern_heads,
                            sdpa_cache_pattern_heads_on(
                                &cache, queries, options, sinks, out, space, len,
                            )
                        )
                    }
                })
            }
            _ if position.is_some() && a.input.below(2) == 1 => {
                a.roles[held.clone()].fill(INPUT);
                let (axes, [_, heads]) = a.head_counts();
                let queries = a.heads(axes, [heads, rows, depth]);
                let keys = keys_of(&cache);
                let options = a.options(queries.heads, keys, queries.rows);
                let spans = spans_of(&cache);
                let (states, states_len) = a.output_states(spans, queries, cache.value_dim);
                let (space, len) = a.workspace_of(workspace(&cache));
                let options = a.write_options(&options);
                a.wrong = a.wrong.or(backend_error);
                // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
                run(a, || unsafe {
                    if elements {
                        call!(
                            a.on,
                            sdpa_cache_states_elements,
                            sdpa_cache_states_elements_on(
                                &cache, queries, options, states, states_len, space, len,
                            )
                        )
                    } else if axes == 3 {
                        call!(
                            a.on,
                            sdpa_cache_states_heads,
                            sdpa_cache_states_heads_on(
                                &cache, queries, options, states, states_len, space, len,
                            )
                        )
                    } else {
                        let queries = matrix_of(queries);
                        call!(
                            a.on,
                            sdpa_cache_states,
                            sdpa_cache_states_on(
                                &cache, queries, options, states, states_len, space, len,
                            )
                        )
                    }
                })
            }
            _ => {
                a.roles[held.clone()].fill(INPUT);
                let queries = a.heads(2, [1, rows, depth]);
                let keys = keys_of(&cache);
                let options = a.options(queries.heads, keys, queries.rows);
                let out = a.output_heads(2, [1, rows, width]);
                let lse = a.array(queries.rows, true);
                let (space, len) = a.workspace_of(workspace(&cache));
                let options = a.write_options(&options);
                a.wrong = a.wrong.or(backend_error);
                // SAFETY: pointers are into the arena, NULL, or refused as beyond the address space.
                run(a, || unsafe {
                    if elements {
                        let sinks = ptr::null();
                        call!(
                            a.on,
                            sdpa_cache_attend_elements,
                            sdpa_cache_attend_elements_on(
                                &cache, queries, options, sinks, out, lse, space, len,
                            )
                        )
                    } else {
                        let (queries, out) = (matrix_of(queries), matrix_mut_of(out));
                        call!(
                            a.on,
                            sdpa_cache_attend,
                            sdpa_cache_attend_on(&cache, queries, options, out, lse, space, len,)
                        )
                    }
                })
            }
        };
        check_result(a, status, &before, false);
        let words = |cache: &sdpa_cache| {
            let [dim, value_dim, blocks] =
                [cache.dim, cache.value_dim, cache.blocks].map(|size| size as u64);
            [dim, value_dim, blocks, cache.appended, cache.dropped, cache.kept as u64]
        };
        if status != SDPA_OK || what >= 5 {
            assert_eq!(words(&cache), words(&was), "the cache has changed");
        } else {
            assert!(keys_of(&cache) <= 64 * cache.blocks && words(&cache)[..3] == words(&was)[..3]);
        }
    }
    let fields = 5 * size_of::<usize>() + 24;
    assert!(size_of::<sdpa_cache>() == fields.next_multiple_of(align_of::<sdpa_cache>()));
}

/// One call, and the same keys in parts, each now and then in a cache: their states, joined, have the bits of the
/// call. A part may be absent, where all its keys are masked. Inputs are in the first half of the arena.
fn split(a: &mut Arena<'_>, tokens: usize, dim: usize, width: usize) {
    let (key_heads, group) = (1 + a.input.below(2), 1 + a.input.below(2));
    let heads = key_heads * group;
    let keys = SDPA_SPAN * a.input.below(3) + a.input.byte();
    let tokens = tokens.min((1 << 17) / (heads * (keys + 1) * (dim + width + 1)));
    for (i, x) in a.floats[..FLOATS / 2].iter_mut().enumerate() {
        *x = (i * i % 61) as f32 / 16.0 - 2.0;
    }
    for _ in 0..a.input.below(4) {
        let at = 16 * a.input.byte() + a.input.below(16);
        a.floats[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38][a.input.below(4)];
    }
    let floats = a.floats.as_mut_ptr();
    let at = |i: usize| floats.wrapping_add(i);
    // Rows begin one float after each other.
    let input = |a: &mut Arena<'_>, heads, rows, cols| {
        let data = at(16 * a.input.below(64) + a.input.below(16));
        let (head_stride, row_stride, col_stride) = (a.input.byte(), 1, 1);
        sdpa_heads { data, heads, rows, cols, head_stride, row_stride, col_stride }
    };
    let queries = input(a, heads, tokens, dim);
    let (k, v) = (input(a, key_heads, keys, dim), input(a, key_heads, keys, width));
    let mut options = a.options(0, 0, 0);
    (options.bias_head_stride, options.keep_head_stride) = (0, 0);
    if a.wrong.is_some() {
        return;
    }
    options.query_offset = options.query_offset.wrapping_add(16 * a.input.byte() as isize);
    options.bias = match a.input.below(3) {
        2 => matrix_of(input(a, 1, keys, tokens)),
        _ => NO_MATRIX,
    };
    let mut parts = Vec::new();
    let mut from = 0;
    while from < keys {
        let to = keys.min(from + SDPA_SPAN * (1 + a.input.below(2)));
        parts.push(from..to);
        from = to;
    }
    let masked = 2 + a.input.below(99);
    let mut keep: Vec<u8> = (0..keys).map(|key| u8::from(key % masked != 0)).collect();
    if a.input.below(3) == 2 && !parts.is_empty() {
        let absent = parts.remove(a.input.below(parts.len()));
        keep[absent].fill(0);
    }
    if a.input.below(2) == 1 {
        parts.reverse();
    }
    (options.keep, options.keep_row_stride, options.keep_col_stride) = (keep.as_ptr(), 1, 0);

    // The outputs, the workspace and the states.
    let count = heads * tokens;
    let out_floats = FLOATS / 2..FLOATS / 2 + count * width;
    let lse_floats = out_floats.end..out_floats.end + count;
    let space_len = sdpa_attention_workspace(dim, width);
    let space_floats = lse_floats.end..lse_floats.end + space_len;
    let (lse, space) = (at(lse_floats.start), at(space_floats.start));
    let out = sdpa_heads_mut {
        data: at(out_floats.start),
        heads,
        rows: tokens,
        cols: width,
        head_stride: 0,
        row_stride: 0,
        col_stride: 0,
    };
    let outputs = [out_floats.clone(), lse_floats.clone(), space_floats.clone()];
    let (on, sinks) = (a.on, ptr::null());
    let check = |a: &mut Arena<'_>, outputs: &[Range<usize>], call: &dyn Fn() -> sdpa_status| {
        a.roles.fill(0);
        a.outputs_overlap = false;
        outputs.iter().for_each(|floats| a.roles[floats.clone()].fill(OUTPUT));
        let (status, before) = run(a, call);
        check_result(a, status, &before, false);
        status
    };
    // SAFETY: all pointers are into the arena, but for the mask, with a byte per key.
    let status = check(a, &outputs, &|| unsafe {
        call!(
            on,
            sdpa_attention_heads,
            sdpa_attention_heads_on(queries, k, v, &options, sinks, out, lse, space, space_len)
        )
    });
    if status != SDPA_OK {
        return;
    }
    let results = out_floats.start..lse_floats.end;
    let want = a.floats[results.clone()].to_vec();
    a.floats[results.clone()].fill(f32::from_bits(CANARY));

    let states = at(space_floats.end);
    let mut states_len = 0;
    for part in parts {
        let (Range { start: from, end: to }, rows) = (part.clone(), part.len());
        let len = rows.div_ceil(SDPA_SPAN) * count * sdpa_state_floats(width);
        let begin = space_floats.end + states_len;
        let here = at(begin);
        let mut options = options;
        options.keep = keep[from..].as_ptr();
        if !options.bias.data.is_null() {
            options.bias.data = options.bias.data.wrapping_add(from);
            options.bias.rows = rows;
        }
        let [k, v] = [k, v].map(|x| sdpa_heads { data: x.data.wrapping_add(from), rows, ..x });
        let outputs = [begin..begin + len, space_floats.clone()];
        let is_cached = a.input.below(3) == 2;
        // In a cache the offset is that from the newest key.
        let newest = to as isize - tokens as isize;
        let status = match options.query_offset.checked_sub(newest) {
            // A cache knows the kept keys that it holds itself, and only one from position 0 has them.
            Some(query_offset)
                if is_cached && key_heads == 1 && (options.keep_first == 0 || from == 0) =>
            {
                options.query_offset = query_offset;
                let kept = options.keep_first;
                let blocks = rows.max(kept).div_ceil(SDPA_KEY_BLOCK);
                let mut storage = vec![0.0; sdpa_cache_floats(dim, width, blocks)];
                let (data, floats) = (storage.as_mut_ptr(), storage.len());
                let (first_key, k, v) = (from as u64, matrix_of(k), matrix_of(v));
                let mut cache = NO_CACHE;
                // SAFETY: the storage is as long as said, and lives until the states are there.
                unsafe {
                    let init = sdpa_cache_init_at(&mut cache, dim, width, data, floats, first_key);
                    assert_eq!(init, SDPA_OK, "the cache of a part");
                    let keeps =
                        if kept > 0 { sdpa_cache_keep_first(&mut cache, kept) } else { SDPA_OK };
                    assert_eq!(keeps, SDPA_OK, "the kept keys of a part");
                    assert_eq!(sdpa_cache_append(&mut cache, k, v), SDPA_OK, "the keys of a part");
                }
                // SAFETY: as above.
                check(a, &outputs, &|| unsafe {
                    call!(
                        on,
                        sdpa_cache_states_heads,
                        sdpa_cache_states_heads_on(
                            &cache, queries, &options, here, len, space, space_len,
                        )
                    )
                })
            }
            // SAFETY: as above.
            _ => check(a, &outputs, &|| unsafe {
                call!(
                    on,
                    sdpa_attention_states_heads,
                    sdpa_attention_states_heads_on(
                        queries,
                        k,
                        v,
                        &options,
                        from as u64,
                        here,
                        len,
                        space,
                        space_len,
                    )
                )
            }),
        };
        assert_eq!(status, SDPA_OK, "the states of a part");
        states_len += len;
    }
    // SAFETY: as above.
    let status = check(a, &outputs[..2], &|| unsafe {
        call!(
            on,
            sdpa_join_heads,
            sdpa_join_heads_on(states, states_len, &options, sinks, out, lse)
        )
    });
    assert_eq!(status, SDPA_OK, "the join");
    let got = &a.floats[results];
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let are_same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        assert!(are_same, "joined, float {i} is {got:e}, in one call {want:e}");
    }
}
