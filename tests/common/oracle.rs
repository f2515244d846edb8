//! The oracle: every operation in plain f64, and distances in ULP. Shares no code with the crate.

pub(crate) mod attention;
pub(crate) mod rotary;

use super::grid::Grid;

/// A sum of products, and the quantities that its error bound scales with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    pub(crate) value: f64,
    /// The sum of the absolute values of the terms.
    pub(crate) magnitude: f64,
    /// The number of roundings that may be to a subnormal.
    pub(crate) underflow: f64,
}

fn sum(terms: impl Iterator<Item = f64>) -> Sum {
    let zero = Sum { value: 0.0, magnitude: 0.0, underflow: 0.0 };
    terms.fold(zero, |sum, term| Sum {
        value: sum.value + term,
        magnitude: sum.magnitude + term.abs(),
        underflow: sum.underflow + 1.0,
    })
}

fn product(a: f32, b: f32) -> f64 {
    f64::from(a) * f64::from(b)
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> Sum {
    sum(a.iter().zip(b).map(|(&a, &b)| product(a, b)))
}

pub(crate) fn project(x: &Grid, w: &Grid, bias: Option<&[f32]>) -> Grid<Sum> {
    Grid::from_fn(x.rows, w.cols, |row, col| {
        let products = (0..w.rows).map(|k| product(x.at(row, k), w.at(k, col)));
        sum(products.chain(bias.map(|bias| f64::from(bias[col]))))
    })
}

/// The rounding error of a subnormal scaled query is multiplied by the key, and counts in `underflow`.
pub(crate) fn scores(keys: &Grid, queries: &Grid, scale: Option<f32>) -> Grid<Sum> {
    let scale = scale.map_or_else(|| 1.0 / (keys.cols as f64).sqrt(), f64::from);
    Grid::from_fn(keys.rows, queries.rows, |key, query| {
        let (key, query) = (keys.row(key), queries.row(query));
        let sum = sum(key.iter().zip(query).map(|(&k, &q)| scale * product(k, q)));
        let keys: f64 = key.iter().map(|&k| f64::from(k.abs())).sum();
        Sum { underflow: sum.underflow + keys, ..sum }
    })
}

pub(crate) fn weighted_sum(pattern: &Grid, values: &Grid) -> Grid<Sum> {
    Grid::from_fn(pattern.cols, values.cols, |query, col| {
        sum((0..values.rows).map(|key| product(pattern.at(key, query), values.at(key, col))))
    })
}

pub(crate) fn softmax(x: &[f32]) -> Vec<f64> {
    if x.iter().any(|x| x.is_nan()) {
        return vec![f64::NAN; x.len()];
    }
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return vec![0.0; x.len()];
    }
    let weight = |x: f32| match largest == f32::INFINITY {
        true => f64::from(u8::from(x == f32::INFINITY)),
        false => (f64::from(x) - f64::from(largest)).exp(),
    };
    let mut weights: Vec<f64> = x.iter().map(|&x| weight(x)).collect();
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    weights
}

pub(crate) fn softmax_rows(x: &Grid) -> Grid<f64> {
    let rows = (0..x.rows).flat_map(|row| softmax(x.row(row)));
    Grid { rows: x.rows, cols: x.cols, data: rows.collect() }
}

pub(crate) fn softmax_columns(x: &Grid) -> Grid<f64> {
    softmax_rows(&x.t()).t()
}

/// The distance of the two floats around `truth`.
pub(crate) fn ulp(truth: f64) -> f64 {
    let exponent = (truth.abs().to_bits() >> 52).max(1023 - 126);
    f64::from_bits((exponent - 23) << 52)
}

/// The error of `got` in ULP of an f32.
pub(crate) fn ulps(got: f32, truth: f64) -> f64 {
    (f64::from(got) - truth).abs() / ulp(truth)
}
