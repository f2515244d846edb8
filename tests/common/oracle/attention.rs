//! Attention in plain f64 under all options, with the quantities that its bounds depend on.

use super::super::{grid::Grid, options::Options};
use super::{Sum, sum};

/// 2⁻²⁴, the largest relative error of one rounding.
const U: f64 = 1.0 / 16_777_216.0;

/// A result, and the propagated errors of its scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truth {
    pub(crate) sum: Sum,
    pub(crate) propagated: f64,
}

impl Truth {
    fn exact(value: f64) -> Self {
        Self { sum: Sum { value, magnitude: 0.0, underflow: 0.0 }, propagated: 0.0 }
    }
}

/// The results of one head. An output is NaN, or +∞ for any infinite value.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) out: Grid<Truth>,
    pub(crate) log_sum_exp: Vec<Truth>,
    /// Keys × queries, +0 where masked.
    pub(crate) pattern: Grid<Truth>,
}

/// The number of roundings of a score: its products; the scale (two more for the default, a square root and a
/// quotient); the softcap (a quotient, a tanh within 2 ULP, which count as 4, a product); the bias; and the slope (a
/// product and a difference).
pub(crate) fn roundings(options: &Options, dim: usize) -> usize {
    let scale = if options.scale.is_some() { 1 } else { 3 };
    let softcap = if options.softcap != 0.0 { 6 } else { 0 };
    let slopes = if options.slopes.is_empty() { 0 } else { 2 };
    dim + scale + softcap + usize::from(options.bias.is_some()) + slopes
}

/// The scores of the visible keys of head 0, with the sums of absolute values that their errors scale with. tanh does not
/// amplify errors.
pub(crate) fn scores(options: &Options, queries: &Grid, keys: &Grid) -> Grid<Option<Sum>> {
    let scores = super::scores(keys, queries, options.scale);
    Grid::from_fn(keys.rows, queries.rows, |key, token| {
        let mut score = scores.at(key, token);
        if options.softcap != 0.0 {
            let cap = f64::from(options.softcap);
            // The cap multiplies the errors of five roundings; that of the product remains.
            score.underflow += 5.0 * cap + 1.0;
            if score.value.is_infinite() {
                score = Sum { magnitude: cap, underflow: 0.0, ..score };
            }
            score.value = cap * (score.value / cap).tanh();
        }
        if let Some(bias) = &options.bias {
            let bias = f64::from(bias.at(key, token));
            score.value += bias;
            score.magnitude += bias.abs();
        }
        if let [slope, ..] = options.slopes[..] {
            let distance = f64::from(slope) * f64::from(options.distance(key, token));
            score.value -= distance;
            score.magnitude += distance.abs();
            score.underflow += 1.0;
        }
        options.sees(key, token).then_some(score)
    })
}

/// The error of `exp`: 1.1 ULP of a float is at most 2.2·u times the float.
const EXP: f64 = 2.2 * U;

/// The roundings that the range reduction of `exp` adds to a score: two if N · ln 2 is not exact.
fn inside_exp(score: f64) -> f64 {
    if score.abs() < 2800.0 { 0.0 } else { 2.0 }
}

/// A visible key, or the sink.
struct Weighed {
    key: Option<usize>,
    score: f64,
    /// The error of the logarithm of its weight: that of the score, and 1.1 ULP of `exp`.
    off: f64,
}

pub(crate) fn attention(
    options: &Options,
    head: usize,
    [queries, keys, values]: [&Grid; 3],
) -> Answer {
    let options = &options.of_head(head);
    let scores = scores(options, queries, keys);
    let count = roundings(options, keys.cols) as f64;
    let mut answer = Answer {
        out: Grid { rows: queries.rows, cols: values.cols, data: Vec::new() },
        log_sum_exp: Vec::new(),
        pattern: Grid::from_fn(keys.rows, queries.rows, |_, _| Truth::exact(0.0)),
    };
    for token in 0..queries.rows {
        let mut weighed: Vec<Weighed> = (0..keys.rows)
            .filter_map(|key| {
                let Sum { value: score, magnitude, underflow } = scores.at(key, token)?;
                let smallest = f64::from_bits((1023 - 150) << 52);
                let off = (count + inside_exp(score)) * U * magnitude + underflow * smallest;
                Some(Weighed { key: Some(key), score, off: off + EXP })
            })
            .collect();
        let sink = f64::from(options.sink(0));
        if sink > f64::NEG_INFINITY {
            let off = inside_exp(sink) * U * sink.abs() + EXP;
            weighed.push(Weighed { key: None, score: sink, off });
        }
        let column = Column::new(weighed);
        for col in 0..values.cols {
            let blocks = keys.rows.div_ceil(64) as f64;
            answer.out.data.push(column.output(blocks, |key| f64::from(values.at(key, col))));
        }
        answer.log_sum_exp.push(column.log_sum_exp());
        for (weighed, weight) in column.weights() {
            if let Some(key) = weighed {
                answer.pattern.data[key * queries.rows + token] = weight;
            }
        }
    }
    answer
}

/// The column of one query: its visible keys and the sink.
struct Column {
    weighed: Vec<Weighed>,
    largest: f64,
    /// The weights relative to the largest.
    weights: Vec<f64>,
    total: f64,
    /// The fraction of the total that remains if all weights err downwards.
    left: f64,
    has_nan: bool,
}

impl Column {
    fn new(weighed: Vec<Weighed>) -> Self {
        let has_nan = weighed.iter().any(|weighed| weighed.score.is_nan());
        let largest = weighed.iter().map(|weighed| weighed.score).fold(f64::NEG_INFINITY, f64::max);
        let weight = |score: f64| match largest == f64::INFINITY {
            true => f64::from(u8::from(score == f64::INFINITY)),
            false if score == f64::NEG_INFINITY => 0.0,
            false => (score - largest).exp(),
        };
        let weights: Vec<f64> = weighed.iter().map(|weighed| weight(weighed.score)).collect();
        let total = weights.iter().sum();
        let pairs = weighed.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0);
        let left = pairs.map(|(weighed, weight)| weight * (-off(weighed)).exp()).sum::<f64>();
        Self { weighed, largest, weights, total, left: left / total, has_nan }
    }

    fn parts(&self) -> impl Iterator<Item = (&Weighed, f64)> {
        self.weighed.iter().zip(self.weights.iter().map(|weight| weight / self.total))
    }

    fn output(&self, blocks: f64, value: impl Fn(usize) -> f64) -> Truth {
        let value_of = |weighed: &Weighed| weighed.key.map_or(0.0, &value);
        let values = || self.weighed.iter().map(value_of);
        if self.has_nan || values().any(f64::is_nan) {
            return Truth::exact(f64::NAN);
        }
        if values().any(f64::is_infinite) {
            return Truth::exact(f64::INFINITY);
        }
        if self.total == 0.0 {
            return Truth::exact(0.0);
        }
        let mut sum = sum(self.parts().map(|(weighed, part)| part * value_of(weighed)));
        // The reciprocal of a sum of weights is at most 2.
        sum.underflow = 2.0 * (sum.underflow + 2.0 * blocks) + 2.0;
        // `exp` and each rescale may flush weights below 2⁻¹²⁶ of the largest to +0.
        let flushed = f64::from_bits((1023 - 124) << 52);
        let propagated = self
            .parts()
            .map(|(weighed, part)| {
                let apart = (value_of(weighed) - sum.value).abs();
                (if part > 0.0 { part * off(weighed).exp_m1() } else { 0.0 } + flushed) * apart
            })
            .sum::<f64>();
        Truth { sum, propagated: propagated / self.left }
    }

    /// The magnitude is weighted by roundings: 5 of ln sum (2 ULP, which count as 4, and an addition), one of
    /// the result, and those of N · ln 2 where it is not exact; sum is at most twice the total.
    fn log_sum_exp(&self) -> Truth {
        if self.has_nan {
            return Truth::exact(f64::NAN);
        }
        if self.total == 0.0 || self.largest == f64::INFINITY {
            return Truth::exact(self.largest);
        }
        let logarithm = self.total.ln();
        let value = self.largest + logarithm;
        let large = inside_exp(self.largest) * self.largest.abs();
        let magnitude = 5.0 * (logarithm + std::f64::consts::LN_2) + value.abs() + large;
        Truth { sum: Sum { value, magnitude, underflow: 0.0 }, propagated: self.more() }
    }

    /// The propagated error of the logarithm of the total.
    fn more(&self) -> f64 {
        let parts = self.parts().filter(|(_, part)| *part > 0.0);
        parts.map(|(weighed, part)| part * off(weighed).exp()).sum::<f64>().ln()
    }

    fn weights(&self) -> impl Iterator<Item = (Option<usize>, Truth)> {
        let more = self.more();
        self.parts().map(move |(weighed, part)| {
            let value = if self.has_nan { f64::NAN } else { part };
            let value = if self.total == 0.0 && !self.has_nan { 0.0 } else { value };
            let propagated = if part > 0.0 { part * (off(weighed) + more).exp_m1() } else { 0.0 };
            let sum = Sum { value, magnitude: value, underflow: 0.0 };
            (weighed.key, Truth { sum, propagated })
        })
    }
}

/// The error of a weight's logarithm; 0 if the score is infinite, which decides the weight.
fn off(weighed: &Weighed) -> f64 {
    if weighed.score.is_finite() { weighed.off } else { 0.0 }
}
