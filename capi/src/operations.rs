//! The operations without options: dot, softmax, projection, scores, weighted sum.

use core::slice::from_raw_parts;

use sdpa::Backend;

use crate::{
    library::{backend_of, operation, sdpa_backend_t},
    region::{Span, array},
    status::{
        Checked, Failure, SDPA_ERROR_SHAPE, SDPA_ERROR_SHAPE_KEYS, SDPA_ERROR_SHAPE_OUT,
        SDPA_ERROR_SHAPE_QUERIES, SDPA_ERROR_SHAPE_VALUES, SDPA_ERROR_SHAPE_W, SDPA_ERROR_SHAPE_X,
        general, sdpa_status, status,
    },
    views::{Operand, Output, plain, sdpa_matrix, sdpa_matrix_mut, slice, slice_mut},
};

operation! {
    /// Computes the dot product of two arrays of n floats and writes it to *out; 0 if n is 0.
    ///
    /// Overlap: out must not overlap either array. On failure *out is unchanged.
    fn sdpa_dot, sdpa_dot_on(on, a: *const f32, b: *const f32, n: usize, out: *mut f32) {
        if let Some(a_span) = Span::plain(a, 1, n)
            && let Some(b_span) = Span::plain(b, 1, n)
            && let Some(out_span) = Span::plain(out, 1, 1)
            && !out_span.intersects(a_span)
            && !out_span.intersects(b_span)
        {
            // SAFETY: plain spans are aligned and not NULL; disjoint from `out`, and as the caller promises.
            let (a, b) = unsafe { (from_raw_parts(a, n), from_raw_parts(b, n)) };
            let dot = on.dot(a, b)?;
            // SAFETY: likewise.
            unsafe { out.write(dot) };
            return Ok(());
        }
        general(move || {
            let out_span = array(out.cast_const(), 1)?;
            out_span.check_disjoint(array(a, n)?)?;
            out_span.check_disjoint(array(b, n)?)?;
            // SAFETY: aligned, not NULL, and as the caller promises.
            let (a, b) = unsafe { (slice(a, n), slice(b, n)) };
            #[cfg(feature = "deliberate-panic")]
            core::hint::black_box([0u8; 4][n]);
            let dot = on.dot(a, b)?;
            // SAFETY: aligned, not NULL, disjoint from both, and as the caller promises.
            unsafe { out.write(dot) };
            Ok(())
        })
    }
}

operation! {
    /// Computes the softmax of an array of n floats: out[i] = exp(x[i]) / sum of exp(x[j]).
    ///
    /// Overlap: out may be x itself (in place); otherwise it must not overlap x. On failure out is
    /// unchanged.
    fn sdpa_softmax, sdpa_softmax_on(on, x: *const f32, n: usize, out: *mut f32) {
        let (x_span, out_span) = (array(x, n)?, array(out.cast_const(), n)?);
        if x == out {
            // SAFETY: aligned, not NULL, and as the caller promises; `x` is not used again.
            on.softmax_in_place(unsafe { slice_mut(out, n) });
            return Ok(());
        }
        out_span.check_disjoint(x_span)?;
        // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
        let (x, out) = unsafe { (slice(x, n), slice_mut(out, n)) };
        Ok(on.softmax(x, out)?)
    }
}

/// The body of a softmax over rows or columns.
macro_rules! softmax_of {
    ($on:ident, $softmax:ident, $in_place:ident, $x:ident, $out:ident) => {{
        // SAFETY: as the caller promises.
        if let Some(([from], to)) = unsafe { plain([&$x], &$out) }
            && $on.$softmax(from, to).is_ok()
        {
            return Ok(());
        }
        general(|| {
            let (x_region, out_region) = ($x.operand()?, $out.output()?);
            if $out.is_same_view(&$x) {
                // SAFETY: aligned, not NULL, and as the caller promises; `x` is not used again.
                $on.$in_place(unsafe { $out.view() });
                return Ok(());
            }
            out_region.check_disjoint(x_region)?;
            // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
            let (from, to) = unsafe { ($x.view(), $out.view()) };
            $on.$softmax(from, to).map_err(|error| Failure::of(error, || SDPA_ERROR_SHAPE_OUT))
        })
    }};
}

operation! {
    /// Computes the softmax of each row of x; out has the shape of x. Each row has the bits of
    /// sdpa_softmax.
    ///
    /// Overlap: out may be x itself (same data, shape and strides; in place); otherwise it must not
    /// overlap x. On failure out is unchanged.
    fn sdpa_softmax_rows, sdpa_softmax_rows_on(on, x: sdpa_matrix, out: sdpa_matrix_mut) {
        softmax_of!(on, softmax_rows, softmax_rows_in_place, x, out)
    }
}

operation! {
    /// Computes the softmax of each column of x; out has the shape of x. Of a score grid, which has
    /// a column per query, the result is the pattern (attention weights). Faster than
    /// sdpa_softmax_rows.
    ///
    /// Overlap: out may be x itself (same data, shape and strides; in place); otherwise it must not
    /// overlap x. On failure out is unchanged.
    fn sdpa_softmax_columns, sdpa_softmax_columns_on(on, x: sdpa_matrix, out: sdpa_matrix_mut) {
        softmax_of!(on, softmax_columns, softmax_columns_in_place, x, out)
    }
}

operation! {
    /// Computes a linear projection, out = x * w + bias: queries, keys or values (tokens x outputs)
    /// from embeddings x (tokens x inputs) and weights w (inputs x outputs). bias: NULL, or w.cols
    /// floats that are added to each row.
    ///
    /// Overlap: out must not overlap any input. On failure out is unchanged.
    fn sdpa_project, sdpa_project_on(
        on, x: sdpa_matrix, w: sdpa_matrix, bias: *const f32, out: sdpa_matrix_mut,
    ) {
        let out_region = out.output()?;
        out_region.check_disjoint(x.operand()?)?;
        out_region.check_disjoint(w.operand()?)?;
        out_region.check_disjoint(array(bias, if bias.is_null() { 0 } else { w.cols })?)?;
        // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
        let (from, weights, bias, to) = unsafe {
            let bias = (!bias.is_null()).then(|| slice(bias, w.cols));
            (x.view(), w.view(), bias, out.view())
        };
        let shape_status = || {
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
        on.project(from, weights, bias, to).map_err(|error| Failure::of(error, shape_status))
    }
}

operation! {
    /// Computes the score grid: out[key][query] = scale * dot(keys[key], queries[query]), with a ROW
    /// PER KEY and a COLUMN PER QUERY. keys: keys x dim; queries: queries x dim. scale: finite; 0
    /// means 1 / sqrt(dim).
    ///
    /// Overlap: out must not overlap any input. On failure out is unchanged.
    fn sdpa_scores, sdpa_scores_on(
        on, keys: sdpa_matrix, queries: sdpa_matrix, scale: f32, out: sdpa_matrix_mut,
    ) {
        let scale = (scale != 0.0).then_some(scale);
        // SAFETY: as the caller promises.
        if let Some(([left, right], to)) = unsafe { plain([&keys, &queries], &out) }
            && on.scores(left, right, scale, to).is_ok()
        {
            return Ok(());
        }
        general(|| {
            let out_region = out.output()?;
            out_region.check_disjoint(keys.operand()?)?;
            out_region.check_disjoint(queries.operand()?)?;
            // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
            let (left, right, to) = unsafe { (keys.view(), queries.view(), out.view()) };
            let shape_status = || {
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
            on.scores(left, right, scale, to).map_err(|error| Failure::of(error, shape_status))
        })
    }
}

operation! {
    /// Computes the outputs of attention from a pattern: out[query] = sum over the keys of
    /// pattern[key][query] * values[key]. pattern: keys x queries; values: keys x width; out:
    /// queries x width. A weight of 0 times an infinite value is NaN here; in sdpa_attention the
    /// value of a masked key never reaches the output.
    ///
    /// Overlap: out must not overlap any input. On failure out is unchanged.
    fn sdpa_weighted_sum, sdpa_weighted_sum_on(
        on, pattern: sdpa_matrix, values: sdpa_matrix, out: sdpa_matrix_mut,
    ) {
        let out_region = out.output()?;
        out_region.check_disjoint(pattern.operand()?)?;
        out_region.check_disjoint(values.operand()?)?;
        // SAFETY: aligned, not NULL, disjoint, and as the caller promises.
        let (left, right, to) = unsafe { (pattern.view(), values.view(), out.view()) };
        let shape_status = || {
            if values.rows != pattern.rows || values.cols == 0 {
                SDPA_ERROR_SHAPE_VALUES
            } else if out.shape() != [pattern.cols, values.cols] {
                SDPA_ERROR_SHAPE_OUT
            } else {
                SDPA_ERROR_SHAPE
            }
        };
        on.weighted_sum(left, right, to).map_err(|error| Failure::of(error, shape_status))
    }
}
