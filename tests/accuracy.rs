//! Every operation against the f64 oracle, within the bounds of
//! `common/bounds.rs`, on every back end; and a search for the worst softmax.

use crate::common::{
    bounds::{self, Bound, Case, Worst},
    cases::{self, Kind, Rng},
    grid::Grid,
    oracle::{self, Sum},
};
use sdpa::{Backend, Family};

suite! {
    dot,
    project,
    scores,
    scores_by_dim,
    weighted_sum,
    long_weighted_sums,
    softmax,
    softmax_columns,
    tiny_weights,
    one_large_score_among_equal_ones,
    climbing_softmax,
    climbing_softmax_columns,
}

/// Kinds whose sums are finite.
const FINITE: [Kind; 6] =
    [Kind::Ordinary, Kind::Ordinary, Kind::Wide, Kind::Tiny, Kind::Subnormal, Kind::Zeros];

/// The bound's case for a sum of `n` products.
fn case(backend: Backend, n: usize, truth: Sum) -> Case {
    Case { fma: backend.family() == Family::Fma, n, truth, propagated: 0.0 }
}

fn random(rng: &mut Rng, rows: usize, cols: usize) -> Grid {
    let kind = rng.pick(&FINITE);
    Grid::random(rng, kind, rows, cols)
}

/// A small shape, so that many can be tested; sometimes a long sum.
fn shape(rng: &mut Rng) -> (usize, usize, usize) {
    let depth = if rng.one_in(10) { cases::length(rng) } else { 1 + rng.below(20) };
    (1 + rng.below(8), 1 + rng.below(20), depth.max(1))
}

fn check_all(worst: &mut Worst, backend: Backend, n: usize, got: &Grid, truth: &Grid<Sum>) {
    for (&got, &truth) in got.data.iter().zip(&truth.data) {
        worst.check(got, case(backend, n, truth));
    }
}

fn dot(backend: Backend) {
    let mut rng = Rng::new(101);
    let mut worst = Worst::new(&bounds::DOT);
    for _ in 0..20_000 {
        let n = cases::length(&mut rng);
        let (a, b) = (random(&mut rng, 1, n), random(&mut rng, 1, n));
        let got = backend.dot(&a.data, &b.data).unwrap();
        worst.check(got, case(backend, n, oracle::dot(&a.data, &b.data)));
    }
    worst.finish(backend.name());
}

fn project(backend: Backend) {
    let mut rng = Rng::new(102);
    let mut worst = Worst::new(&bounds::PROJECT);
    for _ in 0..3000 {
        let (tokens, outputs, inputs) = shape(&mut rng);
        let (x, w) = (random(&mut rng, tokens, inputs), random(&mut rng, inputs, outputs));
        let bias = random(&mut rng, 1, outputs).data;
        let bias = rng.one_in(2).then_some(bias.as_slice());
        let mut out = Grid::zeros(tokens, outputs);
        backend.project(x.view(), w.view(), bias, out.view_mut()).unwrap();
        check_all(&mut worst, backend, inputs, &out, &oracle::project(&x, &w, bias));
    }
    worst.finish(backend.name());
}

fn scores(backend: Backend) {
    check_scores(backend, &bounds::SCORES, |rng| Some(rng.between(-2.0, 2.0)));
}

fn scores_by_dim(backend: Backend) {
    check_scores(backend, &bounds::SCORES_BY_DIM, |_| None);
}

fn check_scores(backend: Backend, bound: &'static Bound, scale: fn(&mut Rng) -> Option<f32>) {
    let mut rng = Rng::new(103);
    let mut worst = Worst::new(bound);
    for _ in 0..3000 {
        let (keys, queries, dim) = shape(&mut rng);
        let (k, q) = (random(&mut rng, keys, dim), random(&mut rng, queries, dim));
        let scale = scale(&mut rng);
        let mut out = Grid::zeros(keys, queries);
        backend.scores(k.view(), q.view(), scale, out.view_mut()).unwrap();
        check_all(&mut worst, backend, dim, &out, &oracle::scores(&k, &q, scale));
    }
    worst.finish(backend.name());
}

fn weighted_sum(backend: Backend) {
    let mut rng = Rng::new(104);
    let mut worst = Worst::new(&bounds::WEIGHTED_SUM);
    for _ in 0..3000 {
        let (queries, width, keys) = shape(&mut rng);
        let (p, v) = (random(&mut rng, keys, queries), random(&mut rng, keys, width));
        let mut out = Grid::zeros(queries, width);
        backend.weighted_sum(p.view(), v.view(), out.view_mut()).unwrap();
        check_all(&mut worst, backend, keys, &out, &oracle::weighted_sum(&p, &v));
    }
    worst.finish(backend.name());
}

/// One chain over a million keys would be off by 0.9 %.
fn long_weighted_sums(backend: Backend) {
    let mut rng = Rng::new(105);
    for keys in [65, 1000, 1_000_000] {
        let ones = Grid::from_fn(keys, 1, |_, _| 1.0);
        let weights = Grid::from_fn(keys, 1, |_, _| 1e-6);
        let mut out = Grid::zeros(1, 1);
        backend.weighted_sum(weights.view(), ones.view(), out.view_mut()).unwrap();
        let truth = keys as f32 * 1e-6;
        assert!((out.data[0] - truth).abs() <= 1e-4 * truth, "{keys} keys: {}", out.data[0]);
        let kind = rng.pick(&[Kind::Ordinary, Kind::Wide]);
        let [p, v] = [5, 9].map(|cols| Grid::random(&mut rng, kind, keys.min(3000), cols));
        let mut out = Grid::zeros(5, 9);
        backend.weighted_sum(p.view(), v.view(), out.view_mut()).unwrap();
        let mut worst = Worst::new(&bounds::WEIGHTED_SUM);
        check_all(&mut worst, backend, p.rows, &out, &oracle::weighted_sum(&p, &v));
    }
}

/// Checks weights against every bound on them.
struct Weights {
    weight: Worst,
    tiny: Worst,
    sum: Worst,
}

impl Weights {
    fn new() -> Self {
        let [weight, tiny, sum] =
            [&bounds::WEIGHT, &bounds::TINY_WEIGHT, &bounds::WEIGHTS].map(Worst::new);
        Self { weight, tiny, sum }
    }

    fn check(&mut self, x: &[f32], got: &[f32]) {
        for (&got, truth) in got.iter().zip(oracle::softmax(x)) {
            assert!((0.0..=1.0).contains(&got) && got.is_sign_positive(), "{got:e}");
            assert!(got == 0.0 || got.is_normal(), "{got:e} is subnormal");
            let is_tiny = truth < bounds::SMALL_WEIGHT;
            let worst = if is_tiny { &mut self.tiny } else { &mut self.weight };
            worst.check(got, Case::of_weight(truth));
        }
        let total: f64 = got.iter().copied().map(f64::from).sum();
        self.sum.check_exact(total, Case::of_weight(1.0));
    }

    /// As a slice and as a column.
    fn check_both(&mut self, backend: Backend, x: &[f32]) {
        let mut slice = x.to_vec();
        backend.softmax_in_place(&mut slice);
        self.check(x, &slice);
        let mut column = Grid { rows: x.len(), cols: 1, data: x.to_vec() };
        backend.softmax_columns_in_place(column.view_mut());
        self.check(x, &column.data);
    }
}

fn softmax(backend: Backend) {
    let mut rng = Rng::new(105);
    let mut weights = Weights::new();
    for _ in 0..8000 {
        let x = wide_row(&mut rng);
        let mut out = x.clone();
        backend.softmax_in_place(&mut out);
        weights.check(&x, &out);
    }
    weights.weight.finish(backend.name());
    weights.sum.finish(backend.name());
}

fn softmax_columns(backend: Backend) {
    let mut rng = Rng::new(106);
    let mut weights = Weights::new();
    for _ in 0..400 {
        let (rows, cols) = (1 + rng.below(1024), 1 + rng.below(20));
        let x = Grid::random(&mut rng, Kind::Wide, rows, cols);
        let mut out = x.clone();
        backend.softmax_columns_in_place(out.view_mut());
        (0..cols).for_each(|col| weights.check(&x.column(col), &out.column(col)));
    }
    weights.weight.finish(backend.name());
    weights.sum.finish(backend.name());
}

/// A row of up to 1024 scores in [−80, 80], with a random width around a random middle.
fn wide_row(rng: &mut Rng) -> Vec<f32> {
    let n = 1 + rng.below(1024);
    let (a, b) = (rng.between(-80.0, 80.0), rng.between(-80.0, 80.0));
    (0..n).map(|_| rng.between(a.min(b), a.max(b))).collect()
}

/// Rows whose weights are around 2⁻¹²⁵, and around the threshold below which they are +0.
fn tiny_weights(backend: Backend) {
    let mut rng = Rng::new(107);
    let mut weights = Weights::new();
    for _ in 0..4000 {
        weights.check_both(backend, &row_at_the_edge(&mut rng));
    }
    weights.weight.finish(backend.name());
    weights.tiny.finish(backend.name());
}

/// Some large scores, and many whose weights are 2⁻¹²⁷ to 2⁻¹²⁴.
fn row_at_the_edge(rng: &mut Rng) -> Vec<f32> {
    let (m, large) = (rng.between(10.0, 80.0), 1 + rng.below(6));
    let edge = m + (large as f32).ln() - 125.5 * std::f32::consts::LN_2;
    (0..large + rng.below(60))
        .map(|i| if i < large { m } else { edge + rng.between(-1.0, 1.0) })
        .collect()
}

/// Every addition to the sum of weights rounds in the same direction here, so that the correction of the
/// compensated sum grows until it is rounded itself.
fn one_large_score_among_equal_ones(backend: Backend) {
    let mut rng = Rng::new(109);
    let mut weights = Weights::new();
    for _ in 0..1000 {
        let common = rng.between(-15.0, 0.0);
        let mut x = vec![common; 1024];
        x[0] = 0.0;
        weights.check_both(backend, &x);
    }
    weights.weight.finish(backend.name());
}

/// The range for which 6 ULP are promised.
const LENGTHS: [usize; 15] = [2, 3, 4, 5, 7, 8, 16, 17, 33, 64, 100, 200, 257, 600, 1024];

/// The budget: the number of climbs for each length, and of elements that each climb evaluates.
const CLIMBS: usize = 6;
const CLIMB: usize = 500_000;

fn climbing_softmax(backend: Backend) {
    climb_all(backend, "slice", |x, out| backend.softmax(x, out).unwrap());
}

fn climbing_softmax_columns(backend: Backend) {
    climb_all(backend, "column", |x, out| {
        let (n, out) = (x.len(), sdpa::MatrixMut::from_row(out).t());
        let x = sdpa::MatrixRef::with_strides(x, n, 1, 1, 1).unwrap();
        backend.softmax_columns(x, out).unwrap();
    });
}

fn climb_all(backend: Backend, what: &str, softmax: impl Fn(&[f32], &mut [f32])) {
    let mut rng = Rng::new(108);
    let mut worst = 0.0;
    let mut report = String::new();
    for n in LENGTHS {
        let ulps = (0..CLIMBS).map(|_| climb(&mut rng, n, &softmax)).fold(0.0, f64::max);
        worst = ulps.max(worst);
        report += &format!(" {n}: {ulps:.2}");
    }
    println!("{}: {what}: climbed to {worst:.3} ULP;{report}", backend.name());
    assert!(worst <= 6.0, "{backend:?}: {what}: {worst} ULP;{report}");
    assert!(worst >= 2.0, "the search finds too little: {worst} ULP;{report}");
}

/// Hill climbing from a random row: keeps each change that does not reduce the largest error.
fn climb(rng: &mut Rng, n: usize, softmax: impl Fn(&[f32], &mut [f32])) -> f64 {
    let mut out = vec![0.0; n];
    let mut worst = |x: &[f32]| {
        softmax(x, &mut out);
        worst_weight(x, &out)
    };
    let mut row = start(rng, n);
    let mut ulps = worst(&row);
    for _ in 0..CLIMB / n {
        let mut other = row.clone();
        mutate(rng, &mut other);
        let other_ulps = worst(&other);
        if other_ulps >= ulps {
            (ulps, row) = (other_ulps, other);
        }
    }
    ulps
}

/// A random row, or a few large scores among many equal ones, where every addition to the sum rounds in the
/// same direction.
fn start(rng: &mut Rng, n: usize) -> Vec<f32> {
    let half = rng.pick(&[1.0, 8.0, 80.0]);
    let common = rng.between(-15.0, 0.0);
    let equal = rng.one_in(2);
    (0..n)
        .map(|i| match equal {
            true if i < 2 => 0.0,
            true => common,
            false => rng.between(-half, half),
        })
        .collect()
}

fn worst_weight(x: &[f32], got: &[f32]) -> f64 {
    let pairs = got.iter().zip(oracle::softmax(x));
    pairs
        .filter(|&(_, truth)| truth >= bounds::SMALL_WEIGHT)
        .map(|(&got, truth)| oracle::ulps(got, truth))
        .fold(0.0, f64::max)
}

fn mutate(rng: &mut Rng, row: &mut [f32]) {
    let i = rng.below(row.len());
    match rng.below(7) {
        0 => row[i] = rng.between(-80.0, 80.0),
        1 => row[i] = nudge(rng, row[i]),
        2 => row[i] = row[rng.below(row.len())],
        3 => row[i] = (row[i] + rng.between(-1.0, 1.0)).clamp(-80.0, 80.0),
        4 => {
            let common = row[rng.below(row.len())];
            many(rng, row, |_, x| *x = common);
        }
        5 => many(rng, row, |rng, x| *x = nudge(rng, *x)),
        _ => {
            let by = rng.between(-1.0, 1.0);
            row.iter_mut().for_each(|x| *x = (*x + by).clamp(-80.0, 80.0));
        }
    }
}

/// Changes a random part of the row.
fn many(rng: &mut Rng, row: &mut [f32], change: impl Fn(&mut Rng, &mut f32)) {
    let part = 1 + rng.below(8);
    for x in row {
        if rng.one_in(part) {
            change(rng, x);
        }
    }
}

/// Moves `x` by a few ULP.
fn nudge(rng: &mut Rng, x: f32) -> f32 {
    let range = rng.pick(&[2, 32, 4096]);
    let bits = x.to_bits().wrapping_add(rng.below(2 * range + 1) as u32).wrapping_sub(range as u32);
    let nudged = f32::from_bits(bits);
    if nudged.is_nan() { x } else { nudged.clamp(-80.0, 80.0) }
}
