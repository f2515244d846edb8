//! The operations that need no options.

use sdpa::Backend;

use crate::{
    library::{backend_of, operation, sdpa_backend_t},
    region::array,
    status::{
        Checked, Failure, SDPA_ERROR_SHAPE, SDPA_ERROR_SHAPE_KEYS, SDPA_ERROR_SHAPE_OUT,
        SDPA_ERROR_SHAPE_QUERIES, SDPA_ERROR_SHAPE_VALUES, SDPA_ERROR_SHAPE_W, SDPA_ERROR_SHAPE_X,
        sdpa_status, status,
    },
    views::{Operand, Output, sdpa_matrix, sdpa_matrix_mut, slice, slice_mut},
};

operation! {
    /// The dot product of two arrays of n floats, into *out; 0 where n is 0.
    ///
    /// Overlap: out with neither array. On failure *out is as it was.
    fn sdpa_dot, sdpa_dot_on(on, a: *const f32, b: *const f32, n: usize, out: *mut f32) {
        let at_out = array(out.cast_const(), 1)?;
        at_out.check_apart(&array(a, n)?)?;
        at_out.check_apart(&array(b, n)?)?;
        // SAFETY: aligned, not NULL, and as the caller promises.
        let (a, b) = unsafe { (slice(a, n), slice(b, n)) };
        #[cfg(feature = "deliberate-panic")]
        core::hint::black_box([0u8; 4][n]);
        let dot = on.dot(a, b)?;
        // SAFETY: as above, and `out` lies apart from both.
        unsafe { out.write(dot) };
        Ok(())
    }
}

operation! {
    /// The softmax of an array of n floats: out[i] = exp(x[i]) / sum of exp(x[j]).
    ///
    /// Overlap: out may be x itself; otherwise none. On failure out is as it was.
    fn sdpa_softmax, sdpa_softmax_on(on, x: *const f32, n: usize, out: *mut f32) {
        let (at_x, at_out) = (array(x, n)?, array(out.cast_const(), n)?);
        if x == out {
            // SAFETY: aligned, not NULL, and as the caller promises; `x` is not used.
            on.softmax_in_place(unsafe { slice_mut(out, n) });
            return Ok(());
        }
        at_out.check_apart(&at_x)?;
        // SAFETY: aligned, not NULL, apart, and as the caller promises.
        let (x, out) = unsafe { (slice(x, n), slice_mut(out, n)) };
        Ok(on.softmax(x, out)?)
    }
}

/// The softmax of rows or columns.
macro_rules! softmax_of {
    ($on:ident, $softmax:ident, $in_place:ident, $x:ident, $out:ident) => {{
        let (at_x, at_out) = ($x.operand()?, $out.output()?);
        if $out.is(&$x) {
            // SAFETY: aligned, not NULL, and as the caller promises; `x` is not used.
            $on.$in_place(unsafe { $out.view() });
            return Ok(());
        }
        at_out.check_apart(&at_x)?;
        // SAFETY: aligned, not NULL, apart, and as the caller promises.
        let (from, to) = unsafe { ($x.view(), $out.view()) };
        $on.$softmax(from, to).map_err(|error| Failure::of(error, || SDPA_ERROR_SHAPE_OUT))
    }};
}

operation! {
    /// The softmax of every row of x; out is of the same shape. A row gives the bits of
    /// sdpa_softmax.
    ///
    /// Overlap: out may be x itself (data, shape and strides); otherwise none. On failure out is as
    /// it was.
    fn sdpa_softmax_rows, sdpa_softmax_rows_on(on, x: sdpa_matrix, out: sdpa_matrix_mut) {
        softmax_of!(on, softmax_rows, softmax_rows_in_place, x, out)
    }
}

operation! {
    /// The softmax of every column of x; out is of the same shape. Of a score grid, which has a
    /// column per query, this is the pattern. Faster than sdpa_softmax_rows.
    ///
    /// Overlap: out may be x itself (data, shape and strides); otherwise none. On failure out is as
    /// it was.
    fn sdpa_softmax_columns, sdpa_softmax_columns_on(on, x: sdpa_matrix, out: sdpa_matrix_mut) {
        softmax_of!(on, softmax_columns, softmax_columns_in_place, x, out)
    }
}

operation! {
    /// out = x * w + bias: queries, keys or values (tokens x outputs) from embeddings (tokens x
    /// inputs) and weights (inputs x outputs). bias: w.cols floats, for every token, or NULL.
    ///
    /// Overlap: out with no input. On failure out is as it was.
    fn sdpa_project, sdpa_project_on(
        on, x: sdpa_matrix, w: sdpa_matrix, bias: *const f32, out: sdpa_matrix_mut,
    ) {
        let at_out = out.output()?;
        at_out.check_apart(&x.operand()?)?;
        at_out.check_apart(&w.operand()?)?;
        at_out.check_apart(&array(bias, if bias.is_null() { 0 } else { w.cols })?)?;
        // SAFETY: aligned, not NULL, apart, and as the caller promises.
        let (from, weights, bias, to) = unsafe {
            let bias = (!bias.is_null()).then(|| slice(bias, w.cols));
            (x.view(), w.view(), bias, out.view())
        };
        let whose = || {
            if x.cols == 0 {
                SDPA_ERROR_SHAPE_X
            } else if w.rows != x.cols || w.cols == 0 {
                SDPA_ERROR_SHAPE_W
            } else if out.shape() != [x.rows, w.cols] {
                SDPA_ERROR_SHAPE_OUT
            } else {
                SDPA_ERROR_SHAPE
            }
        };
        on.project(from, weights, bias, to).map_err(|error| Failure::of(error, whose))
    }
}

operation! {
    /// The score grid: out[key][query] = scale * dot(keys[key], queries[query]), of keys (keys x
    /// dim) and queries (queries x dim): a ROW PER KEY and a COLUMN PER QUERY. scale: finite; 0
    /// means 1 / sqrt(dim).
    ///
    /// Overlap: out with no input. On failure out is as it was.
    fn sdpa_scores, sdpa_scores_on(
        on, keys: sdpa_matrix, queries: sdpa_matrix, scale: f32, out: sdpa_matrix_mut,
    ) {
        let at_out = out.output()?;
        at_out.check_apart(&keys.operand()?)?;
        at_out.check_apart(&queries.operand()?)?;
        // SAFETY: aligned, not NULL, apart, and as the caller promises.
        let (left, right, to) = unsafe { (keys.view(), queries.view(), out.view()) };
        let whose = || {
            if keys.cols == 0 {
                SDPA_ERROR_SHAPE_KEYS
            } else if queries.cols != keys.cols {
                SDPA_ERROR_SHAPE_QUERIES
            } else if out.shape() != [keys.rows, queries.rows] {
                SDPA_ERROR_SHAPE_OUT
            } else {
                SDPA_ERROR_SHAPE
            }
        };
        let scale = (scale != 0.0).then_some(scale);
        on.scores(left, right, scale, to).map_err(|error| Failure::of(error, whose))
    }
}

operation! {
    /// out[query] = sum over the keys of pattern[key][query] * values[key], of a pattern (keys x
    /// queries) and values (keys x width); out is queries x width. A weight of 0 times an infinite
    /// value is NaN here; sdpa_attention leaves masked values out.
    ///
    /// Overlap: out with no input. On failure out is as it was.
    fn sdpa_weighted_sum, sdpa_weighted_sum_on(
        on, pattern: sdpa_matrix, values: sdpa_matrix, out: sdpa_matrix_mut,
    ) {
        let at_out = out.output()?;
        at_out.check_apart(&pattern.operand()?)?;
        at_out.check_apart(&values.operand()?)?;
        // SAFETY: aligned, not NULL, apart, and as the caller promises.
        let (left, right, to) = unsafe { (pattern.view(), values.view(), out.view()) };
        let whose = || {
            if values.rows != pattern.rows || values.cols == 0 {
                SDPA_ERROR_SHAPE_VALUES
            } else if out.shape() != [pattern.cols, values.cols] {
                SDPA_ERROR_SHAPE_OUT
            } else {
                SDPA_ERROR_SHAPE
            }
        };
        on.weighted_sum(left, right, to).map_err(|error| Failure::of(error, whose))
    }
}
