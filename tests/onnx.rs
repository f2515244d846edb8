//! The Softmax cases of onnx 1.22 (`tests/data/onnx-1.22`), on every back end;
//! `onnx_attention.rs` has the Attention cases.

use std::{fs, path::Path};

use crate::common::{
    self,
    bounds::{Case, ONNX, Worst},
    grid::Grid,
};
use sdpa::{Backend, MatrixMut, MatrixRef};
use serde_json::Value;

suite! { cases_by_columns, cases_by_rows }

/// A softmax along the columns of a matrix.
type Columns = fn(Backend, MatrixRef<'_>, MatrixMut<'_>);

fn cases_by_columns(backend: Backend) {
    run_all(backend, |backend, x, out| backend.softmax_columns(x, out).unwrap());
}

fn cases_by_rows(backend: Backend) {
    run_all(backend, |backend, x, out| backend.softmax_rows(x.t(), out.t()).unwrap());
}

fn run_all(backend: Backend, columns: Columns) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx-1.22");
    let mut worst = Worst::new(&ONNX);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let case: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
            if case["op"] != "Softmax" {
                continue;
            }
            run(backend, columns, &case, &mut worst);
            count += 1;
        }
    }
    assert_eq!(count, 7);
    worst.finish(backend.name());
}

fn run(backend: Backend, columns: Columns, case: &Value, worst: &mut Worst) {
    let (shape, x) = tensor(&case["inputs"]["input"]);
    let (out_shape, want) = tensor(&case["outputs"]["output"]);
    assert_eq!(shape, out_shape);
    let axis = case["attributes"]["axis"].as_i64().unwrap_or(-1);
    let mut out = vec![0.0; x.len()];
    softmax_along(backend, columns, &x, &shape, axis, &mut out);
    assert!(!out.is_empty() && out.len() == want.len());
    for (&got, &want) in out.iter().zip(&want) {
        worst.check(got, Case::of_weight(f64::from(want)));
    }
}

/// Views the tensor as a stack of matrices whose columns run along the axis.
fn softmax_along(
    backend: Backend,
    columns: Columns,
    x: &[f32],
    shape: &[usize],
    axis: i64,
    out: &mut [f32],
) {
    let axis = usize::try_from(axis.rem_euclid(shape.len() as i64)).unwrap();
    let (rows, cols) = (shape[axis], shape[axis + 1..].iter().product());
    for (x, out) in x.chunks(rows * cols).zip(out.chunks_mut(rows * cols)) {
        let x = MatrixRef::new(x, rows, cols).unwrap();
        columns(backend, x, MatrixMut::new(out, rows, cols).unwrap());
    }
}

fn tensor(value: &Value) -> (Vec<usize>, Vec<f32>) {
    assert_eq!(value["dtype"], "f32");
    let shape = value["shape"].as_array().unwrap().iter();
    let data = value["data"].as_array().unwrap().iter();
    (
        shape.map(|n| n.as_u64().unwrap() as usize).collect(),
        data.map(|x| x.to_string().parse().unwrap()).collect(),
    )
}

/// Tests the adapter itself along each axis of a cube.
#[test]
fn softmax_runs_along_the_given_axis() {
    let x: Vec<f32> = (0..24_u8).map(|i| f32::from(i * 5 % 7)).collect();
    let shape = [2, 3, 4];
    let columns: Columns = |backend, x, out| backend.softmax_columns(x, out).unwrap();
    for (axis, step) in [(0, 12), (1, 4), (2, 1), (-1, 1), (-3, 12)] {
        let mut out = vec![0.0; 24];
        softmax_along(Backend::SCALAR, columns, &x, &shape, axis, &mut out);
        let length = shape[usize::try_from(axis.rem_euclid(3)).unwrap()];
        for first in (0..24).filter(|i| i / step % length == 0) {
            let along = |data: &[f32]| (0..length).map(|i| data[first + i * step]).collect();
            let mut want = Grid { rows: length, cols: 1, data: along(&x) };
            Backend::SCALAR.softmax_columns_in_place(want.view_mut());
            common::assert_same_bits("axis", &along(&out), &want.data);
        }
    }
}
