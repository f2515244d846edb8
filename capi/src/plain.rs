//! Attention that links little.
//!
//! On microcontrollers make compiles this module alone, with the feature `plain` and LTO, into an object of its own: the
//! compiler then sees that no other option is set, and drops their code. `sdpa.h` calls it for `sdpa_attention`.

use core::ptr;

use sdpa::{Attention, Backend, MatrixMut, MatrixRef};

use crate::{
    options::{check_plain, sdpa_options},
    region::{Span, array},
    status::{
        Checked, Failure, SDPA_ERROR_SHAPE_KEYS, SDPA_ERROR_SHAPE_OUT, SDPA_ERROR_SHAPE_QUERIES,
        SDPA_ERROR_SHAPE_VALUES, SDPA_ERROR_STRIDE, SDPA_OK, sdpa_status, status,
    },
    views::{sdpa_matrix, sdpa_matrix_mut, slice_mut},
};

/// sdpa_attention of matrices whose strides are all 0 (else SDPA_ERROR_STRIDE), without softcap, bias,
/// slopes, keep and sink (else SDPA_ERROR_OPTION) and without log_sum_exp: the same bits from half the
/// flash. On microcontrollers gcc and clang, when they optimise, call it for sdpa_attention if they see
/// that this is enough: write strides of 0 and a NULL into the call, and let options be NULL or a static
/// const.
///
/// Overlap: out and workspace must not overlap any input or each other. On failure both are unchanged.
#[unsafe(no_mangle)] // SAFETY: the prefix `sdpa_` is this library's alone
pub unsafe extern "C" fn sdpa_attention_plain(
    queries: sdpa_matrix,
    keys: sdpa_matrix,
    values: sdpa_matrix,
    options: *const sdpa_options,
    out: sdpa_matrix_mut,
    workspace: *mut f32,
    workspace_len: usize,
) -> sdpa_status {
    // SAFETY: as the caller promises.
    let of = |options| unsafe {
        attend([&queries, &keys, &values], options, &out, (workspace, workspace_len))
    };
    status(of(options))
}

/// # Safety
///
/// The arguments meet the requirements of the header.
#[inline(always)]
unsafe fn attend(
    inputs: [&sdpa_matrix; 3],
    options: *const sdpa_options,
    out: &sdpa_matrix_mut,
    (workspace, workspace_len): (*mut f32, usize),
) -> Checked<()> {
    let [queries, keys, values] = inputs;
    let workspace_len = workspace_len.min(Attention::workspace(keys.cols, values.cols));
    // SAFETY: as the caller promises; aligned, as has been checked.
    let options = unsafe {
        check(inputs, options, out, (workspace, workspace_len))?;
        options.as_ref().unwrap_or(&DEFAULT)
    };
    let mut attention = Attention::new().on(Backend::best());
    options.read_numbers(&mut attention);
    // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
    unsafe {
        let view =
            |of: &sdpa_matrix| MatrixRef::from_checked_parts(of.data, of.rows, of.cols, of.cols, 1);
        let out = MatrixMut::from_checked_parts(out.data, out.rows, out.cols, out.cols, 1);
        let workspace = slice_mut(workspace, workspace_len);
        attention.run(view(queries), view(keys), view(values), out, workspace)?;
    }
    Ok(())
}

/// # Safety
///
/// As [`attend`].
// Not inlined: behind so many branches the compiler takes the call of the kernel for a rare one, and does not inline it.
#[inline(never)]
unsafe fn check(
    inputs: [&sdpa_matrix; 3],
    options: *const sdpa_options,
    out: &sdpa_matrix_mut,
    (workspace, workspace_len): (*mut f32, usize),
) -> Checked<()> {
    let strides = inputs.iter().fold(out.row_stride | out.col_stride, |all, input| {
        all | input.row_stride | input.col_stride
    });
    let [queries, keys, values] = inputs;
    let wrong = if strides != 0 {
        SDPA_ERROR_STRIDE
    } else if queries.cols == 0 {
        SDPA_ERROR_SHAPE_QUERIES
    } else if keys.cols != queries.cols {
        SDPA_ERROR_SHAPE_KEYS
    } else if values.rows != keys.rows || values.cols == 0 {
        SDPA_ERROR_SHAPE_VALUES
    } else if out.shape() != [queries.rows, values.cols] {
        SDPA_ERROR_SHAPE_OUT
    } else {
        SDPA_OK
    };
    if wrong != SDPA_OK {
        return Err(Failure(wrong));
    }
    let is_given = usize::from(!options.is_null());
    check_arrays(&[
        (out.data, out.shape()),
        (workspace, [1, workspace_len]),
        (queries.data, queries.shape()),
        (keys.data, keys.shape()),
        (values.data, values.shape()),
        (options.cast(), [is_given, size_of::<sdpa_options>() / size_of::<f32>()]),
    ])?;
    // SAFETY: as the caller promises.
    unsafe { check_plain(options) }
}

/// The address of contiguous rows, and their shape.
type Array = (*const f32, [usize; 2]);

/// Checks the pointers, and that the first two arrays, which are written, overlap no other.
fn check_arrays(arrays: &[Array; 6]) -> Checked<()> {
    let mut outputs = [Span::EMPTY; 2];
    for (i, &(first, [rows, cols])) in arrays.iter().enumerate() {
        let span = array(first, rows.checked_mul(cols).ok_or(Failure(SDPA_ERROR_STRIDE))?)?;
        outputs.iter().try_for_each(|output| output.check_disjoint(span))?;
        if let Some(output) = outputs.get_mut(i) {
            *output = span;
        }
    }
    Ok(())
}

/// What NULL means.
const DEFAULT: sdpa_options = {
    let bias = sdpa_matrix { data: ptr::null(), rows: 0, cols: 0, row_stride: 0, col_stride: 0 };
    sdpa_options {
        flags: 0,
        scale: 0.0,
        softcap: 0.0,
        query_offset: 0,
        window_left: 0,
        window_right: 0,
        bias,
        keep: ptr::null(),
        keep_row_stride: 0,
        keep_col_stride: 0,
        sink: ptr::null(),
        bias_head_stride: 0,
        keep_head_stride: 0,
        slopes: ptr::null(),
        keep_first: 0,
    }
};
