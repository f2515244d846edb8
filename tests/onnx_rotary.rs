//! The RotaryEmbedding cases of onnx 1.22 (`tests/data/onnx-1.22`), on every back end. Their cosines and sines are any
//! numbers; a token with a position of its own is rotated by itself.
//!
//! onnx rounds both products and their sum: the non-FMA family has its bits.

use std::{fs, path::Path};

use crate::{
    common::{
        assert_same_bits,
        bounds::{Case, ONNX_ROTATE, Worst},
        oracle::Sum,
    },
    onnx_attention::{Layout, Tensor},
};
use sdpa::{Backend, Family, HeadsMut, HeadsRef, MatrixRef, Pairs, RotaryTable};
use serde_json::Value;

suite! { every_case }

fn every_case(backend: Backend) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx-1.22");
    let cases: Vec<Value> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
        .filter(|case: &Value| case["op"] == "RotaryEmbedding")
        .collect();
    assert_eq!(cases.len(), 8);
    let mut worst = Worst::new(&ONNX_ROTATE);
    for case in &cases {
        check(backend, case, &mut worst);
    }
    if backend.family() == Family::Fma {
        worst.finish(backend.name());
    }
}

fn check(backend: Backend, case: &Value, worst: &mut Worst) {
    let (inputs, attributes) = (&case["inputs"], &case["attributes"]);
    let name = case["name"].as_str().unwrap();
    let [x, cosines, sines] =
        ["input", "cos_cache", "sin_cache"].map(|name| Tensor::read(&inputs[name]).unwrap());
    let want = Tensor::read(&case["outputs"]["output"]).unwrap();
    let positions = inputs["position_ids"]["data"].as_array();
    let pairs = match attributes["interleaved"] == 1 {
        true => Pairs::Interleaved,
        false => Pairs::Halves,
    };
    let layout = Layout::of(&x, &attributes["num_heads"]);
    let mut out = vec![f32::NAN; x.data.len()];
    let len = out.len() / x.shape[0];
    for (batch, out) in out.chunks_mut(len).enumerate() {
        let factors = [&cosines, &sines].map(|factors| match factors.shape[..] {
            [rows, pairs] => MatrixRef::new(&factors.data, rows, pairs).unwrap(),
            [_, rows, pairs] => MatrixRef::new(factors.batch(batch), rows, pairs).unwrap(),
            _ => panic!("{:?}", factors.shape),
        });
        let table = RotaryTable::from_parts(factors[0], factors[1], 0).unwrap();
        let (from, mut to) = (layout.view(x.batch(batch)), layout.view_mut(out));
        match positions {
            None => backend.rotate(from, &table, 0, pairs, to).unwrap(),
            Some(positions) => {
                let positions = &positions[batch * layout.tokens..][..layout.tokens];
                for (token, position) in positions.iter().enumerate() {
                    let (from, to) = (token_of(from, token), token_of_mut(to.view_mut(), token));
                    backend.rotate(from, &table, position.as_u64().unwrap(), pairs, to).unwrap();
                }
            }
        }
    }
    assert_eq!(x.shape, want.shape);
    if backend.family() == Family::NonFma {
        return assert_same_bits(name, &out, &want.data);
    }
    for (&got, &want) in out.iter().zip(&want.data) {
        // Inputs and products are in [0, 1): see the bound.
        let truth = Sum { value: f64::from(want), magnitude: 1.0, underflow: 0.0 };
        worst.check(got, Case { fma: true, n: 4, truth, propagated: 0.0 });
    }
}

fn token_of(x: HeadsRef<'_>, token: usize) -> HeadsRef<'_> {
    x.split_rows(token).unwrap().1.split_rows(1).unwrap().0
}

fn token_of_mut(x: HeadsMut<'_>, token: usize) -> HeadsMut<'_> {
    x.split_rows(token).unwrap().1.split_rows(1).unwrap().0
}
