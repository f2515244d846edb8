//! The C functions against the crate's: the same bits, and no write outside the outputs, over
//! random calls of every kind of value and layout; and the `_on` variants on each back end.

#[expect(unused_macros, reason = "those of tests of each back end")]
#[path = "../../tests/common/mod.rs"]
mod common;

use std::{
    ffi::{CStr, CString},
    ptr,
};

use common::{
    assert_same_bits,
    cases::{Kind, Layout, Rng, length, size},
    grid::CANARY,
};
use sdpa::{
    Attention, Backend, Bf16, CachePositions, Element, ElementsRef, F16, HeadsMut, HeadsRef, I8,
    KEY_BLOCK, KvCacheMut, MatrixMut, MatrixRef, Pairs, RotaryTable, narrow,
};
use sdpa_capi::*;

/// The back end of a call: the best one, by the plain function, or one by its handle.
#[derive(Clone, Copy)]
struct On {
    backend: Backend,
    handle: Option<sdpa_backend_t>,
}

impl On {
    fn all() -> Vec<Self> {
        let plain = Self { backend: Backend::best(), handle: None };
        let named = |backend: Backend| {
            let name = CString::new(backend.name()).unwrap();
            // SAFETY: a string.
            Self { backend, handle: Some(unsafe { sdpa_backend_by_name(name.as_ptr()) }) }
        };
        [plain].into_iter().chain(Backend::available().map(named)).collect()
    }

    fn any(rng: &mut Rng) -> Self {
        let all = Self::all();
        all[rng.below(all.len())]
    }
}

/// Calls a function of the header, or its `_on` variant.
macro_rules! call {
    ($on:expr, $plain:ident, $name_on:ident($($argument:expr),+ $(,)?)) => {
        match $on.handle {
            None => $plain($($argument),+),
            Some(handle) => $name_on(handle, $($argument),+),
        }
    };
}

#[test]
fn handles_are_the_back_ends_of_this_machine() {
    // SAFETY: none of these is freed.
    let name = |handle| unsafe { CStr::from_ptr(sdpa_backend_name(handle)) }.to_str().unwrap();
    for (index, backend) in Backend::available().enumerate() {
        let handle = sdpa_backend_at(index);
        assert!(handle >= 0);
        assert_eq!(name(handle), backend.name());
    }
    let count = Backend::available().count();
    for index in [count, count + 1, usize::MAX, usize::MAX / 2 + 1] {
        assert!(sdpa_backend_at(index) < 0);
    }
    assert!(On::all().iter().skip(1).all(|on| {
        let handle = on.handle.unwrap();
        handle >= 0 && name(handle) == on.backend.name()
    }));
    for wrong in [c"", c"scala", c"scalar ", c"Scalar", c"none", c"sse9"] {
        // SAFETY: a string.
        assert!(unsafe { sdpa_backend_by_name(wrong.as_ptr()) } < 0, "{wrong:?}");
    }
    // SAFETY: NULL is allowed.
    assert!(unsafe { sdpa_backend_by_name(ptr::null()) } < 0);
    for handle in [-1, i32::MIN, i32::MAX, count as i32] {
        assert_eq!(name(handle), "none");
        let mut dot = CANARY;
        // SAFETY: no floats are read.
        let status = unsafe { sdpa_dot_on(handle, ptr::null(), ptr::null(), 0, &mut dot) };
        assert_eq!((status, dot.to_bits()), (SDPA_ERROR_OPTION, CANARY.to_bits()));
    }
}

/// A matrix surrounded by canaries, for both languages.
#[derive(Clone)]
struct GuardedMatrix {
    layout: Layout,
    buffer: Vec<f32>,
}

impl GuardedMatrix {
    fn input(rng: &mut Rng, rows: usize, cols: usize) -> Self {
        let mut layout = Layout::of_input(rng, rows, cols);
        if (layout.row_stride, layout.col_stride) == (0, 0) {
            layout.col_stride = 1; // in C strides of 0 mean contiguous
        }
        Self { layout, buffer: vec![CANARY; layout.len + cols] }.filled(rng)
    }

    /// An input that is no mask: no column is repeated.
    fn operand(rng: &mut Rng, rows: usize, cols: usize) -> Self {
        let mut operand = Self::input(rng, rows, cols);
        if operand.layout.col_stride == 0 {
            operand.layout.col_stride = 1;
            operand = operand.filled(rng);
        }
        operand
    }

    fn output(rng: &mut Rng, rows: usize, cols: usize) -> Self {
        let layout = Layout::of_output(rng, rows, cols);
        Self { layout, buffer: vec![CANARY; layout.len] }
    }

    fn filled(mut self, rng: &mut Rng) -> Self {
        let mut values = vec![0.0; self.layout.rows * self.layout.cols];
        Kind::any(rng).fill(rng, &mut values);
        let mut values = values.into_iter();
        for row in 0..self.layout.rows {
            for col in 0..self.layout.cols {
                self.buffer[self.layout.index(row, col)] = values.next().unwrap();
            }
        }
        self
    }

    fn view(&self) -> MatrixRef<'_> {
        let Layout { rows, cols, start, row_stride, col_stride, .. } = self.layout;
        MatrixRef::with_strides(&self.buffer[start..], rows, cols, row_stride, col_stride).unwrap()
    }

    fn view_mut(&mut self) -> MatrixMut<'_> {
        let Layout { rows, cols, start, row_stride, col_stride, .. } = self.layout;
        MatrixMut::with_strides(&mut self.buffer[start..], rows, cols, row_stride, col_stride)
            .unwrap()
    }

    fn c(&self) -> sdpa_matrix {
        let Layout { rows, cols, start, row_stride, col_stride, .. } = self.layout;
        sdpa_matrix { data: self.buffer[start..].as_ptr(), rows, cols, row_stride, col_stride }
    }

    fn c_mut(&mut self) -> sdpa_matrix_mut {
        let Layout { rows, cols, start, row_stride, col_stride, .. } = self.layout;
        let data = self.buffer[start..].as_mut_ptr();
        sdpa_matrix_mut { data, rows, cols, row_stride, col_stride }
    }
}

/// Runs both into equal buffers of canaries and compares every float.
fn agree(
    what: &str,
    out: &GuardedMatrix,
    c: impl FnOnce(sdpa_matrix_mut) -> sdpa_status,
    rust: impl FnOnce(MatrixMut<'_>) -> Result<(), sdpa::Error>,
) {
    let (mut got, mut want) = (out.clone(), out.clone());
    let status = c(got.c_mut());
    assert_eq!(status == SDPA_OK, rust(want.view_mut()).is_ok(), "{what}: {status}");
    assert_same_bits(&format!("{what} to {:?}", out.layout), &got.buffer, &want.buffer);
}

#[test]
fn slices() {
    let mut rng = Rng::new(501);
    for _ in 0..400 {
        let (n, on) = (length(&mut rng), On::any(&mut rng));
        let [a, b] = [0; 2].map(|_| {
            let mut values = vec![0.0; n];
            Kind::any(&mut rng).fill(&mut rng, &mut values);
            values
        });
        let mut dot = CANARY;
        // SAFETY: pointers and sizes are those of these slices.
        let status =
            unsafe { call!(on, sdpa_dot, sdpa_dot_on(a.as_ptr(), b.as_ptr(), n, &mut dot)) };
        assert_eq!(status, SDPA_OK);
        assert_same_bits("dot", &[dot], &[on.backend.dot(&a, &b).unwrap()]);
        let [mut got, mut want] = [0; 2].map(|_| vec![CANARY; n]);
        // SAFETY: pointers and sizes are those of these slices.
        let status =
            unsafe { call!(on, sdpa_softmax, sdpa_softmax_on(a.as_ptr(), n, got.as_mut_ptr())) };
        assert_eq!(status, SDPA_OK);
        on.backend.softmax(&a, &mut want).unwrap();
        assert_same_bits("softmax", &got, &want);
        let mut x = a.clone();
        // SAFETY: pointers and sizes are those of this slice alone.
        let status =
            unsafe { call!(on, sdpa_softmax, sdpa_softmax_on(x.as_ptr(), n, x.as_mut_ptr())) };
        assert_eq!(status, SDPA_OK);
        assert_same_bits("softmax in place", &x, &want);
    }
}

#[test]
fn matrices() {
    let mut rng = Rng::new(502);
    for _ in 0..400 {
        let on = On::any(&mut rng);
        let [rows, cols, depth] = [0; 3].map(|_| size(&mut rng));
        let [grid, left, right] = [(rows, cols), (rows, depth), (depth, cols)]
            .map(|(rows, cols)| GuardedMatrix::operand(&mut rng, rows, cols));
        let out = GuardedMatrix::output(&mut rng, rows, cols);
        // SAFETY: pointers and sizes are those of these buffers.
        let rows_c =
            |to| unsafe { call!(on, sdpa_softmax_rows, sdpa_softmax_rows_on(grid.c(), to)) };
        agree("softmax_rows", &out, rows_c, |to| on.backend.softmax_rows(grid.view(), to));
        // SAFETY: pointers and sizes are those of these buffers.
        let columns_c =
            |to| unsafe { call!(on, sdpa_softmax_columns, sdpa_softmax_columns_on(grid.c(), to)) };
        agree("softmax_columns", &out, columns_c, |to| on.backend.softmax_columns(grid.view(), to));
        let in_place = GuardedMatrix::output(&mut rng, rows, cols).filled(&mut rng);
        let as_input = |to: sdpa_matrix_mut| {
            let sdpa_matrix_mut { data, rows, cols, row_stride, col_stride } = to;
            sdpa_matrix { data, rows, cols, row_stride, col_stride }
        };
        // SAFETY: pointers and sizes are those of these buffers.
        let rows_c =
            |to| unsafe { call!(on, sdpa_softmax_rows, sdpa_softmax_rows_on(as_input(to), to)) };
        agree("rows in place", &in_place, rows_c, |to| {
            on.backend.softmax_rows_in_place(to);
            Ok(())
        });
        // SAFETY: pointers and sizes are those of these buffers.
        let columns_c = |to| unsafe {
            call!(on, sdpa_softmax_columns, sdpa_softmax_columns_on(as_input(to), to))
        };
        agree("columns in place", &in_place, columns_c, |to| {
            on.backend.softmax_columns_in_place(to);
            Ok(())
        });

        let bias = rng.one_in(2).then(|| vec![rng.between(-1.0, 1.0); cols]);
        let at = bias.as_ref().map_or(ptr::null(), |bias| bias.as_ptr());
        // SAFETY: pointers and sizes are those of these buffers.
        let project =
            |to| unsafe { call!(on, sdpa_project, sdpa_project_on(left.c(), right.c(), at, to)) };
        agree("project", &out, project, |to| {
            // The pointer of an empty `Vec` may be NULL, which in C means no bias.
            let bias = bias.as_deref().filter(|_| !at.is_null());
            on.backend.project(left.view(), right.view(), bias, to)
        });
        let queries = GuardedMatrix::operand(&mut rng, cols, depth);
        let scale = rng.one_in(2).then(|| rng.between(-2.0, 2.0));
        // SAFETY: pointers and sizes are those of these buffers.
        let scores = |to| unsafe {
            call!(on, sdpa_scores, sdpa_scores_on(left.c(), queries.c(), scale.unwrap_or(0.0), to))
        };
        agree("scores", &out, scores, |to| {
            on.backend.scores(left.view(), queries.view(), scale, to)
        });
        let pattern = GuardedMatrix::operand(&mut rng, depth, rows);
        // SAFETY: pointers and sizes are those of these buffers.
        let sum = |to| unsafe {
            call!(on, sdpa_weighted_sum, sdpa_weighted_sum_on(pattern.c(), right.c(), to))
        };
        agree("weighted_sum", &out, sum, |to| {
            on.backend.weighted_sum(pattern.view(), right.view(), to)
        });
    }
}

/// Options for both languages, which share bias, slopes, keep and sink.
struct Options {
    /// Keys × heads · queries.
    bias: Option<GuardedMatrix>,
    /// Heads × keys × queries.
    keep: Option<Vec<u8>>,
    /// One per query head.
    slopes: Option<Vec<f32>>,
    sink: Option<f32>,
    flags: u32,
    scale: f32,
    softcap: f32,
    query_offset: isize,
    window: [usize; 2],
    /// Those of the masks, of which one may be for all heads; keys; queries.
    shape: [usize; 3],
}

impl Options {
    fn any(rng: &mut Rng, heads: usize, keys: usize, queries: usize) -> Self {
        let flags = rng.below(4) as u32;
        let mask_heads = if rng.one_in(2) { heads } else { 1 };
        let window = [0; 2].map(|_| if rng.one_in(8) { usize::MAX } else { rng.below(100) });
        Self {
            bias: rng.one_in(3).then(|| GuardedMatrix::input(rng, keys, mask_heads * queries)),
            keep: rng
                .one_in(3)
                .then(|| (0..mask_heads * keys * queries).map(|_| rng.below(3) as u8).collect()),
            slopes: rng.one_in(3).then(|| (0..heads).map(|_| rng.between(-0.5, 0.5)).collect()),
            sink: rng.one_in(3).then(|| rng.between(-3.0, 3.0)),
            flags,
            scale: if rng.one_in(2) { 0.0 } else { rng.between(-1.0, 1.0) },
            softcap: if rng.one_in(3) { rng.between(0.5, 20.0) } else { 0.0 },
            query_offset: rng.below(200) as isize - 100,
            window: if flags & SDPA_WINDOW == 0 { [0; 2] } else { window },
            shape: [mask_heads, keys, queries],
        }
    }

    fn c(&self) -> sdpa_options {
        let none =
            sdpa_matrix { data: ptr::null(), rows: 0, cols: 0, row_stride: 0, col_stride: 0 };
        let [heads, keys, queries] = self.shape;
        let mut bias = self.bias.as_ref().map_or(none, GuardedMatrix::c);
        if bias.row_stride == 0 && bias.col_stride == 0 {
            (bias.row_stride, bias.col_stride) = (bias.cols, 1);
        }
        bias.cols = queries;
        let per_head = |stride: usize| if heads == 1 { 0 } else { stride };
        sdpa_options {
            flags: self.flags,
            scale: self.scale,
            softcap: self.softcap,
            query_offset: self.query_offset,
            window_left: self.window[0],
            window_right: self.window[1],
            bias,
            keep: self.keep.as_ref().map_or(ptr::null(), |keep| keep.as_ptr()),
            keep_row_stride: 0,
            keep_col_stride: 0,
            sink: self.sink.as_ref().map_or(ptr::null(), ptr::from_ref),
            bias_head_stride: per_head(queries * bias.col_stride),
            keep_head_stride: per_head(keys * queries),
            slopes: self.slopes.as_ref().map_or(ptr::null(), |slopes| slopes.as_ptr()),
            keep_first: 0,
        }
    }

    fn rust(&self, on: On) -> Attention<'_> {
        let mut attention = Attention::new().query_offset(self.query_offset);
        if on.handle.is_some() {
            attention = attention.on(on.backend);
        }
        if self.flags & SDPA_CAUSAL != 0 {
            attention = attention.causal();
        }
        if self.flags & SDPA_WINDOW != 0 {
            attention = attention.window(self.window[0], self.window[1]);
        }
        if self.scale != 0.0 {
            attention = attention.scale(self.scale);
        }
        if self.softcap != 0.0 {
            attention = attention.softcap(self.softcap);
        }
        if let Some(bias) = &self.bias {
            attention = attention.bias(bias.view().heads(self.shape[0]).unwrap());
        }
        if let Some(slopes) = &self.slopes {
            attention = attention.slopes(slopes);
        }
        if let Some(keep) = &self.keep {
            let [heads, keys, queries] = self.shape;
            attention = attention.keep(HeadsRef::stacked(keep, heads, keys, queries).unwrap());
        }
        self.sink.map_or(attention, |sink| attention.sink(sink))
    }
}

#[test]
fn attention_and_merge() {
    let mut rng = Rng::new(503);
    for _ in 0..300 {
        let on = On::any(&mut rng);
        let [keys, tokens, dim, width] = [0; 4].map(|_| size(&mut rng));
        let [q, k, v] = [(tokens, dim), (keys, dim), (keys, width)]
            .map(|(rows, cols)| GuardedMatrix::operand(&mut rng, rows, cols));
        let options = Options::any(&mut rng, 1, keys, tokens);
        let (c, rust) = (options.c(), options.rust(on));
        let grid = GuardedMatrix::output(&mut rng, keys, tokens);
        // SAFETY: pointers and sizes are those of these buffers.
        let pattern =
            |to| unsafe { call!(on, sdpa_pattern, sdpa_pattern_on(q.c(), k.c(), &c, to)) };
        agree("pattern", &grid, pattern, |to| rust.pattern(q.view(), k.view(), to));

        let out = GuardedMatrix::output(&mut rng, tokens, width);
        let len = sdpa_attention_workspace(dim, width);
        let (mut workspace, mut rust_workspace) = (vec![f32::NAN; len], vec![0.0; len]);
        let [mut lse, mut want_lse] = [0; 2].map(|_| vec![CANARY; tokens]);
        let space = workspace.as_mut_ptr();
        // SAFETY: pointers and sizes are those of these buffers.
        let attention = |to| unsafe {
            let lse = lse.as_mut_ptr();
            call!(
                on,
                sdpa_attention,
                sdpa_attention_on(q.c(), k.c(), v.c(), &c, to, lse, space, len)
            )
        };
        agree("attention", &out, attention, |to| {
            let [q, k, v] = [q.view(), k.view(), v.view()];
            rust.run_with_log_sum_exp(q, k, v, to, &mut want_lse, &mut rust_workspace)
        });
        assert_same_bits("log-sum-exp", &lse, &want_lse);

        let (first, other) =
            (out.clone().filled(&mut rng), GuardedMatrix::operand(&mut rng, tokens, width));
        let mut want_lse = lse.clone();
        let other_lse: Vec<f32> = (0..tokens).map(|_| rng.between(-9.0, 9.0)).collect();
        let at = lse.as_mut_ptr();
        // SAFETY: pointers and sizes are those of these buffers.
        let merge = |to| unsafe {
            call!(on, sdpa_merge, sdpa_merge_on(to, at, other.c(), other_lse.as_ptr()))
        };
        agree("merge", &first, merge, |to| {
            on.backend.merge(to, &mut want_lse, other.view(), &other_lse)
        });
        assert_same_bits("merged log-sum-exp", &lse, &want_lse);
    }
}

#[test]
fn rotations() {
    let mut rng = Rng::new(512);
    for _ in 0..300 {
        let on = On::any(&mut rng);
        let (tokens, count) = (rng.below(20), 1 + rng.below(40));
        let dim = 2 * count + rng.pick(&[0, 0, 1, 7]);
        let (first, positions) = (rng.pick(&[0, 5, (1 << 24) - 9, (1 << 53) - 60]), tokens + 3);
        let frequencies: Vec<f32> = (0..count).map(|_| rng.between(-1.0, 1.0)).collect();
        let given = rng.one_in(2);
        let [mut memory, mut storage] = [0; 2].map(|_| vec![CANARY; 2 * positions * count + 5]);
        let range = first..first + positions as u64;
        let want = match given {
            true => RotaryTable::with_frequencies(&frequencies, range, &mut memory),
            false => RotaryTable::new(1e4, count, range, &mut memory),
        }
        .unwrap();
        let none =
            sdpa_matrix { data: ptr::null(), rows: 0, cols: 0, row_stride: 0, col_stride: 0 };
        let mut table = sdpa_rotary { cosines: none, sines: none, first: 0 };
        let base = if given { 0.0 } else { 1e4 };
        let frequencies = if given { frequencies.as_ptr() } else { ptr::null() };
        let (len, at) = (storage.len(), storage.as_mut_ptr());
        // SAFETY: pointers and sizes are those of these buffers.
        let status = unsafe {
            sdpa_rotary_init(&mut table, base, frequencies, count, first, positions, at, len)
        };
        assert_eq!(status, SDPA_OK);
        assert_eq!((table.cosines.data, table.first), (at.cast_const(), first));

        let position = first + rng.below(4) as u64;
        let (pairs, layout) =
            rng.pick(&[(SDPA_HALVES, Pairs::Halves), (SDPA_INTERLEAVED, Pairs::Interleaved)]);
        let x = GuardedMatrix::operand(&mut rng, tokens, dim);
        let out = GuardedMatrix::output(&mut rng, tokens, dim);
        // SAFETY: pointers and sizes are those of these buffers.
        let rotate = |x, to| unsafe {
            let to = one_head_mut(to);
            call!(on, sdpa_rotate, sdpa_rotate_on(x, &table, position, pairs, to))
        };
        let c = |to| rotate(one_head(x.c()), to);
        agree("rotate", &out, c, |to| on.backend.rotate(x.view(), &want, position, layout, to));
        let c = |to: sdpa_matrix_mut| {
            let sdpa_matrix_mut { data, rows, cols, row_stride, col_stride } = to;
            rotate(one_head(sdpa_matrix { data, rows, cols, row_stride, col_stride }), to)
        };
        let there = out.filled(&mut rng);
        agree("rotate in place", &there, c, |to| {
            on.backend.rotate_in_place(to, &want, position, layout)
        });
        assert_same_bits("the table", &storage, &memory);
    }
}

fn one_head(matrix: sdpa_matrix) -> sdpa_heads {
    let sdpa_matrix { data, rows, cols, row_stride, col_stride } = matrix;
    sdpa_heads { data, heads: 1, rows, cols, head_stride: 0, row_stride, col_stride }
}

fn one_head_mut(matrix: sdpa_matrix_mut) -> sdpa_heads_mut {
    let sdpa_matrix_mut { data, rows, cols, row_stride, col_stride } = matrix;
    sdpa_heads_mut { data, heads: 1, rows, cols, head_stride: 0, row_stride, col_stride }
}

#[test]
fn multi_head_attention() {
    let mut rng = Rng::new(504);
    for _ in 0..200 {
        let on = On::any(&mut rng);
        let (key_heads, group) = (1 + rng.below(3), 1 + rng.below(3));
        let (heads, keys, tokens) = (key_heads * group, rng.below(80), 1 + rng.below(20));
        let (dim, width) = (1 + rng.below(20), 1 + rng.below(20));
        let [q, k, v] = [heads * tokens * dim, key_heads * keys * dim, key_heads * keys * width]
            .map(|n| {
                let mut values = vec![0.0; n];
                Kind::any(&mut rng).fill(&mut rng, &mut values);
                values
            });
        let mut options = Options::any(&mut rng, heads, keys, tokens);
        options.sink = None;
        let sinks: Vec<f32> = (0..heads).map(|_| rng.between(-2.0, 2.0)).collect();
        let [mut got, mut want] = [0; 2].map(|_| vec![CANARY; heads * tokens * width]);
        let [mut lse, mut want_lse] = [0; 2].map(|_| vec![CANARY; heads * tokens]);
        let mut workspace = vec![0.0; Attention::workspace(dim, width)];
        let (len, space) = (workspace.len(), workspace.as_mut_ptr());
        let of = |data: &[f32], heads, rows, cols, strides: [usize; 3]| {
            let [head_stride, row_stride, col_stride] = strides;
            let data = data.as_ptr();
            sdpa_heads { data, heads, rows, cols, head_stride, row_stride, col_stride }
        };
        let out = sdpa_heads_mut {
            data: got.as_mut_ptr(),
            heads,
            rows: tokens,
            cols: width,
            head_stride: width,
            row_stride: heads * width,
            col_stride: 1,
        };
        // SAFETY: pointers and sizes are those of these buffers.
        let status = unsafe {
            call!(
                on,
                sdpa_attention_heads,
                sdpa_attention_heads_on(
                    of(&q, heads, tokens, dim, [0; 3]),
                    of(&k, key_heads, keys, dim, [dim, key_heads * dim, 1]),
                    of(&v, key_heads, keys, width, [0; 3]),
                    &options.c(),
                    sinks.as_ptr(),
                    out,
                    lse.as_mut_ptr(),
                    space,
                    len,
                )
            )
        };
        assert_eq!(status, SDPA_OK);
        let attention = options.rust(on).sinks(&sinks);
        let q = HeadsRef::stacked(&q, heads, tokens, dim).unwrap();
        let k = HeadsRef::interleaved(&k, key_heads, keys, dim).unwrap();
        let v = HeadsRef::stacked(&v, key_heads, keys, width).unwrap();
        let to = HeadsMut::interleaved(&mut want, heads, tokens, width).unwrap();
        attention.run_with_log_sum_exp(q, k, v, to, &mut want_lse, &mut workspace).unwrap();
        assert_same_bits("heads", &got, &want);
        assert_same_bits("log-sum-exps", &lse, &want_lse);
    }
}

/// Random sequences of so many queries and keys: cumulative lengths for C, lengths for Rust.
fn sequences(rng: &mut Rng, tokens: usize, keys: usize) -> ([Vec<i32>; 2], Vec<[usize; 2]>) {
    let count = 1 + rng.below(4);
    let cu_seqlens = [tokens, keys].map(|rows| {
        let mut ends: Vec<_> = (1..count).map(|_| rng.below(rows + 1) as i32).collect();
        ends.extend([0, rows as i32]);
        ends.sort_unstable();
        ends
    });
    let length = |of: &[i32], i: usize| (of[i + 1] - of[i]) as usize;
    let lengths = (0..count).map(|i| [0, 1].map(|side| length(&cu_seqlens[side], i))).collect();
    (cu_seqlens, lengths)
}

#[test]
fn packed_sequences() {
    let mut rng = Rng::new(513);
    for _ in 0..100 {
        let on = On::any(&mut rng);
        let (key_heads, group) = (1 + rng.below(2), 1 + rng.below(3));
        let (heads, keys, tokens) = (key_heads * group, rng.below(80), rng.below(20));
        let (dim, width) = (1 + rng.below(20), 1 + rng.below(20));
        let q = Queries::random(&mut rng, heads, tokens, dim);
        let k = Queries::random(&mut rng, key_heads, keys, dim);
        let v = Queries::random(&mut rng, key_heads, keys, width);
        let (cu_seqlens, lengths) = sequences(&mut rng, tokens, keys);
        let options = Options::any(&mut rng, heads, keys, tokens);
        let [mut got, mut want] = [0; 2].map(|_| vec![CANARY; heads * tokens * width]);
        let [mut lse, mut want_lse] = [0; 2].map(|_| vec![CANARY; heads * tokens]);
        let mut workspace = vec![0.0; Attention::workspace(dim, width)];
        let (len, space) = (workspace.len(), workspace.as_mut_ptr());
        // SAFETY: pointers and sizes are those of these buffers.
        let status = unsafe {
            let (c, to, sinks) = (options.c(), lse.as_mut_ptr(), ptr::null());
            let [of_q, of_k] = cu_seqlens.each_ref().map(|of| of.as_ptr());
            let (q, k, v, n) = (q.c(), k.c(), v.c(), lengths.len());
            let out = heads_mut(&mut got, heads, tokens, width);
            call!(
                on,
                sdpa_attention_packed,
                sdpa_attention_packed_on(q, k, v, of_q, of_k, n, &c, sinks, out, to, space, len)
            )
        };
        assert_eq!(status, SDPA_OK);
        let to = HeadsMut::stacked(&mut want, heads, tokens, width).unwrap();
        let (q, k, v) = (q.view(), k.view(), v.view());
        let logs = Some(&mut want_lse[..]);
        options.rust(on).run_packed(q, k, v, &lengths, to, logs, &mut workspace).unwrap();
        assert_same_bits("sequences", &got, &want);
        assert_same_bits("log-sum-exps of sequences", &lse, &want_lse);
    }
}

/// One query head and two, chunk after chunk, with slides in between.
#[test]
fn caches() {
    let mut rng = Rng::new(506);
    for _ in 0..100 {
        let on = On::any(&mut rng);
        let [dim, width, blocks] = [20, 20, 3].map(|end| 1 + rng.below(end));
        let mut storage = vec![CANARY; sdpa_cache_floats(dim, width, blocks)];
        let (mut keys_held, mut values_held) =
            (vec![0.0; dim * KEY_BLOCK * blocks], vec![0.0; width * KEY_BLOCK * blocks]);
        let mut span = CachePositions::default();
        let mut want =
            KvCacheMut::new(&mut keys_held, &mut values_held, dim, width, &mut span).unwrap();
        let mut got = sdpa_cache {
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
        // SAFETY: pointers and sizes are those of this storage.
        let status =
            unsafe { sdpa_cache_init(&mut got, dim, width, storage.as_mut_ptr(), storage.len()) };
        assert_eq!((status, got.blocks), (SDPA_OK, blocks));
        let mut workspace = vec![0.0; Attention::workspace(dim, width)];
        let (len, space) = (workspace.len(), workspace.as_mut_ptr());
        for _ in 0..5 {
            let n = rng.below(50);
            let (keys, values) = (
                GuardedMatrix::operand(&mut rng, n, dim),
                GuardedMatrix::operand(&mut rng, n, width),
            );
            // SAFETY: pointers and sizes are those of this cache.
            let status = unsafe { sdpa_cache_append(&mut got, keys.c(), values.c()) };
            let result = want.append(keys.view(), values.view());
            assert_eq!(status == SDPA_OK, result.is_ok());
            let tokens = 1 + rng.below(4);
            let mut options = Options::any(&mut rng, 1, want.len(), tokens);
            let (queries, out) = (
                GuardedMatrix::operand(&mut rng, tokens, dim),
                GuardedMatrix::output(&mut rng, tokens, width),
            );
            let [mut lse, mut want_lse] = [0; 2].map(|_| vec![CANARY; tokens]);
            let at = lse.as_mut_ptr();
            // SAFETY: pointers and sizes are those of this cache and these buffers.
            let attend = |to| unsafe {
                let (queries, c) = (queries.c(), options.c());
                call!(
                    on,
                    sdpa_cache_attend,
                    sdpa_cache_attend_on(&got, queries, &c, to, at, space, len,)
                )
            };
            let view = want.view();
            agree("from a cache", &out, attend, |to| {
                let workspace = &mut vec![0.0; len];
                let attention = options.rust(on);
                view.attend_with_log_sum_exp(
                    &attention,
                    queries.view(),
                    to,
                    &mut want_lse,
                    workspace,
                )
            });
            assert_same_bits("log-sum-exp from a cache", &lse, &want_lse);

            let q: Vec<f32> = (0..2 * tokens * dim).map(|_| rng.between(-2.0, 2.0)).collect();
            let sinks = [rng.between(-2.0, 2.0), f32::NEG_INFINITY];
            options = Options { sink: None, ..Options::any(&mut rng, 2, want.len(), tokens) };
            let [mut heads_out, mut want_out] = [0; 2].map(|_| vec![CANARY; 2 * tokens * width]);
            let queries = sdpa_heads {
                data: q.as_ptr(),
                heads: 2,
                rows: tokens,
                cols: dim,
                head_stride: 0,
                row_stride: 0,
                col_stride: 0,
            };
            let to = sdpa_heads_mut {
                data: heads_out.as_mut_ptr(),
                heads: 2,
                rows: tokens,
                cols: width,
                head_stride: width,
                row_stride: 2 * width,
                col_stride: 1,
            };
            // SAFETY: pointers and sizes are those of this cache and these buffers.
            let status = unsafe {
                let (sinks, none) = (sinks.as_ptr(), ptr::null_mut());
                call!(
                    on,
                    sdpa_cache_attend_heads,
                    sdpa_cache_attend_heads_on(
                        &got,
                        queries,
                        &options.c(),
                        sinks,
                        to,
                        none,
                        space,
                        len,
                    )
                )
            };
            assert_eq!(status, SDPA_OK);
            let attention = options.rust(on).sinks(&sinks);
            let queries = HeadsRef::stacked(&q, 2, tokens, dim).unwrap();
            let to = HeadsMut::interleaved(&mut want_out, 2, tokens, width).unwrap();
            view.attend(&attention, queries, to, &mut vec![0.0; len]).unwrap();
            assert_same_bits("heads from a cache", &heads_out, &want_out);

            let keep = rng.below(want.len() + 1);
            // SAFETY: pointers and sizes are those of this cache.
            assert_eq!(unsafe { sdpa_cache_slide(&mut got, keep) }, SDPA_OK);
            want.slide(keep);
            assert_eq!((got.appended, got.dropped), (want.appended(), want.dropped()));
        }
    }
}

/// The states of the spans of two query heads: of keys in two calls and of a cache, and their join.
#[test]
fn states_of_spans() {
    let mut rng = Rng::new(507);
    for _ in 0..60 {
        let on = On::any(&mut rng);
        let (keys, tokens) = (1025 + rng.below(1500), 1 + rng.below(5));
        let (dim, width) = (1 + rng.below(9), 1 + rng.below(9));
        let mut options = Options::any(&mut rng, 1, keys - 1024, tokens);
        options.query_offset += 1024;
        let sink = options.sink;
        let [q, k, v] = [2 * tokens * dim, keys * dim, keys * width].map(|n| {
            let mut values = vec![0.0; n];
            Kind::any(&mut rng).fill(&mut rng, &mut values);
            values
        });
        let row = Attention::state_floats(width);
        assert_eq!(sdpa_state_floats(width), row);
        let spans = keys.div_ceil(1024);
        let mut workspace = vec![0.0; Attention::workspace(dim, width)];
        let (len, space) = (workspace.len(), workspace.as_mut_ptr());
        let matrix = |data: &[f32], rows, cols| {
            let data = data.as_ptr();
            sdpa_matrix { data, rows, cols, row_stride: 0, col_stride: 0 }
        };
        let of_heads = |matrix: sdpa_matrix, heads| {
            let sdpa_matrix { data, rows, cols, .. } = matrix;
            sdpa_heads { data, heads, rows, cols, head_stride: 0, row_stride: 0, col_stride: 0 }
        };

        // One head: the keys from the second span on.
        let [mut got, mut want] = [0; 2].map(|_| vec![CANARY; (spans - 1) * tokens * row]);
        let (rest, rest_values) = (&k[1024 * dim..], &v[1024 * width..]);
        // SAFETY: pointers and sizes are those of these buffers.
        let status = unsafe {
            let (q, k) = (matrix(&q, tokens, dim), matrix(rest, keys - 1024, dim));
            let (v, to, n) = (matrix(rest_values, keys - 1024, width), got.as_mut_ptr(), got.len());
            call!(
                on,
                sdpa_attention_states,
                sdpa_attention_states_on(q, k, v, &options.c(), 1024, to, n, space, len)
            )
        };
        assert_eq!(status, SDPA_OK);
        let attention = options.rust(on);
        let [q_view, k_view, v_view] = [
            MatrixRef::new(&q, tokens, dim),
            MatrixRef::new(rest, keys - 1024, dim),
            MatrixRef::new(rest_values, keys - 1024, width),
        ]
        .map(Result::unwrap);
        let floats = &mut vec![0.0; len];
        attention.run_spans(q_view, k_view, v_view, 1024, &mut want, floats).unwrap();
        assert_same_bits("states", &got, &want);
        let out = GuardedMatrix::output(&mut rng, tokens, width);
        let [mut lse, mut want_lse] = [0; 2].map(|_| vec![CANARY; tokens]);
        let at = lse.as_mut_ptr();
        // SAFETY: pointers and sizes are those of these buffers.
        let join = |to| unsafe {
            let c = options.c();
            call!(on, sdpa_join, sdpa_join_on(got.as_ptr(), got.len(), &c, to, at))
        };
        agree("join", &out, join, |to| attention.join(&want, to, Some(&mut want_lse)));
        assert_same_bits("log-sum-exps of a join", &lse, &want_lse);

        // Two heads, from arrays and from a cache that begins at the second span.
        options = Options { bias: None, keep: None, slopes: None, sink: None, ..options };
        let sinks = [sink.unwrap_or(0.5), f32::NEG_INFINITY];
        let mut states = vec![CANARY; spans * 2 * tokens * row];
        let (first, rest_states) = states.split_at_mut(2 * tokens * row);
        let queries = of_heads(matrix(&q, tokens, dim), 2);
        // SAFETY: pointers and sizes are those of these buffers.
        let status = unsafe {
            let k = of_heads(matrix(&k, 1024, dim), 1);
            let v = of_heads(matrix(&v, 1024, width), 1);
            let (to, n) = (rest_states.as_mut_ptr(), rest_states.len());
            assert!(n >= first.len());
            let c = options.c();
            let mut storage = vec![CANARY; sdpa_cache_floats(dim, width, keys / 64)];
            let mut cache = std::mem::zeroed();
            let (at, size) = (storage.as_mut_ptr(), storage.len());
            assert_eq!(sdpa_cache_init_at(&mut cache, dim, width, at, size, 1024), SDPA_OK);
            let (rest, values) =
                (matrix(rest, keys - 1024, dim), matrix(rest_values, keys - 1024, width));
            assert_eq!(sdpa_cache_append(&mut cache, rest, values), SDPA_OK);
            // The queries of a cache are at its newest positions.
            let offset = options.query_offset - (keys - tokens) as isize;
            let of_cache = sdpa_options { query_offset: offset, ..c };
            let status = call!(
                on,
                sdpa_cache_states_heads,
                sdpa_cache_states_heads_on(&cache, queries, &of_cache, to, n, space, len)
            );
            assert_eq!(status, SDPA_OK);
            let one = sdpa_matrix {
                data: queries.data,
                rows: tokens,
                cols: dim,
                row_stride: 0,
                col_stride: 0,
            };
            let mut alone = vec![CANARY; n / 2];
            let (to, half) = (alone.as_mut_ptr(), n / 2);
            let status = call!(
                on,
                sdpa_cache_states,
                sdpa_cache_states_on(&cache, one, &of_cache, to, half, space, len)
            );
            assert_eq!(status, SDPA_OK);
            for (span, alone) in alone.chunks(tokens * row).enumerate() {
                assert_same_bits(
                    "a head alone",
                    alone,
                    &rest_states[2 * span * tokens * row..][..alone.len()],
                );
            }
            let (to, n) = (first.as_mut_ptr(), first.len());
            call!(
                on,
                sdpa_attention_states_heads,
                sdpa_attention_states_heads_on(queries, k, v, &c, 0, to, n, space, len)
            )
        };
        assert_eq!(status, SDPA_OK);
        let [mut got, mut want] = [0; 2].map(|_| vec![CANARY; 2 * tokens * width]);
        let [mut lse, mut want_lse] = [0; 2].map(|_| vec![CANARY; 2 * tokens]);
        let to = sdpa_heads_mut {
            data: got.as_mut_ptr(),
            heads: 2,
            rows: tokens,
            cols: width,
            head_stride: width,
            row_stride: 2 * width,
            col_stride: 1,
        };
        // SAFETY: pointers and sizes are those of these buffers.
        let status = unsafe {
            let (states, n) = (states.as_ptr(), states.len());
            let (c, sinks, lse) = (options.c(), sinks.as_ptr(), lse.as_mut_ptr());
            call!(on, sdpa_join_heads, sdpa_join_heads_on(states, n, &c, sinks, to, lse))
        };
        assert_eq!(status, SDPA_OK);
        let attention = options.rust(on).sinks(&sinks);
        let q = HeadsRef::stacked(&q, 2, tokens, dim).unwrap();
        let k = HeadsRef::stacked(&k, 1, keys, dim).unwrap();
        let v = HeadsRef::stacked(&v, 1, keys, width).unwrap();
        let to = HeadsMut::interleaved(&mut want, 2, tokens, width).unwrap();
        attention.run_with_log_sum_exp(q, k, v, to, &mut want_lse, &mut workspace).unwrap();
        assert_same_bits("heads, joined", &got, &want);
        assert_same_bits("log-sum-exps, joined", &lse, &want_lse);
    }
}

/// What C calls an element, and its scales.
trait Format: Element {
    const FORMAT: sdpa_format;
    fn room(rows: usize) -> Vec<Self::Scale>;
    fn floats(scales: &[Self::Scale]) -> &[f32];
    fn bits(self) -> u32;
    fn view<'a>(of: HeadsRef<'a, Self>, scales: &'a [Self::Scale]) -> ElementsRef<'a, Self>;
}

macro_rules! format {
    ($($element:ty, $format:ident, $bits:expr;)+) => {
        $(impl Format for $element {
            const FORMAT: sdpa_format = $format;
            fn room(_: usize) -> Vec<()> {
                vec![]
            }
            fn floats(_: &[()]) -> &[f32] {
                &[]
            }
            fn bits(self) -> u32 {
                $bits(self)
            }
            fn view<'a>(of: HeadsRef<'a, Self>, _: &'a [()]) -> ElementsRef<'a, Self> {
                of.into()
            }
        })+
    };
}
format! {
    f32, SDPA_F32, f32::to_bits;
    F16, SDPA_F16, |x: F16| x.to_bits().into();
    Bf16, SDPA_BF16, |x: Bf16| x.to_bits().into();
}

impl Format for I8 {
    const FORMAT: sdpa_format = SDPA_I8;
    fn room(rows: usize) -> Vec<f32> {
        vec![0.0; rows]
    }
    fn floats(scales: &[f32]) -> &[f32] {
        scales
    }
    fn bits(self) -> u32 {
        self.get() as u32
    }
    fn view<'a>(of: HeadsRef<'a, Self>, scales: &'a [f32]) -> ElementsRef<'a, Self> {
        let scales = MatrixRef::new(scales, of.heads(), of.rows()).unwrap();
        ElementsRef::with_scales(of, scales).unwrap()
    }
}

/// Calls a generic function with each pair of elements.
macro_rules! each_pair {
    ($of:ident, $rng:expr) => {
        each_pair!($of, $rng, f32);
        each_pair!($of, $rng, F16);
        each_pair!($of, $rng, Bf16);
        each_pair!($of, $rng, I8);
    };
    ($of:ident, $rng:expr, $keys:ty) => {
        $of::<$keys, f32>($rng);
        $of::<$keys, F16>($rng);
        $of::<$keys, Bf16>($rng);
        $of::<$keys, I8>($rng);
    };
}

/// Rows of elements, and their scales.
struct Elements<E: Element> {
    data: Vec<E>,
    scales: Vec<E::Scale>,
}

impl<E: Format> Elements<E> {
    /// The nearest to random floats: in Rust and in C the same.
    fn random(rng: &mut Rng, rows: usize, cols: usize) -> Self {
        let floats: Vec<f32> = (0..rows * cols).map(|_| rng.between(-3.0, 3.0)).collect();
        let mut data = vec![E::ZERO; rows * cols];
        let mut scales = E::room(rows);
        let view = MatrixRef::new(&floats, rows, cols).unwrap();
        narrow(view, &mut data, &mut scales).unwrap();
        let (mut got, mut got_scales) = (vec![E::ZERO; rows * cols], vec![CANARY; rows]);
        let from = sdpa_matrix { data: floats.as_ptr(), rows, cols, row_stride: 0, col_stride: 0 };
        let (to, to_scales) = (got.as_mut_ptr().cast(), got_scales.as_mut_ptr());
        // SAFETY: pointers and sizes are those of these buffers.
        assert_eq!(unsafe { sdpa_narrow(from, E::FORMAT, to, to_scales) }, SDPA_OK);
        assert!(got.iter().zip(&data).all(|(got, want)| got.bits() == want.bits()));
        let scaled = E::floats(&scales).len();
        assert_same_bits("scales", &got_scales[..scaled], E::floats(&scales));
        assert!(got_scales[scaled..].iter().all(|x| x.to_bits() == CANARY.to_bits()));
        Self { data, scales }
    }

    /// One head of contiguous rows.
    fn c(&self, rows: usize, cols: usize) -> sdpa_array {
        sdpa_array {
            data: self.data.as_ptr().cast(),
            format: E::FORMAT,
            heads: 0,
            rows,
            cols,
            head_stride: 0,
            row_stride: 0,
            col_stride: 0,
            scales: E::floats(&self.scales).as_ptr(),
            scale_head_stride: 0,
            scale_row_stride: 0,
        }
    }
}

/// Weights of every format, with the scales of their rows, stored as outputs x inputs.
#[test]
fn projections_of_elements() {
    fn of<E: Format>(rng: &mut Rng) {
        let on = On::any(rng);
        let [tokens, inputs, outputs] = [20, 40, 40].map(|end| 1 + rng.below(end));
        let x = GuardedMatrix::operand(rng, tokens, inputs);
        let out = GuardedMatrix::output(rng, tokens, outputs);
        let weights = Elements::<E>::random(rng, outputs, inputs);
        let w = sdpa_array { row_stride: 1, col_stride: inputs, ..weights.c(inputs, outputs) };
        let bias = rng.one_in(2).then(|| vec![rng.between(-1.0, 1.0); outputs]);
        let at = bias.as_ref().map_or(ptr::null(), |bias| bias.as_ptr());
        // SAFETY: pointers and sizes are those of these buffers.
        let project = |to| unsafe {
            call!(on, sdpa_project_elements, sdpa_project_elements_on(x.c(), w, at, to))
        };
        agree("project_elements", &out, project, |to| {
            let w = MatrixRef::new(&weights.data, outputs, inputs).unwrap().t();
            let bias = bias.as_deref();
            on.backend.project_elements(x.view(), w, &weights.scales, bias, to)
        });
    }
    let mut rng = Rng::new(508);
    for _ in 0..50 {
        of::<f32>(&mut rng);
        of::<F16>(&mut rng);
        of::<Bf16>(&mut rng);
        of::<I8>(&mut rng);
    }
}

/// Query heads `[heads][tokens][dim]` for both languages.
struct Queries {
    data: Vec<f32>,
    heads: usize,
    tokens: usize,
    dim: usize,
}

impl Queries {
    fn random(rng: &mut Rng, heads: usize, tokens: usize, dim: usize) -> Self {
        let data = (0..heads * tokens * dim).map(|_| rng.between(-2.0, 2.0)).collect();
        Self { data, heads, tokens, dim }
    }

    fn c(&self) -> sdpa_heads {
        let &Self { ref data, heads, tokens: rows, dim: cols } = self;
        let [head_stride, row_stride, col_stride] = [0; 3];
        let data = data.as_ptr();
        sdpa_heads { data, heads, rows, cols, head_stride, row_stride, col_stride }
    }

    fn view(&self) -> HeadsRef<'_> {
        HeadsRef::stacked(&self.data, self.heads, self.tokens, self.dim).unwrap()
    }
}

/// Contiguous rows.
fn matrix_mut(data: *mut f32, rows: usize, cols: usize) -> sdpa_matrix_mut {
    sdpa_matrix_mut { data, rows, cols, row_stride: 0, col_stride: 0 }
}

/// Contiguous heads.
fn heads_mut(to: &mut [f32], heads: usize, rows: usize, cols: usize) -> sdpa_heads_mut {
    let data = to.as_mut_ptr();
    let [head_stride, row_stride, col_stride] = [0; 3];
    sdpa_heads_mut { data, heads, rows, cols, head_stride, row_stride, col_stride }
}

/// Arrays of every pair of formats: the output, and the states of their spans.
#[test]
fn attention_of_elements() {
    fn of<K: Format, V: Format>(rng: &mut Rng) {
        let on = On::any(rng);
        let (key_heads, group, keys) = (1 + rng.below(2), 1 + rng.below(3), rng.below(200));
        let (heads, tokens) = (key_heads * group, 1 + rng.below(6));
        let (dim, width) = (1 + rng.below(20), 1 + rng.below(20));
        let queries = Queries::random(rng, heads, tokens, dim);
        let k = Elements::<K>::random(rng, key_heads * keys, dim);
        let v = Elements::<V>::random(rng, key_heads * keys, width);
        // Values lie as [keys][heads][width], and so do their scales.
        let k_c = sdpa_array { heads: key_heads, ..k.c(keys, dim) };
        let v_c = sdpa_array {
            heads: key_heads,
            head_stride: width,
            row_stride: key_heads * width,
            col_stride: 1,
            scale_head_stride: 1,
            scale_row_stride: key_heads,
            ..v.c(keys, width)
        };
        let k = K::view(HeadsRef::stacked(&k.data, key_heads, keys, dim).unwrap(), &k.scales);
        let by_head: Vec<V::Scale> = (0..key_heads)
            .flat_map(|head| v.scales.iter().copied().skip(head).step_by(key_heads))
            .collect();
        let v = V::view(HeadsRef::interleaved(&v.data, key_heads, keys, width).unwrap(), &by_head);

        let mut options = Options::any(rng, heads, keys, tokens);
        options.sink = None;
        let sinks: Vec<f32> = (0..heads).map(|_| rng.between(-2.0, 2.0)).collect();
        let attention = options.rust(on).sinks(&sinks);
        let [mut got, mut want] = [0; 2].map(|_| vec![CANARY; heads * tokens * width]);
        let [mut lse, mut want_lse] = [0; 2].map(|_| vec![CANARY; heads * tokens]);
        let len = sdpa_elements_workspace(dim, width);
        assert_eq!(len, Attention::elements_workspace(dim, width));
        let mut workspace = vec![f32::NAN; len];
        let space = workspace.as_mut_ptr();
        // SAFETY: pointers and sizes are those of these buffers.
        let status = unsafe {
            let (q, out) = (queries.c(), heads_mut(&mut got, heads, tokens, width));
            let (c, at, to) = (options.c(), sinks.as_ptr(), lse.as_mut_ptr());
            call!(
                on,
                sdpa_attention_elements,
                sdpa_attention_elements_on(q, k_c, v_c, &c, at, out, to, space, len)
            )
        };
        assert_eq!(status, SDPA_OK);
        let to = HeadsMut::stacked(&mut want, heads, tokens, width).unwrap();
        let floats = &mut vec![0.0; len];
        attention.run_elements(queries.view(), k, v, to, Some(&mut want_lse), floats).unwrap();
        assert_same_bits("elements", &got, &want);
        assert_same_bits("log-sum-exps", &lse, &want_lse);

        let cells = keys * tokens;
        let [mut grids, mut want_grids] = [0; 2].map(|_| vec![CANARY; heads * cells]);
        let [mut mean, mut want_mean] = [0; 2].map(|_| vec![CANARY; cells]);
        let mut room = vec![f32::NAN; KEY_BLOCK * dim + cells];
        let (at, n) = (room.as_mut_ptr(), room.len());
        // SAFETY: pointers and sizes are those of these buffers.
        let statuses = unsafe {
            let (q, out) = (queries.c(), heads_mut(&mut grids, heads, keys, tokens));
            let (c, sinks, mean) = (options.c(), sinks.as_ptr(), mean.as_mut_ptr());
            let mean = matrix_mut(mean, keys, tokens);
            [
                call!(
                    on,
                    sdpa_pattern_elements,
                    sdpa_pattern_elements_on(q, k_c, &c, sinks, out, at, n)
                ),
                call!(
                    on,
                    sdpa_pattern_mean_elements,
                    sdpa_pattern_mean_elements_on(q, k_c, &c, sinks, mean, at, n)
                ),
            ]
        };
        assert_eq!(statuses, [SDPA_OK; 2]);
        let to = HeadsMut::stacked(&mut want_grids, heads, keys, tokens).unwrap();
        attention.pattern_elements(queries.view(), k, to, &mut room).unwrap();
        let to = MatrixMut::new(&mut want_mean, keys, tokens).unwrap();
        attention.mean_pattern_elements(queries.view(), k, to, &mut room).unwrap();
        assert_same_bits("pattern of elements", &grids, &want_grids);
        assert_same_bits("mean pattern of elements", &mean, &want_mean);

        let (cu_seqlens, lengths) = sequences(rng, tokens, keys);
        // SAFETY: pointers and sizes are those of these buffers.
        let status = unsafe {
            let (q, out) = (queries.c(), heads_mut(&mut got, heads, tokens, width));
            let (c, at, to, n) = (options.c(), sinks.as_ptr(), lse.as_mut_ptr(), lengths.len());
            let [of_q, of_k] = cu_seqlens.each_ref().map(|of| of.as_ptr());
            call!(
                on,
                sdpa_attention_packed_elements,
                sdpa_attention_packed_elements_on(
                    q, k_c, v_c, of_q, of_k, n, &c, at, out, to, space, len
                )
            )
        };
        assert_eq!(status, SDPA_OK);
        let to = HeadsMut::stacked(&mut want, heads, tokens, width).unwrap();
        let logs = Some(&mut want_lse[..]);
        attention.run_elements_packed(queries.view(), k, v, &lengths, to, logs, floats).unwrap();
        assert_same_bits("sequences of elements", &got, &want);
        assert_same_bits("log-sum-exps of sequences", &lse, &want_lse);

        let floats_of_states =
            keys.div_ceil(1024) * heads * tokens * Attention::state_floats(width);
        let [mut got, mut want] = [0; 2].map(|_| vec![CANARY; floats_of_states]);
        // SAFETY: pointers and sizes are those of these buffers.
        let status = unsafe {
            let (q, c, to, n) = (queries.c(), options.c(), got.as_mut_ptr(), got.len());
            call!(
                on,
                sdpa_attention_states_elements,
                sdpa_attention_states_elements_on(q, k_c, v_c, &c, 2048, to, n, space, len)
            )
        };
        assert_eq!(status, SDPA_OK);
        let attention = options.rust(on);
        attention.run_elements_spans(queries.view(), k, v, 2048, &mut want, floats).unwrap();
        assert_same_bits("states of elements", &got, &want);
    }
    let mut rng = Rng::new(509);
    for _ in 0..8 {
        each_pair!(of, &mut rng);
    }
}

/// Caches of every pair of formats, chunk after chunk, with slides and truncations in between.
#[test]
fn caches_of_elements() {
    fn of<K: Format, V: Format>(rng: &mut Rng) {
        let on = On::any(rng);
        let [dim, width, blocks] = [20, 20, 3].map(|end| 1 + rng.below(end));
        let size = sdpa_cache_floats_of(dim, width, blocks, K::FORMAT, V::FORMAT);
        let mut storage = vec![CANARY; size + 1];
        let (mut keys, mut values) =
            (vec![K::ZERO; dim * KEY_BLOCK * blocks], vec![V::ZERO; width * KEY_BLOCK * blocks]);
        let (mut key_scales, mut value_scales) =
            (K::room(KEY_BLOCK * blocks), V::room(KEY_BLOCK * blocks));
        let start = rng.below(3000) as u64;
        let mut positions = CachePositions::new(start, start).unwrap();
        let scales = (&mut key_scales[..], &mut value_scales[..]);
        let mut want = KvCacheMut::<K, V>::with_scales(
            &mut keys,
            &mut values,
            scales,
            [dim, width],
            &mut positions,
        )
        .unwrap();
        // SAFETY: zeros are a cache.
        let mut got: sdpa_cache = unsafe { std::mem::zeroed() };
        // SAFETY: pointers and sizes are those of this storage.
        let status = unsafe {
            let (at, len) = (storage.as_mut_ptr(), size);
            sdpa_cache_init_elements(&mut got, dim, width, K::FORMAT, V::FORMAT, at, len, start)
        };
        assert_eq!((status, got.blocks), (SDPA_OK, blocks));
        let len = sdpa_elements_workspace(dim, width);
        let mut workspace = vec![0.0; len];
        let space = workspace.as_mut_ptr();
        for _ in 0..5 {
            let n = rng.below(50);
            let [new_keys, new_values] = [dim, width]
                .map(|cols| (0..n * cols).map(|_| rng.between(-3.0, 3.0)).collect::<Vec<f32>>());
            let matrix = |data: &[f32], cols| sdpa_matrix {
                data: data.as_ptr(),
                rows: n,
                cols,
                row_stride: 0,
                col_stride: 0,
            };
            // SAFETY: pointers and sizes are those of this cache.
            let status = unsafe {
                let (keys, values) = (matrix(&new_keys, dim), matrix(&new_values, width));
                sdpa_cache_append_elements(&mut got, keys, values)
            };
            let result = want.append(
                MatrixRef::new(&new_keys, n, dim).unwrap(),
                MatrixRef::new(&new_values, n, width).unwrap(),
            );
            assert_eq!(status == SDPA_OK, result.is_ok(), "{status}");

            let (heads, tokens) = (1 + rng.below(3), 1 + rng.below(4));
            let queries = Queries::random(rng, heads, tokens, dim);
            let mut options = Options::any(rng, heads, want.len(), tokens);
            options.sink = None;
            let sinks: Vec<f32> = (0..heads).map(|_| rng.between(-2.0, 2.0)).collect();
            let [mut out, mut want_out] = [0; 2].map(|_| vec![CANARY; heads * tokens * width]);
            let [mut lse, mut want_lse] = [0; 2].map(|_| vec![CANARY; heads * tokens]);
            // SAFETY: pointers and sizes are those of this cache and these buffers.
            let status = unsafe {
                let (q, to) = (queries.c(), heads_mut(&mut out, heads, tokens, width));
                let (c, at, lse) = (options.c(), sinks.as_ptr(), lse.as_mut_ptr());
                call!(
                    on,
                    sdpa_cache_attend_elements,
                    sdpa_cache_attend_elements_on(&got, q, &c, at, to, lse, space, len)
                )
            };
            assert_eq!(status, SDPA_OK);
            let view = want.view();
            let attention = options.rust(on).sinks(&sinks);
            let to = HeadsMut::stacked(&mut want_out, heads, tokens, width).unwrap();
            let floats = &mut vec![0.0; len];
            view.attend_with_log_sum_exp(&attention, queries.view(), to, &mut want_lse, floats)
                .unwrap();
            assert_same_bits("from a cache of elements", &out, &want_out);
            assert_same_bits("log-sum-exps", &lse, &want_lse);

            let cells = view.len() * tokens;
            let [mut grids, mut want_grids] = [0; 2].map(|_| vec![CANARY; heads * cells]);
            let [mut mean, mut want_mean] = [0; 2].map(|_| vec![CANARY; cells]);
            let mut room = vec![f32::NAN; KEY_BLOCK * dim + cells];
            let (at, n) = (room.as_mut_ptr(), room.len());
            // SAFETY: pointers and sizes are those of this cache and these buffers.
            let statuses = unsafe {
                let (q, out) = (queries.c(), heads_mut(&mut grids, heads, view.len(), tokens));
                let (c, sinks, mean) = (options.c(), sinks.as_ptr(), mean.as_mut_ptr());
                let mean = matrix_mut(mean, view.len(), tokens);
                [
                    call!(
                        on,
                        sdpa_cache_pattern_heads,
                        sdpa_cache_pattern_heads_on(&got, q, &c, sinks, out, at, n)
                    ),
                    call!(
                        on,
                        sdpa_cache_pattern_mean,
                        sdpa_cache_pattern_mean_on(&got, q, &c, sinks, mean, at, n)
                    ),
                ]
            };
            assert_eq!(statuses, [SDPA_OK; 2]);
            let to = HeadsMut::stacked(&mut want_grids, heads, view.len(), tokens).unwrap();
            view.pattern(&attention, queries.view(), to, &mut room).unwrap();
            let to = MatrixMut::new(&mut want_mean, view.len(), tokens).unwrap();
            view.mean_pattern(&attention, queries.view(), to, &mut room).unwrap();
            assert_same_bits("pattern from a cache", &grids, &want_grids);
            assert_same_bits("mean pattern from a cache", &mean, &want_mean);

            let n = view.spans() * heads * tokens * Attention::state_floats(width);
            let [mut states, mut want_states] = [0; 2].map(|_| vec![CANARY; n]);
            // SAFETY: pointers and sizes are those of this cache and these buffers.
            let status = unsafe {
                let (q, c, to) = (queries.c(), options.c(), states.as_mut_ptr());
                call!(
                    on,
                    sdpa_cache_states_elements,
                    sdpa_cache_states_elements_on(&got, q, &c, to, n, space, len)
                )
            };
            assert_eq!(status, SDPA_OK);
            let attention = options.rust(on);
            view.run_spans(&attention, queries.view(), &mut want_states, floats).unwrap();
            assert_same_bits("states from a cache of elements", &states, &want_states);

            let keep = rng.below(want.len() + 1);
            // SAFETY: pointers and sizes are those of this cache.
            assert_eq!(unsafe { sdpa_cache_slide(&mut got, keep) }, SDPA_OK);
            want.slide(keep);
            let rest = rng.below(want.len() + 1);
            // SAFETY: likewise.
            assert_eq!(unsafe { sdpa_cache_truncate(&mut got, rest) }, SDPA_OK);
            want.truncate(rest).unwrap();
            assert_eq!((got.appended, got.dropped), (want.appended(), want.dropped()));
        }
        assert_eq!(storage[size].to_bits(), CANARY.to_bits());
    }
    let mut rng = Rng::new(510);
    for _ in 0..6 {
        each_pair!(of, &mut rng);
    }
}
