//! Known answers: the table of the worked example, and one trained head from embeddings to output.

use sdpa::{Backend, Error, MatrixMut, MatrixRef};

use crate::{Arena, digest::Digest};

/// Results compared with the expected ones.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub name: &'static str,
    /// The largest error as a fraction of its bound.
    pub part: f64,
}

/// Reads the floats of a `.npy` file of `f32`; tests on the host check its shape.
const fn f32s<const N: usize>(file: &[u8]) -> [f32; N] {
    let mut floats = [0.0; N];
    let begin = file.len() - 4 * N;
    let mut i = 0;
    while i < N {
        let at = begin + 4 * i;
        floats[i] = f32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]);
        i += 1;
    }
    floats
}

/// Reads the floats of a `.npy` file of `f64`.
const fn f64s<const N: usize>(file: &[u8]) -> [f64; N] {
    let mut floats = [0.0; N];
    let begin = file.len() - 8 * N;
    let mut i = 0;
    while i < N {
        let mut bytes = [0; 8];
        let mut byte = 0;
        while byte < 8 {
            bytes[byte] = file[begin + 8 * i + byte];
            byte += 1;
        }
        floats[i] = f64::from_le_bytes(bytes);
        i += 1;
    }
    floats
}

macro_rules! data {
    ($name:ident, $floats:ident, $type:ty, $len:expr, $file:literal) => {
        static $name: [$type; $len] =
            $floats(include_bytes!(concat!("../../../examples/data/minilm-l2h1/", $file, ".npy")));
    };
}

data!(EMBEDDINGS, f32s, f32, 8 * 384, "embeddings");
data!(W_QUERY, f32s, f32, 384 * 32, "w_query");
data!(W_KEY, f32s, f32, 384 * 32, "w_key");
data!(W_VALUE, f32s, f32, 384 * 32, "w_value");
data!(B_QUERY, f32s, f32, 32, "b_query");
data!(B_KEY, f32s, f32, 32, "b_key");
data!(B_VALUE, f32s, f32, 32, "b_value");
data!(EXPECTED_SCORES, f64s, f64, 64, "expected_scores.f64");
data!(EXPECTED_PATTERN, f64s, f64, 64, "expected_pattern.f64");
data!(EXPECTED_OUTPUT, f64s, f64, 8 * 32, "expected_output.f64");

fn worst(got: &[f32], want: &[f64], bound: f64) -> f64 {
    let errors = got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).abs() / bound);
    // A NaN stays the worst: `f64::max` would drop it.
    errors.fold(0.0, |worst, error| if error <= worst || worst.is_nan() { worst } else { error })
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// The worked example that the project began with: a row per key, a column per query.
pub fn notebook(backend: Backend, digest: &mut Digest) -> Result<Answer, Error> {
    let scores = [
        [0.7, -0.93, -0.24, -5.0],
        [-0.73, 2.9, -0.5, 93.0],
        [-0.53, -0.57, 1.9, 94.0],
        [-0.4, -0.29, -0.86, 4.9],
    ];
    let want = [
        [0.536345, 0.019844, 0.092520, 0.0],
        [0.128352, 0.914078, 0.071338, 0.268941],
        [0.156770, 0.028443, 0.786371, 0.731059],
        [0.178534, 0.037634, 0.049771, 0.0],
    ];
    let mut pattern = [[0.0; 4]; 4];
    let (from, to) = (MatrixRef::from(scores.as_slice()), MatrixMut::from(pattern.as_mut_slice()));
    backend.softmax_columns(from, to)?;
    let mut slice = scores[0];
    backend.softmax_in_place(&mut slice);
    let part = worst(pattern.as_flattened(), want.as_flattened(), 0.6e-6);
    let part = part.max(worst(&slice, &[0.628969, 0.123234, 0.245693, 0.002105], 0.6e-6));
    pattern.as_flattened().iter().chain(&slice).for_each(|&x| digest.add(x));
    Ok(Answer { name: "the notebook", part })
}

/// The trained head: its scores, its pattern, its output.
pub fn head(
    backend: Backend,
    arena: &mut Arena,
    digest: &mut Digest,
) -> Result<[Answer; 3], Error> {
    let x = MatrixRef::new(&EMBEDDINGS, 8, 384)?;
    let layers = [(&W_QUERY, &B_QUERY), (&W_KEY, &B_KEY), (&W_VALUE, &B_VALUE)];
    for ((w, bias), out) in layers.into_iter().zip(&mut arena.inputs) {
        backend.project(x, MatrixRef::new(w, 384, 32)?, Some(bias), MatrixMut::new(out, 8, 32)?)?;
    }
    let [queries, keys, values] = &arena.inputs;
    let [queries, keys] = [queries, keys].map(|x| MatrixRef::new(x, 8, 32));
    let (scores, rest) = arena.output.split_at_mut(64);
    let (pattern, output) = rest.split_at_mut(64);
    let output = &mut output[..8 * 32];
    backend.scores(keys?, queries?, None, MatrixMut::new(scores, 8, 8)?)?;
    backend.softmax_columns(MatrixRef::new(scores, 8, 8)?, MatrixMut::new(pattern, 8, 8)?)?;
    let values = MatrixRef::new(values, 8, 32)?;
    backend.weighted_sum(MatrixRef::new(pattern, 8, 8)?, values, MatrixMut::new(output, 8, 32)?)?;

    // The bounds of tests/attention_pattern.rs, which gives the reasons.
    let strayed = |roundings: f64, x: &[f64]| libm::sqrt(roundings) / 16_777_216.0 * largest(x);
    let bound = strayed(384.0 + 32.0, &EXPECTED_SCORES);
    let output_bound = strayed(384.0 + 8.0, &EXPECTED_OUTPUT);
    scores.iter().chain(&*pattern).chain(&*output).for_each(|&x| digest.add(x));
    Ok([
        Answer { name: "scores of the head", part: worst(scores, &EXPECTED_SCORES, bound) },
        Answer { name: "its pattern", part: worst(pattern, &EXPECTED_PATTERN, bound / 4.0) },
        Answer { name: "its output", part: worst(output, &EXPECTED_OUTPUT, output_bound) },
    ])
}
