//! Attention against the f64 oracle, within the bounds of `common/bounds.rs`, under all
//! options, on every back end; and special values, which must be where the oracle has them.

use crate::common::{
    bounds::{self, Bound, Case, Worst},
    cases::{Kind, Rng},
    grid::Grid,
    options::Options,
    oracle::attention::{self, Answer, Truth},
};
use sdpa::{Attention, Backend};

suite! {
    results_are_within_their_bounds,
    special_values_match_the_oracle,
}

/// Checks attention calls against every bound on them.
struct Checks {
    out: Worst,
    log_sum_exp: Worst,
    pattern: Worst,
    tiny: Worst,
    scores: Worst,
}

impl Checks {
    fn new() -> Self {
        let of = |bound: &'static Bound| Worst::new(bound);
        Self {
            out: of(&bounds::ATTENTION),
            log_sum_exp: of(&bounds::LOG_SUM_EXP),
            pattern: of(&bounds::ATTENTION_PATTERN),
            tiny: of(&bounds::TINY_WEIGHT),
            scores: of(&bounds::ATTENTION_SCORES),
        }
    }

    fn finish(self, backend: Backend) {
        for worst in [self.out, self.log_sum_exp, self.pattern, self.tiny, self.scores] {
            worst.finish(backend.name());
        }
    }

    /// Computes and checks one head.
    #[track_caller]
    fn check(&mut self, backend: Backend, options: &Options, grids: [&Grid; 3]) {
        let (out, logarithms) = run(backend, options, grids);
        let truth = attention::attention(options, 0, grids);
        let keys = grids[1].rows;
        for (&got, &truth) in out.data.iter().zip(&truth.out.data) {
            self.out.check(got, case(keys, truth));
        }
        for (&got, &truth) in logarithms.iter().zip(&truth.log_sum_exp) {
            match truth.sum.value {
                f64::NEG_INFINITY => assert_eq!(got, f32::NEG_INFINITY),
                _ => self.log_sum_exp.check(got, case(keys, truth)),
            }
        }
        self.check_grids(backend, options, grids, &truth);
    }

    #[track_caller]
    fn check_grids(
        &mut self,
        backend: Backend,
        options: &Options,
        [queries, keys, _]: [&Grid; 3],
        truth: &Answer,
    ) {
        let attention = options.attention(backend);
        let mut out = Grid::zeros(keys.rows, queries.rows);
        attention.pattern(queries.view(), keys.view(), out.view_mut()).unwrap();
        for (&got, &truth) in out.data.iter().zip(&truth.pattern.data) {
            let is_tiny = truth.sum.value < bounds::SMALL_WEIGHT;
            let worst = if is_tiny { &mut self.tiny } else { &mut self.pattern };
            worst.check(got, case(keys.rows, truth));
        }
        attention.scores(queries.view(), keys.view(), out.view_mut()).unwrap();
        let scores = attention::scores(options, queries, keys);
        let count = attention::roundings(options, keys.cols);
        for (&got, &truth) in out.data.iter().zip(&scores.data) {
            match truth {
                Some(sum) => self.scores.check(got, case(count, Truth { sum, propagated: 0.0 })),
                None => assert_eq!(got, f32::NEG_INFINITY),
            }
        }
    }
}

fn case(n: usize, truth: Truth) -> Case {
    Case { fma: false, n, truth: truth.sum, propagated: truth.propagated }
}

fn run(
    backend: Backend,
    options: &Options,
    [queries, keys, values]: [&Grid; 3],
) -> (Grid, Vec<f32>) {
    let mut out = Grid::zeros(queries.rows, values.cols);
    let mut logarithms = vec![0.0; queries.rows];
    let mut workspace = vec![0.0; Attention::workspace(queries.cols, values.cols)];
    let (q, k, v) = (queries.view(), keys.view(), values.view());
    let into = out.view_mut();
    options
        .attention(backend)
        .run_with_log_sum_exp(q, k, v, into, &mut logarithms, &mut workspace)
        .unwrap();
    (out, logarithms)
}

fn random<const N: usize>(rng: &mut Rng, shapes: [(Kind, usize, usize); N]) -> [Grid; N] {
    shapes.map(|(kind, rows, cols)| Grid::random(rng, kind, rows, cols))
}

fn results_are_within_their_bounds(backend: Backend) {
    let mut checks = Checks::new();
    for cases in [
        ordinary_scores,
        all_options,
        many_keys,
        scores_spread_over_160,
        all_scores_equal,
        one_key_of_many,
        sharp_and_flat,
    ] {
        cases(backend, &mut checks);
    }
    checks.finish(backend);
}

fn ordinary_scores(backend: Backend, checks: &mut Checks) {
    let mut rng = Rng::new(41);
    for _ in 0..1500 {
        let (tokens, keys) = (1 + rng.below(20), 1 + rng.below(150));
        let (dim, width) = (1 + rng.below(20), 1 + rng.below(20));
        let [q, k, v] = random(
            &mut rng,
            [
                (Kind::Ordinary, tokens, dim),
                (Kind::Ordinary, keys, dim),
                (Kind::Ordinary, keys, width),
            ],
        );
        checks.check(backend, &Options::new(), [&q, &k, &v]);
    }
}

/// Kinds whose scores and outputs are finite.
const FINITE: [Kind; 5] =
    [Kind::Ordinary, Kind::Ordinary, Kind::Tiny, Kind::Subnormal, Kind::Zeros];

/// Options whose scores are finite, within the range for which weights are promised.
fn finite_options(rng: &mut Rng, keys: usize, tokens: usize) -> Options {
    let mut options = Options::random(rng, 1, keys, tokens);
    if let Some(bias) = &mut options.bias {
        let kind = rng.pick(&[Kind::Ordinary, Kind::Masked, Kind::Masked]);
        *bias = Grid::random(rng, kind, keys, tokens).into();
    }
    limit(&mut options);
    options
}

/// Limits sinks, softcap, and the products of slopes and distances.
fn limit(options: &mut Options) {
    options.sinks.retain(|sink| sink.abs() <= 80.0);
    options.softcap = options.softcap.min(50.0);
    if !options.slopes.is_empty() {
        options.slopes[0] = options.slopes[0].clamp(-0.25, 0.25);
        options.offset = options.offset.clamp(-150, 150);
    }
}

fn all_options(backend: Backend, checks: &mut Checks) {
    let mut rng = Rng::new(42);
    for _ in 0..2500 {
        let (tokens, keys) = (1 + rng.below(20), rng.below(150));
        let (dim, width) = (1 + rng.below(20), 1 + rng.below(20));
        let [q, k, v] = {
            let kinds = [rng.pick(&FINITE), rng.pick(&FINITE), rng.pick(&FINITE)];
            random(
                &mut rng,
                [(kinds[0], tokens, dim), (kinds[1], keys, dim), (kinds[2], keys, width)],
            )
        };
        let options = finite_options(&mut rng, keys, tokens);
        checks.check(backend, &options, [&q, &k, &v]);
    }
}

/// One column of the values follows the signs of the weights' errors, so that these add up; other columns are
/// all positive, so that sums grow.
fn many_keys(backend: Backend, checks: &mut Checks) {
    let mut rng = Rng::new(43);
    let mut long = Worst::new(&bounds::ATTENTION_LONG);
    for dim in [1, 2, 16, 64, 64] {
        let [q, k, mut v] = random(
            &mut rng,
            [(Kind::Ordinary, 1, dim), (Kind::Ordinary, 8192, dim), (Kind::Ordinary, 8192, 9)],
        );
        for options in [Options::new(), Options { causal: true, offset: 8000, ..Options::new() }] {
            follow_errors(backend, &options, &q, &k, &mut v);
            checks.check(backend, &options, [&q, &k, &v]);
        }
        let (out, _) = run(backend, &Options::new(), [&q, &k, &v]);
        let truth = attention::attention(&Options::new(), 0, [&q, &k, &v]).out;
        for (&got, &truth) in out.data.iter().zip(&truth.data) {
            long.check(got, case(8192, truth));
        }
    }
    long.finish(backend.name());
}

/// Sets column 0 of the values to 1 where a weight of the first query is too large, else to −1.
fn follow_errors(backend: Backend, options: &Options, q: &Grid, k: &Grid, v: &mut Grid) {
    let mut pattern = Grid::zeros(k.rows, q.rows);
    options.attention(backend).pattern(q.view(), k.view(), pattern.view_mut()).unwrap();
    let truth = attention::attention(options, 0, [q, k, v]).pattern;
    let mean: f64 =
        (0..k.rows).map(|key| error(&pattern, &truth, key)).sum::<f64>() / k.rows as f64;
    for key in 0..k.rows {
        let above = error(&pattern, &truth, key) > mean;
        v.data[key * v.cols] = if above { 1.0 } else { -1.0 };
    }
}

/// Returns the relative error of a weight of the first query.
fn error(pattern: &Grid, truth: &Grid<Truth>, key: usize) -> f64 {
    match truth.at(key, 0).sum.value {
        0.0 => 0.0,
        weight => f64::from(pattern.at(key, 0)) / weight - 1.0,
    }
}

/// Scores in [−80, 80], of one product and of many.
fn scores_spread_over_160(backend: Backend, checks: &mut Checks) {
    let mut rng = Rng::new(44);
    for _ in 0..100 {
        let (tokens, keys) = (1 + rng.below(5), 1 + rng.below(1024));
        let dim = rng.pick(&[1, 1, 2, 16]);
        let [mut q, k, v] = random(
            &mut rng,
            [(Kind::Ordinary, tokens, dim), (Kind::Ordinary, keys, dim), (Kind::Ordinary, keys, 4)],
        );
        let wide = 80.0 / dim as f32;
        q.data.iter_mut().for_each(|x| *x *= wide);
        let options = Options { scale: Some(1.0), ..Options::new() };
        checks.check(backend, &options, [&q, &k, &v]);
    }
}

fn all_scores_equal(backend: Backend, checks: &mut Checks) {
    let mut rng = Rng::new(45);
    for keys in [1, 2, 3, 5, 63, 64, 65, 200, 1024, 8192] {
        for score in [0.0, 1.0, -7.3, 80.0, -80.0] {
            let [v] = random(&mut rng, [(Kind::Ordinary, keys, 9)]);
            let q = Grid::from_fn(3, 1, |_, _| 1.0);
            let k = Grid::from_fn(keys, 1, |_, _| score);
            checks.check(backend, &Options::new(), [&q, &k, &v]);
        }
    }
}

/// All weight is on one key: the output is its value up to the last roundings.
fn one_key_of_many(backend: Backend, checks: &mut Checks) {
    let mut rng = Rng::new(46);
    for _ in 0..200 {
        let keys = 1 + rng.below(300);
        let one = rng.below(keys);
        let [q, mut k, v] = random(
            &mut rng,
            [(Kind::Ordinary, 1, 1), (Kind::Ordinary, keys, 1), (Kind::Ordinary, keys, 5)],
        );
        k.data[one] = if q.data[0] < 0.0 { -1e5 } else { 1e5 };
        checks.check(backend, &Options::new(), [&q, &k, &v]);
    }
}

/// Scores far from 0, of either sign, near each other or far apart.
fn sharp_and_flat(backend: Backend, checks: &mut Checks) {
    let mut rng = Rng::new(47);
    for _ in 0..400 {
        let (keys, dim) = (1 + rng.below(200), 1 + rng.below(4));
        let (middle, half) = (rng.between(-3e4, 3e4), rng.pick(&[0.01, 1.0, 30.0, 1e4]));
        let [q, v] = random(&mut rng, [(Kind::Ordinary, 2, dim), (Kind::Ordinary, keys, 5)]);
        let k = Grid::from_fn(keys, dim, |_, _| middle + rng.between(-half, half));
        let (out, logarithms) = run(backend, &Options::new(), [&q, &k, &v]);
        let truth = attention::attention(&Options::new(), 0, [&q, &k, &v]);
        for (&got, &truth) in out.data.iter().zip(&truth.out.data) {
            checks.out.check(got, case(keys, truth));
        }
        for (&got, &truth) in logarithms.iter().zip(&truth.log_sum_exp) {
            checks.log_sum_exp.check(got, case(keys, truth));
        }
    }
}

/// NaN and infinite outputs where the oracle has them, and all other outputs within the bound.
fn special_values_match_the_oracle(backend: Backend) {
    let mut rng = Rng::new(48);
    let mut checks = Checks::new();
    let mut seen = [0; 4];
    for _ in 0..3000 {
        let (tokens, keys) = (1 + rng.below(20), rng.below(150));
        let (dim, width) = (1 + rng.below(5), 1 + rng.below(5));
        let mut some = |rows, cols| {
            let kind = rng.pick(&[Kind::Ordinary, Kind::Ordinary, Kind::OneNan, Kind::Infinite]);
            let mut grid = Grid::random(&mut rng, Kind::Ordinary, rows, cols);
            let special = Grid::random(&mut rng, kind, rows, cols);
            let part = rng.pick(&[1, 30]);
            for (x, special) in grid.data.iter_mut().zip(special.data) {
                *x = if rng.one_in(part) || special.is_nan() { special } else { *x };
            }
            grid
        };
        let (q, k, v) = (some(tokens, dim), some(keys, dim), some(keys, width));
        let mut options = Options::random(&mut rng, 1, keys, tokens);
        // A query times a small scale may underflow, and then ∞ times 0 is NaN; for scores far from 0
        // there is no bound.
        options.scale = rng.pick(&[None, Some(1.0), Some(0.0)]);
        limit(&mut options);
        let (out, logarithms) = run(backend, &options, [&q, &k, &v]);
        let truth = attention::attention(&options, 0, [&q, &k, &v]);
        for (i, (&got, &truth)) in out.data.iter().zip(&truth.out.data).enumerate() {
            let what = || format!("{got} at {i}, not {truth:?}: {options:?}, {q:?}, {k:?}, {v:?}");
            match truth.sum.value {
                value if value.is_nan() => assert!(got.is_nan(), "{}", what()),
                value if value.is_infinite() => assert!(!got.is_finite(), "{}", what()),
                0.0 => assert_eq!(got.to_bits(), 0, "{}", what()),
                _ => checks.out.check(got, case(keys, truth)),
            }
            seen[class(truth.sum.value)] += 1;
        }
        for (&got, &truth) in logarithms.iter().zip(&truth.log_sum_exp) {
            match truth.sum.value {
                value if value.is_nan() => assert!(got.is_nan()),
                value if value.is_infinite() => assert_eq!(f64::from(got), value),
                _ => checks.log_sum_exp.check(got, case(keys, truth)),
            }
        }
    }
    assert!(seen.iter().all(|&count| count > 3000), "{seen:?}");
}

fn class(x: f64) -> usize {
    match x {
        0.0 => 0,
        x if x.is_nan() => 1,
        x if x.is_infinite() => 2,
        _ => 3,
    }
}
