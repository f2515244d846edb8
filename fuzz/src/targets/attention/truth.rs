//! The oracle in f64, from the scores that the crate computed, and the bounds of the results.

use sdpa::{Family, KEY_BLOCK};

/// 2⁻²⁴.
pub(crate) const U: f64 = 1.0 / 16_777_216.0;

/// The scores of the visible keys of a query, and the sink.
pub(crate) struct Column {
    /// The largest score; may be ±∞.
    pub(crate) m: f64,
    pub(crate) weights: Vec<f64>,
    /// NaN if a score is.
    pub(crate) log_sum_exp: f64,
}

impl Column {
    pub(crate) fn new(sink: f32, scores: &[f32]) -> Self {
        let (sink, scores) = (f64::from(sink), scores.iter().map(|&x| f64::from(x)));
        let m = scores.clone().fold(sink, f64::max);
        if scores.clone().any(f64::is_nan) {
            return Self { m, weights: Vec::new(), log_sum_exp: f64::NAN };
        }
        let weight = |x: f64| match m {
            f64::INFINITY => f64::from(u8::from(x == f64::INFINITY)),
            f64::NEG_INFINITY => 0.0,
            _ => (x - m).exp(),
        };
        let total: f64 = scores.clone().map(weight).sum::<f64>() + weight(sink);
        let part = |x| if total > 0.0 { weight(x) / total } else { 0.0 };
        let log_sum_exp = if m.is_finite() { m + total.ln() } else { m };
        Self { m, weights: scores.map(part).collect(), log_sum_exp }
    }
}

/// The error bounds of results.
pub(crate) struct Tolerance {
    /// In units of u·Σ weight·|value|.
    output: f64,
    /// In units of u·max |value|.
    largest: f64,
    /// In units of u.
    log_sum_exp: f64,
    keys: f64,
}

impl Tolerance {
    /// Counts the chain of a block, the additions of blocks, and the roundings of a weight. In the non-FMA
    /// family the range reduction of a score beyond 2048 has an error like that of the score's rounding.
    pub(crate) fn new(family: Family, keys: usize, column: &Column) -> Self {
        let blocks = keys.div_ceil(KEY_BLOCK) as f64;
        let m = if column.m.is_finite() { column.m.abs() } else { 0.0 };
        let reduction = if family == Family::NonFma && m > 2048.0 { 4.0 * m } else { 0.0 };
        let log = if column.log_sum_exp.is_finite() { column.log_sum_exp.abs() } else { 0.0 };
        Self {
            output: keys.min(KEY_BLOCK) as f64 + 2.0 * blocks + 30.0 + 2.0 * reduction,
            largest: 0.0,
            log_sum_exp: 3.0 * (1.0 + log) + 25.0 + blocks + reduction,
            keys: keys as f64,
        }
    }

    /// The bounds for two merged parts: errors of their log-sum-exps are relative errors of their weights.
    pub(crate) fn merged(&self) -> Self {
        Self {
            output: 2.0 * self.output + 6.0,
            largest: 4.0 * self.log_sum_exp,
            log_sum_exp: 3.0 * self.log_sum_exp,
            keys: self.keys,
        }
    }

    pub(crate) fn check_log(&self, got: f32, truth: f64) {
        if truth.is_nan() {
            assert!(got.is_nan(), "log-sum-exp {got:e}, not NaN");
        } else if truth.is_infinite() {
            assert_eq!(f64::from(got), truth, "log-sum-exp");
        } else {
            let error = (f64::from(got) - truth).abs();
            assert!(error <= self.log_sum_exp * U, "log-sum-exp {got:e}, not {truth:e}");
        }
    }

    /// Returns an output: the values of the visible keys under the weights of `column`.
    pub(crate) fn check(&self, got: f32, column: &Column, values: &[f64]) {
        if column.log_sum_exp.is_nan() || values.iter().any(|x| x.is_nan()) {
            assert!(got.is_nan(), "{got:e}, not NaN");
            return;
        }
        if values.iter().any(|x| x.is_infinite()) {
            assert!(!got.is_finite(), "{got:e}, not infinite or NaN");
            return;
        }
        let largest = values.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
        // Weights are below 2, and the division by their sum is last.
        if 2.0 * (self.keys + 1.0) * largest > 3e38 {
            return;
        }
        let products = || values.iter().zip(&column.weights).map(|(value, weight)| value * weight);
        let (truth, magnitude): (f64, f64) = (products().sum(), products().map(f64::abs).sum());
        let underflow = (self.keys + 4.0) * (largest * 5e-38 + 6e-45);
        let allowed = (self.output * magnitude + self.largest * largest) * U + underflow;
        let error = (f64::from(got) - truth).abs();
        assert!(error <= allowed, "{got:e}, not {truth:e}: off by {error:e} > {allowed:e}");
        if column.m == f64::NEG_INFINITY {
            assert_eq!(got.to_bits(), 0, "no key, and not +0");
        }
    }
}
