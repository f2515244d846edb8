//! The C functions against the crate's: the same bits, and nothing written beside them, over
//! random calls of every kind of value and layout.

#[expect(unused_macros, reason = "those of tests of each back end")]
#[path = "../../tests/common/mod.rs"]
mod common;

use std::ptr;

use common::{
    assert_same_bits,
    cases::{Kind, Layout, Rng, length, size},
    grid::CANARY,
};
use sdpa::{Attention, HeadsMut, HeadsRef, MatrixMut, MatrixRef};
use sdpa_capi::*;

/// A matrix among canaries, for both languages.
#[derive(Clone)]
struct Held {
    layout: Layout,
    buffer: Vec<f32>,
}

impl Held {
    fn input(rng: &mut Rng, rows: usize, cols: usize) -> Self {
        let mut layout = Layout::of_input(rng, rows, cols);
        if (layout.row_stride, layout.col_stride) == (0, 0) {
            layout.col_stride = 1; // in C it would be dense
        }
        Self { layout, buffer: vec![CANARY; layout.len + cols] }.filled(rng)
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

/// Runs both into canaries of one layout: the same floats everywhere.
fn agree(
    what: &str,
    out: &Held,
    c: impl FnOnce(sdpa_matrix_mut) -> sdpa_status,
    rust: impl FnOnce(MatrixMut<'_>) -> Result<(), sdpa::Error>,
) {
    let (mut got, mut want) = (out.clone(), out.clone());
    let status = c(got.c_mut());
    assert_eq!(status == SDPA_OK, rust(want.view_mut()).is_ok(), "{what}: {status}");
    assert_same_bits(&format!("{what} to {:?}", out.layout), &got.buffer, &want.buffer);
}

#[test]
fn of_slices() {
    let mut rng = Rng::new(501);
    for _ in 0..200 {
        let n = length(&mut rng);
        let [a, b] = [0; 2].map(|_| {
            let mut values = vec![0.0; n];
            Kind::any(&mut rng).fill(&mut rng, &mut values);
            values
        });
        let mut dot = CANARY;
        // SAFETY: of these slices.
        assert_eq!(unsafe { sdpa_dot(a.as_ptr(), b.as_ptr(), n, &mut dot) }, SDPA_OK);
        assert_same_bits("dot", &[dot], &[sdpa::dot(&a, &b).unwrap()]);
        let [mut got, mut want] = [0; 2].map(|_| vec![CANARY; n]);
        // SAFETY: of these slices.
        assert_eq!(unsafe { sdpa_softmax(a.as_ptr(), n, got.as_mut_ptr()) }, SDPA_OK);
        sdpa::softmax(&a, &mut want).unwrap();
        assert_same_bits("softmax", &got, &want);
        let mut x = a.clone();
        // SAFETY: of this slice alone.
        assert_eq!(unsafe { sdpa_softmax(x.as_ptr(), n, x.as_mut_ptr()) }, SDPA_OK);
        assert_same_bits("softmax in place", &x, &want);
    }
}

#[test]
fn of_matrices() {
    let mut rng = Rng::new(502);
    for _ in 0..200 {
        let [rows, cols, depth] = [0; 3].map(|_| size(&mut rng));
        let [grid, left, right] = [(rows, cols), (rows, depth), (depth, cols)]
            .map(|(rows, cols)| Held::input(&mut rng, rows, cols));
        let out = Held::output(&mut rng, rows, cols);
        // SAFETY: of these buffers.
        let rows_c = |to| unsafe { sdpa_softmax_rows(grid.c(), to) };
        agree("softmax_rows", &out, rows_c, |to| sdpa::softmax_rows(grid.view(), to));
        // SAFETY: of these buffers.
        let columns_c = |to| unsafe { sdpa_softmax_columns(grid.c(), to) };
        agree("softmax_columns", &out, columns_c, |to| sdpa::softmax_columns(grid.view(), to));
        let in_place = Held::output(&mut rng, rows, cols).filled(&mut rng);
        let as_input = |to: sdpa_matrix_mut| {
            let sdpa_matrix_mut { data, rows, cols, row_stride, col_stride } = to;
            sdpa_matrix { data, rows, cols, row_stride, col_stride }
        };
        // SAFETY: of these buffers.
        let rows_c = |to| unsafe { sdpa_softmax_rows(as_input(to), to) };
        agree("rows in place", &in_place, rows_c, |to| {
            sdpa::softmax_rows_in_place(to);
            Ok(())
        });
        // SAFETY: of these buffers.
        let columns_c = |to| unsafe { sdpa_softmax_columns(as_input(to), to) };
        agree("columns in place", &in_place, columns_c, |to| {
            sdpa::softmax_columns_in_place(to);
            Ok(())
        });

        let bias = rng.one_in(2).then(|| vec![rng.between(-1.0, 1.0); cols]);
        let at = bias.as_ref().map_or(ptr::null(), |bias| bias.as_ptr());
        // SAFETY: of these buffers.
        let project = |to| unsafe { sdpa_project(left.c(), right.c(), at, to) };
        agree("project", &out, project, |to| {
            // A pointer to no floats is NULL or not: no bias is what C has.
            let bias = bias.as_deref().filter(|_| !at.is_null());
            sdpa::project(left.view(), right.view(), bias, to)
        });
        let queries = Held::input(&mut rng, cols, depth);
        let scale = rng.one_in(2).then(|| rng.between(-2.0, 2.0));
        // SAFETY: of these buffers.
        let scores = |to| unsafe { sdpa_scores(left.c(), queries.c(), scale.unwrap_or(0.0), to) };
        agree("scores", &out, scores, |to| sdpa::scores(left.view(), queries.view(), scale, to));
        let pattern = Held::input(&mut rng, depth, rows);
        // SAFETY: of these buffers.
        let sum = |to| unsafe { sdpa_weighted_sum(pattern.c(), right.c(), to) };
        agree("weighted_sum", &out, sum, |to| sdpa::weighted_sum(pattern.view(), right.view(), to));
    }
}

/// Options for both languages, of the same bias, keep and sink.
struct Options {
    bias: Option<Held>,
    keep: Option<Vec<u8>>,
    sink: Option<f32>,
    flags: u32,
    scale: f32,
    softcap: f32,
    query_offset: isize,
    window: [usize; 2],
    shape: [usize; 2],
}

impl Options {
    fn any(rng: &mut Rng, keys: usize, queries: usize) -> Self {
        Self {
            bias: rng.one_in(3).then(|| Held::input(rng, keys, queries)),
            keep: rng.one_in(3).then(|| (0..keys * queries).map(|_| rng.below(3) as u8).collect()),
            sink: rng.one_in(3).then(|| rng.between(-3.0, 3.0)),
            flags: rng.below(4) as u32,
            scale: if rng.one_in(2) { 0.0 } else { rng.between(-1.0, 1.0) },
            softcap: if rng.one_in(3) { rng.between(0.5, 20.0) } else { 0.0 },
            query_offset: rng.below(200) as isize - 100,
            window: [0; 2].map(|_| if rng.one_in(8) { usize::MAX } else { rng.below(100) }),
            shape: [keys, queries],
        }
    }

    fn c(&self) -> sdpa_options {
        let none =
            sdpa_matrix { data: ptr::null(), rows: 0, cols: 0, row_stride: 0, col_stride: 0 };
        sdpa_options {
            flags: self.flags,
            scale: self.scale,
            softcap: self.softcap,
            query_offset: self.query_offset,
            window_left: self.window[0],
            window_right: self.window[1],
            bias: self.bias.as_ref().map_or(none, Held::c),
            keep: self.keep.as_ref().map_or(ptr::null(), |keep| keep.as_ptr()),
            keep_row_stride: 0,
            keep_col_stride: 0,
            sink: self.sink.as_ref().map_or(ptr::null(), ptr::from_ref),
        }
    }

    fn rust(&self) -> Attention<'_> {
        let mut attention = Attention::new().query_offset(self.query_offset);
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
            attention = attention.bias(bias.view());
        }
        if let Some(keep) = &self.keep {
            let [keys, queries] = self.shape;
            attention = attention.keep(MatrixRef::new(keep, keys, queries).unwrap());
        }
        self.sink.map_or(attention, |sink| attention.sink(sink))
    }
}

#[test]
fn of_attention() {
    let mut rng = Rng::new(503);
    for _ in 0..150 {
        let [keys, tokens, dim, width] = [0; 4].map(|_| size(&mut rng));
        let [q, k, v] = [(tokens, dim), (keys, dim), (keys, width)]
            .map(|(rows, cols)| Held::input(&mut rng, rows, cols));
        let options = Options::any(&mut rng, keys, tokens);
        let (c, rust) = (options.c(), options.rust());
        let grid = Held::output(&mut rng, keys, tokens);
        // SAFETY: of these buffers.
        let pattern = |to| unsafe { sdpa_pattern(q.c(), k.c(), &c, to) };
        agree("pattern", &grid, pattern, |to| rust.pattern(q.view(), k.view(), to));

        let out = Held::output(&mut rng, tokens, width);
        let len = sdpa_attention_workspace(dim, width);
        let (mut workspace, mut rust_workspace) = (vec![f32::NAN; len], vec![0.0; len]);
        let [mut lse, mut want_lse] = [0; 2].map(|_| vec![CANARY; tokens]);
        let space = workspace.as_mut_ptr();
        // SAFETY: of these buffers.
        let attention = |to| unsafe {
            sdpa_attention(q.c(), k.c(), v.c(), &c, to, lse.as_mut_ptr(), space, len)
        };
        agree("attention", &out, attention, |to| {
            let [q, k, v] = [q.view(), k.view(), v.view()];
            rust.run_with_log_sum_exp(q, k, v, to, &mut want_lse, &mut rust_workspace)
        });
        assert_same_bits("log-sum-exp", &lse, &want_lse);

        let (first, other) = (out.clone().filled(&mut rng), Held::input(&mut rng, tokens, width));
        let mut want_lse = lse.clone();
        let other_lse: Vec<f32> = (0..tokens).map(|_| rng.between(-9.0, 9.0)).collect();
        let at = lse.as_mut_ptr();
        // SAFETY: of these buffers.
        let merge = |to| unsafe { sdpa_merge(to, at, other.c(), other_lse.as_ptr()) };
        agree("merge", &first, merge, |to| {
            sdpa::merge(to, &mut want_lse, other.view(), &other_lse)
        });
        assert_same_bits("merged log-sum-exp", &lse, &want_lse);
    }
}

#[test]
fn of_many_heads() {
    let mut rng = Rng::new(504);
    for _ in 0..100 {
        let (key_heads, group) = (1 + rng.below(3), 1 + rng.below(3));
        let (heads, keys, tokens) = (key_heads * group, rng.below(80), 1 + rng.below(20));
        let (dim, width) = (1 + rng.below(20), 1 + rng.below(20));
        let [q, k, v] = [heads * tokens * dim, key_heads * keys * dim, key_heads * keys * width]
            .map(|n| {
                let mut values = vec![0.0; n];
                Kind::any(&mut rng).fill(&mut rng, &mut values);
                values
            });
        let mut options = Options::any(&mut rng, keys, tokens);
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
        // SAFETY: of these buffers.
        let status = unsafe {
            sdpa_attention_heads(
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
        };
        assert_eq!(status, SDPA_OK);
        let attention = options.rust().sinks(&sinks);
        let q = HeadsRef::stacked(&q, heads, tokens, dim).unwrap();
        let k = HeadsRef::interleaved(&k, keys, key_heads, dim).unwrap();
        let v = HeadsRef::stacked(&v, key_heads, keys, width).unwrap();
        let to = HeadsMut::interleaved(&mut want, tokens, heads, width).unwrap();
        attention.run_with_log_sum_exp(q, k, v, to, &mut want_lse, &mut workspace).unwrap();
        assert_same_bits("heads", &got, &want);
        assert_same_bits("log-sum-exps", &lse, &want_lse);
    }
}
