//! Calls of the C library beside the same calls in Rust. The views of the one and the structures of the other
//! are made before: what is timed and counted is the call itself.

#![allow(unsafe_code, reason = "calls the functions of the header")]
#![allow(dead_code, reason = "only the floors have limits of time")]

use std::{hint::black_box, ptr};

use sdpa::{Attention, Backend, MatrixMut, MatrixRef};
use sdpa_capi::{
    SDPA_CAUSAL, SDPA_OK, SDPA_WINDOW, sdpa_attention, sdpa_dot, sdpa_matrix, sdpa_matrix_mut,
    sdpa_options, sdpa_scores, sdpa_softmax_columns, sdpa_softmax_rows,
};

use crate::aligned::Aligned;

/// A call in Rust and the same call in C, of the same bits. Their data lives until the program ends.
pub(crate) struct CCall {
    pub(crate) what: &'static str,
    pub(crate) rust_and_c: fn(Backend) -> [Call; 2],
    /// What the call in C may take beyond that in Rust.
    pub(crate) nanoseconds: f64,
}

type Call = Box<dyn FnMut()>;

/// The functions without a handle run on the best back end, so `rust_and_c` takes no other.
pub(crate) const C_CALLS: [CCall; 6] = [
    CCall { what: "dot of 64", rust_and_c: dot, nanoseconds: 6.0 },
    CCall { what: "scores 8 x 8 x 64", rust_and_c: scores, nanoseconds: 8.0 },
    CCall { what: "row softmax 8 x 8", rust_and_c: softmax_rows, nanoseconds: 14.0 },
    CCall { what: "column softmax 8 x 8", rust_and_c: softmax_columns, nanoseconds: 8.0 },
    CCall { what: "attention 8 x 8 x 64", rust_and_c: attention_by_default, nanoseconds: 40.0 },
    // The aim is 40: each mask is tested for overlap with three outputs.
    CCall {
        what: "attention 8 x 8 x 64, every option",
        rust_and_c: attention_with_options,
        nanoseconds: 65.0,
    },
];

/// `n` floats, as [`Aligned::new`].
fn floats(n: usize, scale: f32) -> &'static [f32] {
    floats_mut(n, scale)
}

fn floats_mut(n: usize, scale: f32) -> &'static mut [f32] {
    Box::leak(Box::new(Aligned::new(n, scale))).floats_mut()
}

fn dot(backend: Backend) -> [Call; 2] {
    let (a, b, mut out) = (floats(64, 1.0), floats(64, 1.0), 0.0);
    [
        Box::new(move || _ = black_box(backend.dot(black_box(a), black_box(b)))),
        Box::new(move || {
            let (a, b) = (black_box(a), black_box(b));
            // SAFETY: arrays of that length, and one float.
            let status = unsafe { sdpa_dot(a.as_ptr(), b.as_ptr(), a.len(), black_box(&mut out)) };
            assert_eq!(status, SDPA_OK);
        }),
    ]
}

fn scores(backend: Backend) -> [Call; 2] {
    let [keys, queries] = [(); 2].map(|()| floats(8 * 64, 1.0));
    let [rust_out, c_out] = [(); 2].map(|()| floats_mut(8 * 8, 0.0));
    let rust = [keys, queries].map(|x| view(x, 8, 64));
    let mut rust_out = view_mut(rust_out, 8, 8);
    let c = [keys, queries].map(|x| matrix(x, 8, 64));
    let c_out = matrix_mut(c_out, 8, 8);
    [
        Box::new(move || {
            let ([keys, queries], out) = (*black_box(&rust), black_box(&mut rust_out).view_mut());
            backend.scores(keys, queries, None, out).expect("sizes agree");
        }),
        Box::new(move || {
            let ([keys, queries], out) = (black_box(&c), black_box(&c_out));
            // SAFETY: the memory lives for good, and only this call uses the output.
            assert_eq!(unsafe { sdpa_scores(*keys, *queries, 0.0, *out) }, SDPA_OK);
        }),
    ]
}

fn softmax_rows(backend: Backend) -> [Call; 2] {
    softmax(
        move |x, out| backend.softmax_rows(x, out).expect("sizes agree"),
        // SAFETY: see `softmax`.
        |x, out| assert_eq!(unsafe { sdpa_softmax_rows(*x, *out) }, SDPA_OK),
    )
}

fn softmax_columns(backend: Backend) -> [Call; 2] {
    softmax(
        move |x, out| backend.softmax_columns(x, out).expect("sizes agree"),
        // SAFETY: see `softmax`.
        |x, out| assert_eq!(unsafe { sdpa_softmax_columns(*x, *out) }, SDPA_OK),
    )
}

/// The memory of the matrices lives for good, and only `of_c` uses its output.
fn softmax(
    of_rust: impl Fn(MatrixRef<'_>, MatrixMut<'_>) + 'static,
    of_c: impl Fn(&sdpa_matrix, &sdpa_matrix_mut) + 'static,
) -> [Call; 2] {
    let x = floats(8 * 8, 10.0);
    let [rust_out, c_out] = [(); 2].map(|()| floats_mut(8 * 8, 0.0));
    let (rust, mut rust_out) = (view(x, 8, 8), view_mut(rust_out, 8, 8));
    let (c, c_out) = (matrix(x, 8, 8), matrix_mut(c_out, 8, 8));
    [
        Box::new(move || of_rust(*black_box(&rust), black_box(&mut rust_out).view_mut())),
        Box::new(move || of_c(black_box(&c), black_box(&c_out))),
    ]
}

fn attention_by_default(backend: Backend) -> [Call; 2] {
    attention(Attention::new().on(backend), ptr::null())
}

fn attention_with_options(backend: Backend) -> [Call; 2] {
    let (bias, keep) = (floats(8 * 8, 1.0), &[1; 8 * 8]);
    let sink = &0.5;
    let rust = Attention::new()
        .on(backend)
        .window(6, 0)
        .query_offset(1)
        .scale(0.1)
        .softcap(20.0)
        .bias(view(bias, 8, 8))
        .keep(MatrixRef::new(keep, 8, 8).expect("shape"))
        .sink(*sink);
    let c = sdpa_options {
        flags: SDPA_CAUSAL | SDPA_WINDOW,
        scale: 0.1,
        softcap: 20.0,
        query_offset: 1,
        window_left: 6,
        window_right: 0,
        bias: matrix(bias, 8, 8),
        keep: keep.as_ptr(),
        keep_row_stride: 0,
        keep_col_stride: 0,
        sink,
        bias_head_stride: 0,
        keep_head_stride: 0,
        slopes: ptr::null(),
        keep_first: 0,
    };
    attention(rust, Box::leak(Box::new(c)))
}

/// `options` and what they point to live for good.
fn attention(attention: Attention<'static>, options: *const sdpa_options) -> [Call; 2] {
    let [queries, keys, values] = [(); 3].map(|()| floats(8 * 64, 1.0));
    let [rust_out, c_out] = [(); 2].map(|()| floats_mut(8 * 64, 0.0));
    let [rust_workspace, c_workspace] =
        [(); 2].map(|()| floats_mut(Attention::workspace(64, 64), 0.0));
    let rust = [queries, keys, values].map(|x| view(x, 8, 64));
    let mut rust_out = view_mut(rust_out, 8, 64);
    let c = [queries, keys, values].map(|x| matrix(x, 8, 64));
    let c_out = matrix_mut(c_out, 8, 64);
    let (c_workspace, len) = (c_workspace.as_mut_ptr(), c_workspace.len());
    [
        Box::new(move || {
            let ([queries, keys, values], out) =
                (*black_box(&rust), black_box(&mut rust_out).view_mut());
            attention.run(queries, keys, values, out, rust_workspace).expect("sizes agree");
        }),
        Box::new(move || {
            let ([queries, keys, values], out) = (black_box(&c), black_box(&c_out));
            let (options, log_sum_exp) = (black_box(options), ptr::null_mut());
            // SAFETY: the memory lives for good, and only this call uses the output and the workspace.
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
        }),
    ]
}

fn view(x: &[f32], rows: usize, cols: usize) -> MatrixRef<'_> {
    MatrixRef::new(x, rows, cols).expect("shape")
}

fn view_mut(x: &mut [f32], rows: usize, cols: usize) -> MatrixMut<'_> {
    MatrixMut::new(x, rows, cols).expect("shape")
}

fn matrix(x: &[f32], rows: usize, cols: usize) -> sdpa_matrix {
    sdpa_matrix { data: x.as_ptr(), rows, cols, row_stride: 0, col_stride: 0 }
}

fn matrix_mut(x: &mut [f32], rows: usize, cols: usize) -> sdpa_matrix_mut {
    sdpa_matrix_mut { data: x.as_mut_ptr(), rows, cols, row_stride: 0, col_stride: 0 }
}
