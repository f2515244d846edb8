//! The operations that need no options, and who this library is.

use core::ffi::{CStr, c_char};

use sdpa::Backend;

use crate::{
    region::{Region, check_apart},
    status::{self, Checked, sdpa_status, status},
    views::{sdpa_matrix, sdpa_matrix_mut, slice, slice_mut},
};

/// The version of this header.
pub const SDPA_VERSION_MAJOR: u32 = 0;
/// Minor versions add.
pub const SDPA_VERSION_MINOR: u32 = 1;
/// Patches repair.
pub const SDPA_VERSION_PATCH: u32 = 0;

const _: () = {
    const fn is(number: u32, text: &str) -> bool {
        matches!(u32::from_str_radix(text, 10), Ok(parsed) if parsed == number)
    }
    assert!(is(SDPA_VERSION_MAJOR, env!("CARGO_PKG_VERSION_MAJOR")));
    assert!(is(SDPA_VERSION_MINOR, env!("CARGO_PKG_VERSION_MINOR")));
    assert!(is(SDPA_VERSION_PATCH, env!("CARGO_PKG_VERSION_PATCH")));
};

/// The version of the library as it runs, "0.1.0". Never NULL, never freed.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The instructions in use: "avx512", "avx2" or "neon" (the fused family: a multiply-add
/// rounds once), "portable" or "scalar" (the unfused one). Inside a family the same input gives
/// the same bits on every machine. Never NULL, never freed.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_backend() -> *const c_char {
    name_of(Backend::best()).as_ptr()
}

/// The words for a status; of those that are none, too. Never NULL, never freed.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub extern "C" fn sdpa_status_string(status: sdpa_status) -> *const c_char {
    status::words(status).as_ptr()
}

fn name_of(backend: Backend) -> &'static CStr {
    match backend.name() {
        "avx512" => c"avx512",
        "avx2" => c"avx2",
        "neon" => c"neon",
        "portable" => c"portable",
        "scalar" => c"scalar",
        _ => c"unknown",
    }
}

/// The dot product of two arrays of n floats, into *out; 0 where n is 0.
///
/// Overlap: out with neither array. On failure *out is as it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_dot(
    a: *const f32,
    b: *const f32,
    n: usize,
    out: *mut f32,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let inputs = [Region::array(a, n)?, Region::array(b, n)?];
        check_apart(&[Region::array(out, 1)?], &inputs)?;
        // SAFETY: not NULL, and as the caller promises.
        let (a, b) = unsafe { (slice(a, n), slice(b, n)) };
        #[cfg(feature = "deliberate-panic")]
        core::hint::black_box([0u8; 4][n]);
        let dot = sdpa::dot(a, b)?;
        // SAFETY: as above, and `out` lies apart from both.
        unsafe { out.write(dot) };
        Ok(())
    };
    status(call())
}

/// The softmax of an array of n floats: out[i] = exp(x[i]) / sum of exp(x[j]).
///
/// Overlap: out may be x itself; otherwise none. On failure out is as it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_softmax(x: *const f32, n: usize, out: *mut f32) -> sdpa_status {
    let call = || -> Checked<()> {
        let (from, to) = (Region::array(x, n)?, Region::array(out, n)?);
        if from.is(&to) {
            // SAFETY: not NULL, and as the caller promises; `x` is not used.
            sdpa::softmax_in_place(unsafe { slice_mut(out, n) });
            return Ok(());
        }
        check_apart(&[to], &[from])?;
        // SAFETY: not NULL, apart, and as the caller promises.
        let (x, out) = unsafe { (slice(x, n), slice_mut(out, n)) };
        Ok(sdpa::softmax(x, out)?)
    };
    status(call())
}

/// The softmax of every row of x; out is of the same shape. A row gives the bits of
/// sdpa_softmax.
///
/// Overlap: out may be x itself (data, shape and strides); otherwise none. On failure out is as
/// it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_softmax_rows(x: sdpa_matrix, out: sdpa_matrix_mut) -> sdpa_status {
    let call = || -> Checked<()> {
        let (from, to) = (x.region()?, out.region()?);
        if from.is(&to) {
            // SAFETY: not NULL, and as the caller promises; `x` is not used.
            sdpa::softmax_rows_in_place(unsafe { out.view() }?);
            return Ok(());
        }
        check_apart(&[to], &[from])?;
        // SAFETY: not NULL, apart, and as the caller promises.
        let (x, out) = unsafe { (x.view()?, out.view()?) };
        Ok(sdpa::softmax_rows(x, out)?)
    };
    status(call())
}

/// The softmax of every column of x; out is of the same shape. Of a score grid, which has a
/// column per query, this is the pattern. Faster than sdpa_softmax_rows.
///
/// Overlap: out may be x itself (data, shape and strides); otherwise none. On failure out is as
/// it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_softmax_columns(x: sdpa_matrix, out: sdpa_matrix_mut) -> sdpa_status {
    let call = || -> Checked<()> {
        let (from, to) = (x.region()?, out.region()?);
        if from.is(&to) {
            // SAFETY: not NULL, and as the caller promises; `x` is not used.
            sdpa::softmax_columns_in_place(unsafe { out.view() }?);
            return Ok(());
        }
        check_apart(&[to], &[from])?;
        // SAFETY: not NULL, apart, and as the caller promises.
        let (x, out) = unsafe { (x.view()?, out.view()?) };
        Ok(sdpa::softmax_columns(x, out)?)
    };
    status(call())
}

/// out = x * w + bias: queries, keys or values (tokens x outputs) from embeddings (tokens x
/// inputs) and weights (inputs x outputs). bias: w.cols floats, for every token, or NULL.
///
/// Overlap: out with no input. On failure out is as it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_project(
    x: sdpa_matrix,
    w: sdpa_matrix,
    bias: *const f32,
    out: sdpa_matrix_mut,
) -> sdpa_status {
    let call = || -> Checked<()> {
        let len = if bias.is_null() { 0 } else { w.cols };
        let inputs = [x.region()?, w.region()?, Region::array(bias, len)?];
        check_apart(&[out.region()?], &inputs)?;
        // SAFETY: not NULL, apart, and as the caller promises.
        let (x, w, bias, out) = unsafe {
            let bias = (!bias.is_null()).then(|| slice(bias, len));
            (x.view()?, w.view()?, bias, out.view()?)
        };
        Ok(sdpa::project(x, w, bias, out)?)
    };
    status(call())
}

/// The score grid: out[key][query] = scale * dot(keys[key], queries[query]), of keys (keys x
/// dim) and queries (queries x dim): a ROW PER KEY and a COLUMN PER QUERY. scale: finite; 0
/// means 1 / sqrt(dim).
///
/// Overlap: out with no input. On failure out is as it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_scores(
    keys: sdpa_matrix,
    queries: sdpa_matrix,
    scale: f32,
    out: sdpa_matrix_mut,
) -> sdpa_status {
    let call = || -> Checked<()> {
        check_apart(&[out.region()?], &[keys.region()?, queries.region()?])?;
        // SAFETY: not NULL, apart, and as the caller promises.
        let (keys, queries, out) = unsafe { (keys.view()?, queries.view()?, out.view()?) };
        Ok(sdpa::scores(keys, queries, (scale != 0.0).then_some(scale), out)?)
    };
    status(call())
}

/// out[query] = sum over the keys of pattern[key][query] * values[key], of a pattern (keys x
/// queries) and values (keys x width); out is queries x width. A weight of 0 times an infinite
/// value is NaN here; sdpa_attention leaves masked values out.
///
/// Overlap: out with no input. On failure out is as it was.
#[unsafe(no_mangle)] // SAFETY: of this library, and no other symbol begins so
pub unsafe extern "C" fn sdpa_weighted_sum(
    pattern: sdpa_matrix,
    values: sdpa_matrix,
    out: sdpa_matrix_mut,
) -> sdpa_status {
    let call = || -> Checked<()> {
        check_apart(&[out.region()?], &[pattern.region()?, values.region()?])?;
        // SAFETY: not NULL, apart, and as the caller promises.
        let (pattern, values, out) = unsafe { (pattern.view()?, values.view()?, out.view()?) };
        Ok(sdpa::weighted_sum(pattern, values, out)?)
    };
    status(call())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_back_end_has_its_name() {
        for backend in Backend::available() {
            assert_eq!(name_of(backend).to_str(), Ok(backend.name()));
        }
    }
}
