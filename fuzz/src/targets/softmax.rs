//! Every softmax: of a slice, of rows, of columns; in place and out of place; with canaries around outputs.

use sdpa::{Backend, MatrixMut};

use super::{input::Input, on_all};
use crate::common::{
    bounds::{self, Case, Worst},
    cases::Layout,
    grid::{Grid, GuardedMatrix},
    oracle,
    reference::Reference,
};

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let what = input.u8() % 3;
    let (rows, cols) = match what {
        0 => (1, input.length()),
        _ => (input.size(), input.size()),
    };
    let x = input.matrix(rows, cols);
    let (out, in_place) = (input.output(rows, cols), input.output(rows, cols));
    match what {
        0 => slice(&x.grid()),
        1 => rows_of(&x, out, in_place),
        _ => columns_of(&x, out, in_place),
    }
}

/// Softmax of slices, at an offset and with canaries on both sides.
fn slice(x: &Grid) {
    let layout = Layout {
        rows: 1,
        cols: x.cols,
        start: 3,
        row_stride: x.cols,
        col_stride: 1,
        len: x.cols + 6,
    };
    let reference = |reference: Reference| reference.softmax_rows(x);
    let families = on_all("softmax", reference, |backend| {
        let mut out = GuardedMatrix::empty(layout);
        with_slice(out.view_mut(), |out| backend.softmax(x.row(0), out).expect("one length"));
        out.checked("softmax")
    });
    on_all("softmax in place", reference, |backend| {
        let mut out = GuardedMatrix::of(x, layout);
        with_slice(out.view_mut(), |out| backend.softmax_in_place(out));
        out.checked("softmax in place")
    });
    families.iter().for_each(|(_, got)| check_weights(&x.data, &got.data));
}

/// Calls `run` with the only row of a matrix; with an empty slice if it has no elements.
fn with_slice(mut row: MatrixMut<'_>, run: impl FnOnce(&mut [f32])) {
    run(row.row_mut(0).unwrap_or_default());
}

fn rows_of(x: &GuardedMatrix, out: Layout, in_place: Layout) {
    let grid = x.grid();
    let reference = |reference: Reference| reference.softmax_rows(&grid);
    let families = on_all("softmax_rows", reference, |backend| {
        let mut out = GuardedMatrix::empty(out);
        backend.softmax_rows(x.view(), out.view_mut()).expect("one shape");
        out.checked("softmax_rows")
    });
    on_all("softmax_rows in place", reference, |backend| {
        over(&grid, in_place, |out| Backend::softmax_rows_in_place(backend, out))
    });
    for (_, got) in families {
        (0..grid.rows).for_each(|row| check_weights(grid.row(row), got.row(row)));
    }
}

fn columns_of(x: &GuardedMatrix, out: Layout, in_place: Layout) {
    let grid = x.grid();
    let reference = |reference: Reference| reference.softmax_columns(&grid);
    let families = on_all("softmax_columns", reference, |backend| {
        let mut out = GuardedMatrix::empty(out);
        backend.softmax_columns(x.view(), out.view_mut()).expect("one shape");
        out.checked("softmax_columns")
    });
    on_all("softmax_columns in place", reference, |backend| {
        over(&grid, in_place, |out| Backend::softmax_columns_in_place(backend, out))
    });
    for (_, got) in families {
        (0..grid.cols).for_each(|col| check_weights(&grid.column(col), &got.column(col)));
    }
}

/// Runs `run` in place on a copy of `grid` and returns the result.
fn over(grid: &Grid, layout: Layout, run: impl FnOnce(MatrixMut<'_>)) -> Grid {
    let mut held = GuardedMatrix::of(grid, layout);
    run(held.view_mut());
    held.checked("in place")
}

/// Checks the properties of weights that hold for any input, and their bounds where these are promised.
fn check_weights(x: &[f32], got: &[f32]) {
    if x.iter().any(|x| x.is_nan()) {
        assert!(got.iter().all(|w| w.is_nan()), "a NaN is left out: {got:?}");
        return;
    }
    let infinite = x.contains(&f32::INFINITY);
    // A score of −∞ has the weight +0 and does not count among the inputs.
    let stated = |&x: &f32| (-80.0..=80.0).contains(&x) || x == f32::NEG_INFINITY;
    let stated = infinite || x.iter().all(stated);
    for ((&x, &got), truth) in x.iter().zip(got).zip(oracle::softmax(x)) {
        assert!((0.0..=1.0).contains(&got) && got.is_sign_positive(), "{x:e} weighs {got:e}");
        assert!(got == 0.0 || got.is_normal(), "{x:e} weighs {got:e}, which is subnormal");
        let nothing = x == f32::NEG_INFINITY || (infinite && x != f32::INFINITY);
        assert!(!nothing || got == 0.0, "{x:e} weighs {got:e}, not +0");
        if stated {
            let is_tiny = truth < bounds::SMALL_WEIGHT;
            let bound = if is_tiny { &bounds::TINY_WEIGHT } else { &bounds::WEIGHT };
            Worst::new(bound).check(got, Case::of_weight(truth));
        }
        // x − max is rounded once. It is below 104 unless the weight is 0, so that the relative errors of the
        // weight and of the sum are at most 104·2⁻²⁴ each.
        let error = (f64::from(got) - truth).abs();
        assert!(error < 2e-5, "{x:e} weighs {got:e}, not {truth:e}");
    }
    if stated && x.iter().any(|&x| x > f32::NEG_INFINITY) {
        let total = got.iter().copied().map(f64::from).sum();
        Worst::new(&bounds::WEIGHTS).check_exact(total, Case::of_weight(1.0));
    }
}
