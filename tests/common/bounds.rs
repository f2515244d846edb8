//! The table of error bounds, and the check of results against it.
//!
//! u = 2⁻²⁴ is the largest relative error of one rounding. A sum in which each
//! product passes k roundings has an error of at most k·u·(1 + k·u)·Σ|products| (Higham,
//! *Accuracy and Stability of Numerical Algorithms*, section 3.1), plus 2⁻¹⁵⁰ for
//! each rounding to a subnormal. A product that is added to 0 is rounded once in both
//! families: by the multiply-add in the FMA family, by the multiplication in the non-FMA family.

use super::oracle::{Sum, ulp};

/// 2⁻²⁴.
const U: f64 = 1.0 / 16_777_216.0;

/// 2⁻¹⁵⁰: the largest error of a rounding to a subnormal.
const SMALLEST: f64 = f64::from_bits((1023 - 150) << 52);

/// 2⁻¹²⁵: bounds of weights from here on are in ULP.
pub(crate) const SMALL_WEIGHT: f64 = f64::from_bits((1023 - 125) << 52);

/// The properties of a result on which its bound depends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) fma: bool,
    /// The number of terms of the sum.
    pub(crate) n: usize,
    pub(crate) truth: Sum,
    /// The error propagated from earlier steps.
    pub(crate) propagated: f64,
}

impl Case {
    /// A weight or a sum of weights, whose bound depends on the true value only.
    pub(crate) fn of_weight(truth: f64) -> Self {
        let truth = Sum { value: truth, magnitude: truth, underflow: 0.0 };
        Self { fma: false, n: 1, truth, propagated: 0.0 }
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) name: &'static str,
    pub(crate) allowed: fn(Case) -> f64,
    /// The worst of many cases reaches at least this fraction of the allowed error; otherwise the
    /// bound is too loose, and the test fails.
    pub(crate) reached: f64,
}

/// (⌈n / P⌉ + log₂ P)·u·Σ|a·b|: P partial sums, each a chain, then a tree. P is 64 in the FMA family and 4
/// in the non-FMA family.
pub(crate) const DOT: Bound = Bound {
    name: "dot",
    allowed: |case| {
        let (partial_sums, folds) = if case.fma { (64, 6) } else { (4, 2) };
        roundings(case, case.n.div_ceil(partial_sums) + folds)
    },
    reached: 0.3,
};

/// (n + 1)·u·(Σ|x·w| + |bias|): one chain, then the bias.
pub(crate) const PROJECT: Bound =
    Bound { name: "project", allowed: |case| roundings(case, case.n + 1), reached: 0.5 };

/// (dim + 1)·u·Σ|scale·key·query|: the scaled query, one chain.
pub(crate) const SCORES: Bound =
    Bound { name: "scores", allowed: |case| roundings(case, case.n + 1), reached: 0.5 };

/// (dim + 3)·u·Σ|key·query|/√dim: two more roundings for the scale, a square root and a quotient.
pub(crate) const SCORES_BY_DIM: Bound = Bound {
    name: "scores, scale 1/√dim",
    allowed: |case| roundings(case, case.n + 3),
    reached: 0.3,
};

/// (min(keys, 64) + b − 1)·u·Σ|weight·value|: a chain for each of b blocks, then their additions.
pub(crate) const WEIGHTED_SUM: Bound = Bound {
    name: "weighted_sum",
    allowed: |case| roundings(case, case.n.min(64) + case.n.div_ceil(64).saturating_sub(1)),
    reached: 0.5,
};

/// 6·u·(w·|a| + v·|b|): two exponentials of 1 ULP, their sum, a quotient, two products.
pub(crate) const MERGE: Bound =
    Bound { name: "merge", allowed: |case| roundings(case, 6), reached: 0.5 };

/// 3·u·(1 + |log-sum-exp|): two exponentials and their sum; two roundings at the end.
pub(crate) const MERGE_LOG_SUM_EXP: Bound =
    Bound { name: "merge, log-sum-exp", allowed: |case| roundings(case, 3), reached: 0.4 };

/// n·u·max|value|: the difference between the attention over all keys and over parts that were merged, for
/// the same scores. n is the sum of 2·(64 + blocks + 12), for the chain of a block, the additions of blocks
/// and the roundings of a weight in both; and parts·(6 + 6·(1 + |log-sum-exp|)), for each merge and the propagated
/// roundings of its two log-sum-exps.
pub(crate) const MERGED_PARTS: Bound =
    Bound { name: "parts, merged", allowed: |case| roundings(case, case.n), reached: 0.02 };

/// 3·u·√(a² + b²), of which 2.82 may be reached: 0.71 for the cosine and the sine, which are at most 1 and off by u/2
/// each; 1 for the products; 1 for their sum; 0.11 for the angle up to position 2²⁴.
pub(crate) const ROTATE: Bound =
    Bound { name: "rotate", allowed: |case| case.propagated + roundings(case, 3), reached: 0.6 };

/// 6 ULP, for at most 1024 inputs in [−80, 80].
pub(crate) const WEIGHT: Bound =
    Bound { name: "weight", allowed: |case| 6.0 * ulp(case.truth.value), reached: 0.3 };

/// 2⁻¹²⁵, for smaller true weights.
pub(crate) const TINY_WEIGHT: Bound =
    Bound { name: "weight < 2⁻¹²⁵", allowed: |_| SMALL_WEIGHT, reached: 0.4 };

/// 4·u for the sum of all weights, which is 1: the two parts of the compensated sum and their addition,
/// the reciprocal, and the products with it.
pub(crate) const WEIGHTS: Bound = Bound { name: "Σ weights", allowed: |_| 4.0 * U, reached: 0.3 };

/// (dim + 1 … 12)·u·(Σ|scale·key·query| + |bias| + |slope·distance|): the scaled query, one chain, then the roundings of the
/// options (`n` is `oracle::attention::roundings`).
pub(crate) const ATTENTION_SCORES: Bound =
    Bound { name: "attention, scores", allowed: |case| roundings(case, case.n), reached: 0.3 };

/// The propagated errors of the scores, and the 6 ULP of a softmax.
pub(crate) const ATTENTION_PATTERN: Bound = Bound {
    name: "attention, pattern",
    allowed: |case| case.propagated + 6.0 * ulp(case.truth.value),
    reached: 0.3,
};

/// First the propagated errors of the weights: an error δ of a key's score and 1.1 ULP of its `exp` change
/// its weight by a factor of e^θ, |θ| ≤ |δ| + 2.2·u, and the output by at most
/// Σ weight·|e^θ − 1|·|value − output| / Σ weight·e^θ. Then u·Σ|weight·value| for each rounding of the sums
/// over `n` keys in spans of b blocks of 64: in the numerator min(n, 64) multiply-adds, b additions of blocks
/// and those of the other spans; in the denominator ⌈min(n, 64) / 4⌉ + 1 additions of weights and the same
/// of blocks and spans; and for the sink, the reciprocal and the last product.
pub(crate) const ATTENTION: Bound = Bound {
    name: "attention",
    allowed: |case| {
        let block = case.n.min(64);
        let joins = joins(case.n);
        case.propagated + roundings(case, block + block.div_ceil(4) + 2 * joins + 2)
    },
    reached: 0.3,
};

/// The additions of the blocks of a span of `n` keys, and those of the other spans.
fn joins(n: usize) -> usize {
    n.div_ceil(64).min(16) + n.div_ceil(1024).saturating_sub(1)
}

/// 2·u·Σ|weight·value|, for 8192 random keys: the size of independent roundings in sums of blocks
/// of blocks; one chain over all keys has an error of 5 to 30. A regression guard, not a promise.
pub(crate) const ATTENTION_LONG: Bound =
    Bound { name: "attention, long", allowed: |case| 2.0 * U * case.truth.magnitude, reached: 0.3 };

/// The propagated errors of the weights (|θ| of [`ATTENTION`], weighted); u for each addition of weights;
/// and the roundings of ln sum, N·ln 2 and their addition, which the oracle counts in the magnitude.
pub(crate) const LOG_SUM_EXP: Bound = Bound {
    name: "log-sum-exp",
    allowed: |case| {
        let additions = case.n.min(64).div_ceil(4) + 1 + joins(case.n);
        case.propagated + U * (additions as f64 + case.truth.magnitude)
    },
    reached: 0.3,
};

/// 8 ULP from the outputs of onnx, which numpy computed in f32 with errors of their own.
pub(crate) const ONNX: Bound =
    Bound { name: "onnx", allowed: |case| 8.0 * ulp(case.truth.value), reached: 0.25 };

/// Half the bound of attention, from outputs that numpy computed in f32 with errors of their own.
pub(crate) const ONNX_ATTENTION: Bound = Bound {
    name: "onnx, attention",
    allowed: |case| 0.5 * (ATTENTION.allowed)(case),
    reached: 0.3,
};

/// Half the bound of scores, as for [`ONNX_ATTENTION`].
pub(crate) const ONNX_SCORES: Bound = Bound {
    name: "onnx, scores",
    allowed: |case| 0.5 * (ATTENTION_SCORES.allowed)(case),
    reached: 0.3,
};

/// Half the bound of the pattern, as for [`ONNX_ATTENTION`].
pub(crate) const ONNX_PATTERN: Bound = Bound {
    name: "onnx, pattern",
    allowed: |case| 0.5 * (ATTENTION_PATTERN.allowed)(case),
    reached: 0.15,
};

/// 4·u for products in [0, 1), from outputs that numpy computed in f32: its two products and ours, u/2 each, and both
/// sums, below 2: u each.
pub(crate) const ONNX_ROTATE: Bound =
    Bound { name: "onnx, rotate", allowed: |case| roundings(case, case.n), reached: 0.3 };

fn roundings(case: Case, count: usize) -> f64 {
    let k = count as f64;
    k * U * (1.0 + k * U) * case.truth.magnitude + case.truth.underflow * SMALLEST
}

/// Checks results against one bound, and that the bound is not too loose.
pub(crate) struct Worst {
    bound: &'static Bound,
    part: f64,
}

impl Worst {
    pub(crate) fn new(bound: &'static Bound) -> Self {
        Self { bound, part: 0.0 }
    }

    #[track_caller]
    pub(crate) fn check(&mut self, got: f32, case: Case) {
        self.check_exact(f64::from(got), case);
    }

    #[track_caller]
    pub(crate) fn check_exact(&mut self, got: f64, case: Case) {
        let error = (got - case.truth.value).abs();
        let allowed = (self.bound.allowed)(case);
        let name = self.bound.name;
        assert!(error <= allowed, "{name}: {got:e} is off by {error:e} > {allowed:e}: {case:?}");
        // Results near underflow do not show whether the relative part of the bound is tight.
        if allowed > 1e3 * case.truth.underflow * SMALLEST {
            self.part = self.part.max(error / allowed);
        }
    }

    /// Fails if the bound is too loose.
    #[track_caller]
    pub(crate) fn finish(self, back_end: &str) {
        let Self { bound: Bound { name, reached, .. }, part } = self;
        println!("{back_end}: {name}: {part:.3} of the bound at worst");
        assert!(part >= *reached, "{name}: {part:.3} of its bound is reached: make it tighter");
    }
}
