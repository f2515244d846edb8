//! What a call of the C library takes beyond the same call in Rust. The views of the one and the structures of the other
//! are made before: what a call itself costs is timed.

#![allow(unsafe_code, reason = "calls the functions of the header")]

use std::{hint::black_box, ptr};

use sdpa::{Attention, Backend, MatrixMut, MatrixRef};
use sdpa_capi::{
    SDPA_CAUSAL, SDPA_OK, SDPA_WINDOW, sdpa_attention, sdpa_dot, sdpa_matrix, sdpa_matrix_mut,
    sdpa_options, sdpa_scores, sdpa_softmax_columns, sdpa_softmax_rows,
};

use crate::{
    limits::Aligned,
    measure::{Floor, Limit, yardstick_and_call},
};

/// The functions without a handle run on the best back end: there are no floors for the others.
pub(crate) fn floors(backend: Backend) -> Vec<Floor<'static>> {
    if backend != Backend::best() {
        return vec![];
    }
    let floor = |call: &str, limit, nanoseconds: fn(Backend) -> f64| Floor {
        what: format!("C beyond Rust, {call}: ns"),
        limit: Limit::AtMost(limit),
        ratio: Box::new(move || nanoseconds(backend)),
    };
    vec![
        floor("dot of 64", 6.0, dot),
        floor("scores 8 x 8 x 64", 8.0, scores),
        floor("row softmax 8 x 8", 14.0, softmax_rows),
        floor("column softmax 8 x 8", 8.0, softmax_columns),
        floor("attention 8 x 8 x 64", 40.0, attention_by_default),
        // The aim is 40: each mask is tested for overlap with three outputs.
        floor("attention 8 x 8 x 64, every option", 65.0, attention_with_options),
    ]
}

/// The difference of two calls, in nanoseconds.
fn beyond(rust: &mut dyn FnMut(), c: &mut dyn FnMut()) -> f64 {
    let [rust, c] = yardstick_and_call(rust, c);
    1e9 * (c - rust)
}

fn dot(backend: Backend) -> f64 {
    let (a, b) = (Aligned::new(64, 1.0), Aligned::new(64, 1.0));
    let (a, b, mut out) = (a.floats(), b.floats(), 0.0);
    beyond(&mut || _ = black_box(backend.dot(black_box(a), black_box(b))), &mut || {
        let (a, b) = (black_box(a), black_box(b));
        // SAFETY: arrays of that length, and one float.
        let status = unsafe { sdpa_dot(a.as_ptr(), b.as_ptr(), a.len(), black_box(&mut out)) };
        assert_eq!(status, SDPA_OK);
    })
}

fn scores(backend: Backend) -> f64 {
    let [keys, queries] = [(); 2].map(|()| Aligned::new(8 * 64, 1.0));
    let [mut rust_out, mut c_out] = [(); 2].map(|()| Aligned::new(8 * 8, 0.0));
    let rust = [&keys, &queries].map(|x| view(x, 8, 64));
    let mut rust_out = view_mut(&mut rust_out, 8, 8);
    let c = [&keys, &queries].map(|x| matrix(x, 8, 64));
    let c_out = matrix_mut(&mut c_out, 8, 8);
    beyond(
        &mut || {
            let ([keys, queries], out) = (*black_box(&rust), black_box(&mut rust_out).view_mut());
            backend.scores(keys, queries, None, out).expect("sizes agree");
        },
        &mut || {
            let ([keys, queries], out) = (black_box(&c), black_box(&c_out));
            // SAFETY: the memory lives until the end, and only this call uses the output.
            assert_eq!(unsafe { sdpa_scores(*keys, *queries, 0.0, *out) }, SDPA_OK);
        },
    )
}

fn softmax_rows(backend: Backend) -> f64 {
    softmax(
        |x, out| backend.softmax_rows(x, out).expect("sizes agree"),
        // SAFETY: see `softmax`.
        |x, out| assert_eq!(unsafe { sdpa_softmax_rows(*x, *out) }, SDPA_OK),
    )
}

fn softmax_columns(backend: Backend) -> f64 {
    softmax(
        |x, out| backend.softmax_columns(x, out).expect("sizes agree"),
        // SAFETY: see `softmax`.
        |x, out| assert_eq!(unsafe { sdpa_softmax_columns(*x, *out) }, SDPA_OK),
    )
}

/// The memory of the matrices lives until the end, and only `of_c` uses its output.
fn softmax(
    of_rust: impl Fn(MatrixRef<'_>, MatrixMut<'_>),
    of_c: impl Fn(&sdpa_matrix, &sdpa_matrix_mut),
) -> f64 {
    let x = Aligned::new(8 * 8, 10.0);
    let [mut rust_out, mut c_out] = [(); 2].map(|()| Aligned::new(8 * 8, 0.0));
    let (rust, mut rust_out) = (view(&x, 8, 8), view_mut(&mut rust_out, 8, 8));
    let (c, c_out) = (matrix(&x, 8, 8), matrix_mut(&mut c_out, 8, 8));
    let mut call_rust = || of_rust(*black_box(&rust), black_box(&mut rust_out).view_mut());
    beyond(&mut call_rust, &mut || of_c(black_box(&c), black_box(&c_out)))
}

fn attention_by_default(backend: Backend) -> f64 {
    attention(Attention::new().on(backend), ptr::null())
}

fn attention_with_options(backend: Backend) -> f64 {
    let (bias, keep, sink) = (Aligned::new(8 * 8, 1.0), [1; 8 * 8], 0.5);
    let rust = Attention::new()
        .on(backend)
        .window(6, 0)
        .query_offset(1)
        .scale(0.1)
        .softcap(20.0)
        .bias(view(&bias, 8, 8))
        .keep(MatrixRef::new(&keep, 8, 8).expect("shape"))
        .sink(sink);
    let c = sdpa_options {
        flags: SDPA_CAUSAL | SDPA_WINDOW,
        scale: 0.1,
        softcap: 20.0,
        query_offset: 1,
        window_left: 6,
        window_right: 0,
        bias: matrix(&bias, 8, 8),
        keep: keep.as_ptr(),
        keep_row_stride: 0,
        keep_col_stride: 0,
        sink: &sink,
        bias_head_stride: 0,
        keep_head_stride: 0,
        slopes: std::ptr::null(),
    };
    attention(rust, &c)
}

/// `options` and what they point to live until the end.
fn attention(attention: Attention<'_>, options: *const sdpa_options) -> f64 {
    let [queries, keys, values] = [(); 3].map(|()| Aligned::new(8 * 64, 1.0));
    let [mut rust_out, mut c_out] = [(); 2].map(|()| Aligned::new(8 * 64, 0.0));
    let [mut rust_workspace, mut c_workspace] =
        [(); 2].map(|()| Aligned::new(Attention::workspace(64, 64), 0.0));
    let rust = [&queries, &keys, &values].map(|x| view(x, 8, 64));
    let mut rust_out = view_mut(&mut rust_out, 8, 64);
    let c = [&queries, &keys, &values].map(|x| matrix(x, 8, 64));
    let c_out = matrix_mut(&mut c_out, 8, 64);
    let c_workspace = c_workspace.floats_mut();
    let (c_workspace, len) = (c_workspace.as_mut_ptr(), c_workspace.len());
    beyond(
        &mut || {
            let ([queries, keys, values], out) =
                (*black_box(&rust), black_box(&mut rust_out).view_mut());
            let workspace = rust_workspace.floats_mut();
            attention.run(queries, keys, values, out, workspace).expect("sizes agree");
        },
        &mut || {
            let ([queries, keys, values], out) = (black_box(&c), black_box(&c_out));
            let (options, log_sum_exp) = (black_box(options), ptr::null_mut());
            // SAFETY: the memory lives until the end, and only this call uses the output and the workspace.
            let status = unsafe {
                sdpa_attention(
                    *queries,
                    *keys,
                    *values,
                    options,
                    *out,
                    log_sum_exp,
                    c_workspace,
                    len,
                )
            };
            assert_eq!(status, SDPA_OK);
        },
    )
}

fn view(x: &Aligned, rows: usize, cols: usize) -> MatrixRef<'_> {
    MatrixRef::new(x.floats(), rows, cols).expect("shape")
}

fn view_mut(x: &mut Aligned, rows: usize, cols: usize) -> MatrixMut<'_> {
    MatrixMut::new(x.floats_mut(), rows, cols).expect("shape")
}

fn matrix(x: &Aligned, rows: usize, cols: usize) -> sdpa_matrix {
    sdpa_matrix { data: x.floats().as_ptr(), rows, cols, row_stride: 0, col_stride: 0 }
}

fn matrix_mut(x: &mut Aligned, rows: usize, cols: usize) -> sdpa_matrix_mut {
    sdpa_matrix_mut { data: x.floats_mut().as_mut_ptr(), rows, cols, row_stride: 0, col_stride: 0 }
}
