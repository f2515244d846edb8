//! The functions of the C library, with the checks that a C program pays for.

use std::{hint::black_box, ptr};

use sdpa_capi::{
    SDPA_CAUSAL, SDPA_OK, sdpa_attention, sdpa_attention_heads, sdpa_attention_workspace,
    sdpa_cache, sdpa_cache_append, sdpa_cache_attend, sdpa_cache_floats, sdpa_cache_init, sdpa_dot,
    sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut, sdpa_options, sdpa_scores,
    sdpa_softmax, sdpa_softmax_columns, sdpa_softmax_rows, sdpa_status,
};

use super::{Call, Kind, Peer, repeated};
use crate::{
    aligned::Aligned,
    jobs::{self, Along, Inputs, Job, Stored},
};

pub(super) struct OursFromC;

impl Peer for OursFromC {
    fn name(&self) -> String {
        "sdpa, C".into()
    }

    fn kind(&self) -> Kind {
        Kind::OursFromC
    }

    fn prepare<'a>(&self, job: &Job, inputs: &'a Inputs, out: &'a mut [f32]) -> Option<Call<'a>> {
        let [x, y, z] = inputs.operands();
        let operands = [x, y, z];
        Some(match *job {
            Job::Dot { n } => call(out, move |out| {
                // SAFETY: both arrays have n floats, and `out` has one.
                unsafe { sdpa_dot(black_box(x.as_ptr()), black_box(y.as_ptr()), n, out) }
            }),
            Job::Scores { keys, queries, dim } => call(out, move |out| {
                let (keys_view, queries_view) = (dense(x, keys, dim), dense(y, queries, dim));
                // SAFETY: each has as many floats as its shape says.
                unsafe { sdpa_scores(keys_view, queries_view, 1.0, dense_mut(out, keys, queries)) }
            }),
            Job::Softmax { rows: 1, cols, along: Along::Rows } => call(out, move |out| {
                // SAFETY: both have `cols` floats.
                unsafe { sdpa_softmax(black_box(x.as_ptr()), cols, out) }
            }),
            Job::Softmax { rows, cols, along } => call(out, move |out| {
                let (x, out) = (dense(x, rows, cols), dense_mut(out, rows, cols));
                // SAFETY: each has as many floats as its shape says.
                unsafe {
                    match along {
                        Along::Rows => sdpa_softmax_rows(x, out),
                        Along::Columns => sdpa_softmax_columns(x, out),
                    }
                }
            }),
            Job::Attention(of) if of.stored == Stored::Cache => cached(of, operands, out),
            Job::Attention(of) if of.heads == 1 => one_head(of, operands, out),
            Job::Attention(of) => heads(of, operands, out),
        })
    }
}

/// A call that must succeed.
fn call<'a>(out: &'a mut [f32], mut job: impl FnMut(*mut f32) -> sdpa_status + 'a) -> Call<'a> {
    let out = out.as_mut_ptr();
    repeated(move || assert_eq!(job(black_box(out)), SDPA_OK))
}

fn one_head<'a>(
    of: jobs::Attention,
    [queries, keys, values]: [&'a [f32]; 3],
    out: &'a mut [f32],
) -> Call<'a> {
    let jobs::Attention { queries: tokens, keys: count, dim, stored, .. } = of;
    let options = options(of);
    let mut workspace = workspace(dim);
    call(out, move |out| {
        let mut of_keys = dense(keys, count, dim);
        if let Stored::Columns { stride } = stored {
            (of_keys.row_stride, of_keys.col_stride) = (1, stride);
        }
        let workspace = workspace.floats_mut();
        // SAFETY: each has as many floats as its shape and strides say.
        unsafe {
            sdpa_attention(
                dense(queries, tokens, dim),
                of_keys,
                dense(values, count, dim),
                &options,
                dense_mut(out, tokens, dim),
                ptr::null_mut(),
                workspace.as_mut_ptr(),
                workspace.len(),
            )
        }
    })
}

fn heads<'a>(of: jobs::Attention, operands: [&'a [f32]; 3], out: &'a mut [f32]) -> Call<'a> {
    let jobs::Attention { heads, queries: tokens, keys: count, dim, stored, .. } = of;
    assert_eq!(stored, Stored::Rows, "several heads are stored as rows");
    let options = options(of);
    let mut workspace = workspace(dim);
    call(out, move |out| {
        let rows = [tokens, count, count];
        let [queries, keys, values] = [0, 1, 2].map(|i| sdpa_heads {
            data: black_box(operands[i].as_ptr()),
            heads,
            rows: rows[i],
            cols: dim,
            head_stride: 0,
            row_stride: 0,
            col_stride: 0,
        });
        let out = sdpa_heads_mut {
            data: out,
            heads,
            rows: tokens,
            cols: dim,
            head_stride: 0,
            row_stride: 0,
            col_stride: 0,
        };
        let workspace = workspace.floats_mut();
        // SAFETY: each has as many floats as its shape says.
        unsafe {
            sdpa_attention_heads(
                queries,
                keys,
                values,
                &options,
                ptr::null(),
                out,
                ptr::null_mut(),
                workspace.as_mut_ptr(),
                workspace.len(),
            )
        }
    })
}

/// A cache for each head, filled beforehand.
fn cached<'a>(
    of: jobs::Attention,
    [queries, keys, values]: [&'a [f32]; 3],
    out: &'a mut [f32],
) -> Call<'a> {
    let jobs::Attention { heads, keys: count, dim, .. } = of;
    let floats = sdpa_cache_floats(dim, dim, count.div_ceil(sdpa_capi::SDPA_KEY_BLOCK));
    let mut stored: Vec<Aligned> = (0..heads).map(|_| Aligned::new(floats, 0.0)).collect();
    let caches: Vec<sdpa_cache> = stored
        .iter_mut()
        .zip(keys.chunks(count * dim).zip(values.chunks(count * dim)))
        .map(|(stored, (keys, values))| {
            let storage = stored.floats_mut();
            let mut cache = sdpa_cache {
                storage: ptr::null_mut(),
                dim: 0,
                value_dim: 0,
                blocks: 0,
                appended: 0,
                dropped: 0,
                key_format: sdpa_capi::SDPA_F32,
                value_format: sdpa_capi::SDPA_F32,
                kept: 0,
            };
            // SAFETY: the storage lives as long as the call, and each array has as many floats as its shape says.
            let statuses = unsafe {
                [
                    sdpa_cache_init(&mut cache, dim, dim, storage.as_mut_ptr(), storage.len()),
                    sdpa_cache_append(
                        &mut cache,
                        dense(keys, count, dim),
                        dense(values, count, dim),
                    ),
                ]
            };
            assert_eq!(statuses, [SDPA_OK; 2]);
            cache
        })
        .collect();
    let options = options(of);
    let mut workspace = workspace(dim);
    call(out, move |out| {
        let _alive = &stored;
        let workspace = workspace.floats_mut();
        for (head, cache) in caches.iter().enumerate() {
            let query = dense(&queries[head * dim..], 1, dim);
            // SAFETY: the caches' storage is alive; `out` has a row for each head.
            let status = unsafe {
                sdpa_cache_attend(
                    cache,
                    query,
                    &options,
                    dense_mut(out.add(head * dim), 1, dim),
                    ptr::null_mut(),
                    workspace.as_mut_ptr(),
                    workspace.len(),
                )
            };
            if status != SDPA_OK {
                return status;
            }
        }
        SDPA_OK
    })
}

fn options(of: jobs::Attention) -> sdpa_options {
    // SAFETY: zeros are the default of every option.
    let options: sdpa_options = unsafe { std::mem::zeroed() };
    sdpa_options { flags: if of.causal { SDPA_CAUSAL } else { 0 }, ..options }
}

fn workspace(dim: usize) -> Aligned {
    Aligned::new(sdpa_attention_workspace(dim, dim).next_multiple_of(16), 0.0)
}

fn dense(x: &[f32], rows: usize, cols: usize) -> sdpa_matrix {
    sdpa_matrix { data: black_box(x.as_ptr()), rows, cols, row_stride: 0, col_stride: 0 }
}

fn dense_mut(data: *mut f32, rows: usize, cols: usize) -> sdpa_matrix_mut {
    sdpa_matrix_mut { data, rows, cols, row_stride: 0, col_stride: 0 }
}
