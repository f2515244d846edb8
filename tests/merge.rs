//! Merging partial results of attention: against f64, against one call over all keys, and with special
//! values; on every back end.

use crate::common::{
    assert_same_bits,
    bounds::{self, Case, Worst},
    cases::{self, Kind, Layout, Rng},
    grid::{CANARY, Grid, GuardedMatrix, is_untouched},
    oracle::Sum,
};
use sdpa::{Attention, Backend, Error, MatrixMut, MatrixRef};

suite! {
    merging_is_a_weighted_mean,
    large_log_sum_exps,
    a_state_and_an_empty_one,
    two_empty_states,
    infinite_log_sum_exps,
    a_nan_stays_in_its_query,
    values_that_are_not_finite_reach_the_output,
    any_layout_has_the_same_bits,
    a_family_has_the_same_bits,
    a_query_does_not_depend_on_others,
    merged_parts_match_the_whole,
    a_sink_belongs_to_one_part,
    grouping_does_not_matter,
    no_queries,
    sizes_that_disagree,
}

const INFINITY: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

/// A partial result: outputs, and the log-sum-exp of each query.
#[derive(Clone, Debug)]
struct State {
    out: Grid,
    log_sum_exp: Vec<f32>,
}

impl State {
    fn random(rng: &mut Rng, queries: usize, width: usize, range: f32) -> Self {
        let log_sum_exp = (0..queries).map(|_| rng.between(-range, range)).collect();
        Self { out: Grid::random(rng, Kind::Ordinary, queries, width), log_sum_exp }
    }

    /// Every query has the same output.
    fn of(value: f32, log_sum_exp: f32) -> Self {
        Self { out: Grid::from_fn(37, 19, |_, _| value), log_sum_exp: vec![log_sum_exp; 37] }
    }

    fn and(&self, other: &Self, backend: Backend) -> Self {
        let Self { mut out, mut log_sum_exp } = self.clone();
        let theirs = &other.log_sum_exp;
        backend.merge(out.view_mut(), &mut log_sum_exp, other.out.view(), theirs).unwrap();
        Self { out, log_sum_exp }
    }

    #[track_caller]
    fn assert_is(&self, other: &Self) {
        assert_same_bits("output", &self.out.data, &other.out.data);
        assert_same_bits("log-sum-exp", &self.log_sum_exp, &other.log_sum_exp);
    }
}

/// Returns ln (e^a + e^b) and the weights of a and b.
fn weights(a: f32, b: f32) -> (f64, [f64; 2]) {
    let [a, b] = [a, b].map(f64::from);
    let m = a.max(b);
    let [v, w] = [a, b].map(|x| (x - m).exp());
    (m + (v + w).ln(), [v / (v + w), w / (v + w)])
}

/// Checks the merged state of `a` and `b` against the bounds.
fn check(got: &State, a: &State, b: &State, worst: &mut [Worst; 2]) {
    for query in 0..got.out.rows {
        let (log_sum_exp, [v, w]) = weights(a.log_sum_exp[query], b.log_sum_exp[query]);
        let truth = Sum { value: log_sum_exp, magnitude: 1.0 + log_sum_exp.abs(), underflow: 1.0 };
        worst[1].check(got.log_sum_exp[query], Case { fma: false, n: 1, truth, propagated: 0.0 });
        for col in 0..got.out.cols {
            let [x, y] = [a, b].map(|state| f64::from(state.out.at(query, col)));
            let magnitude = v * x.abs() + w * y.abs();
            let truth = Sum { value: v * x + w * y, magnitude, underflow: 3.0 };
            worst[0]
                .check(got.out.at(query, col), Case { fma: false, n: 1, truth, propagated: 0.0 });
        }
    }
}

fn merging_is_a_weighted_mean(backend: Backend) {
    let mut rng = Rng::new(301);
    let mut worst = [Worst::new(&bounds::MERGE), Worst::new(&bounds::MERGE_LOG_SUM_EXP)];
    for range in [0.01, 1.0, 5.0, 20.0, 80.0, 2800.0] {
        for _ in 0..300 {
            let (queries, width) = (cases::size(&mut rng), 1 + cases::size(&mut rng));
            let [a, b] = [0; 2].map(|_| State::random(&mut rng, queries, width, range));
            check(&a.and(&b, backend), &a, &b, &mut worst);
        }
    }
    worst.into_iter().for_each(|worst| worst.finish(backend.name()));
}

/// States whose log-sum-exps are near each other, at any magnitude.
fn large_log_sum_exps(backend: Backend) {
    let mut rng = Rng::new(302);
    let mut worst = [Worst::new(&bounds::MERGE), Worst::new(&bounds::MERGE_LOG_SUM_EXP)];
    for range in [2000.0, 2100.0, 1e4, 1e5, 1e6, 1.1e6, 1e7, 1e30] {
        for _ in 0..100 {
            let a = State::random(&mut rng, 40, 20, range);
            let mut b = State::random(&mut rng, 40, 20, 5.0);
            b.log_sum_exp.iter_mut().zip(&a.log_sum_exp).for_each(|(b, a)| *b += a);
            check(&a.and(&b, backend), &a, &b, &mut worst);
        }
    }
    // The log-sum-exp has a single rounding here, and does not reach its bound.
    let [output, _] = worst;
    output.finish(backend.name());
}

/// The output of an empty state is ignored, and the other state keeps its bits.
fn a_state_and_an_empty_one(backend: Backend) {
    let mut rng = Rng::new(303);
    for kind in Kind::ALL {
        for log_sum_exp in [-90.0, -0.0, 3.3, 1e-40, 5e3, -2e30, INFINITY] {
            let (queries, width) = (1 + cases::size(&mut rng), 1 + cases::size(&mut rng));
            let out = Grid::random(&mut rng, kind, queries, width);
            let state = State { out, log_sum_exp: vec![log_sum_exp; queries] };
            for rest in [NAN, INFINITY, -0.0, 1.0] {
                let empty = State {
                    out: Grid::from_fn(queries, width, |_, _| rest),
                    log_sum_exp: vec![-INFINITY; queries],
                };
                state.and(&empty, backend).assert_is(&state);
                empty.and(&state, backend).assert_is(&state);
            }
        }
    }
}

fn two_empty_states(backend: Backend) {
    for rest in [NAN, INFINITY, -0.0, 1.0] {
        let empty = State::of(rest, -INFINITY);
        let both = empty.and(&empty, backend);
        both.assert_is(&State::of(0.0, -INFINITY));
        assert!(both.out.data.iter().all(|x| x.to_bits() == 0), "+0");
    }
}

/// +∞ outweighs every finite log-sum-exp; the weights of two +∞ are undefined, and give NaN.
fn infinite_log_sum_exps(backend: Backend) {
    let infinite = State::of(0.1, INFINITY);
    for log_sum_exp in [f32::MIN, -1.0, 0.0, 2000.0, f32::MAX] {
        let finite = State::of(7.0, log_sum_exp);
        infinite.and(&finite, backend).assert_is(&infinite);
        finite.and(&infinite, backend).assert_is(&infinite);
    }
    let both = infinite.and(&infinite, backend);
    both.assert_is(&State::of(NAN, NAN));
    both.and(&State::of(1.0, 1.0), backend).assert_is(&both);
}

/// In every lane, with any other state; an empty other state leaves the output unchanged.
fn a_nan_stays_in_its_query(backend: Backend) {
    let mut rng = Rng::new(304);
    for nan in 0..37 {
        for other in [-INFINITY, -3.0, 4e3, INFINITY] {
            let [a, mut b] = [0; 2].map(|_| State::random(&mut rng, 37, 19, 5.0));
            b.log_sum_exp[nan] = other;
            let mut with_nan = a.clone();
            with_nan.log_sum_exp[nan] = NAN;
            let wants = [a.and(&b, backend), b.and(&a, backend)];
            let gots = [with_nan.and(&b, backend), b.and(&with_nan, backend)];
            for (mut want, got) in wants.into_iter().zip(gots) {
                want.log_sum_exp[nan] = NAN;
                if other > -INFINITY {
                    want.out.data[nan * 19..][..19].fill(NAN);
                }
                got.assert_is(&want);
            }
        }
    }
}

/// Even if the weight of their state is tiny, as in one call.
fn values_that_are_not_finite_reach_the_output(backend: Backend) {
    for bad in [NAN, INFINITY, -INFINITY] {
        for log_sum_exp in [-1.0, 1.0, -300.0] {
            let a = State::of(1.0, 0.0);
            let mut b = State::of(1.0, log_sum_exp);
            b.out.data[5 * 19 + 3] = bad;
            for got in [a.and(&b, backend), b.and(&a, backend)] {
                for (i, x) in got.out.data.iter().enumerate() {
                    assert_eq!(x.is_finite(), i != 5 * 19 + 3, "{bad}");
                }
            }
        }
    }
}

/// States in any layout have the same bits, and no other float is written.
fn any_layout_has_the_same_bits(backend: Backend) {
    let mut rng = Rng::new(305);
    for _ in 0..500 {
        let (queries, width) = (cases::size(&mut rng), 1 + cases::size(&mut rng));
        let (a, b) = any_states(&mut rng, queries, width);
        let mut out = GuardedMatrix::of(&a.out, Layout::of_output(&mut rng, queries, width));
        let other = GuardedMatrix::of(&b.out, Layout::of_output(&mut rng, queries, width));
        let mut log_sum_exp = [&[CANARY; 3][..], &a.log_sum_exp, &[CANARY; 3]].concat();
        let (_, ours) = log_sum_exp.split_at_mut(3);
        let (ours, _) = ours.split_at_mut(queries);
        backend.merge(out.view_mut(), ours, other.view(), &b.log_sum_exp).unwrap();
        let got = State { out: out.checked("merge"), log_sum_exp: ours.to_vec() };
        got.assert_is(&a.and(&b, backend));
        assert!(is_untouched(&log_sum_exp[..3]) && is_untouched(&log_sum_exp[3 + queries..]));
    }
}

/// States of any values, some of whose log-sum-exps are special.
fn any_states(rng: &mut Rng, queries: usize, width: usize) -> (State, State) {
    let mut state = || {
        let kind = Kind::any(rng);
        let range = rng.pick(&[1.0, 50.0, 5e3, 1e9]);
        let mut state = State::random(rng, queries, width, range);
        kind.fill(rng, &mut state.out.data);
        for x in &mut state.log_sum_exp {
            if rng.one_in(4) {
                *x = rng.pick(&[-INFINITY, -INFINITY, INFINITY, NAN, 0.0, f32::MIN, f32::MAX]);
            }
        }
        state
    };
    (state(), state())
}

fn a_family_has_the_same_bits(backend: Backend) {
    let mut rng = Rng::new(306);
    let family = Backend::available().filter(|other| other.family() == backend.family());
    let family: Vec<Backend> = family.collect();
    for _ in 0..1000 {
        let (queries, width) = (cases::size(&mut rng), 1 + cases::size(&mut rng));
        let (a, b) = any_states(&mut rng, queries, width);
        let want = a.and(&b, backend);
        family.iter().for_each(|&other| a.and(&b, other).assert_is(&want));
    }
}

fn a_query_does_not_depend_on_others(backend: Backend) {
    let mut rng = Rng::new(307);
    let (a, b) = any_states(&mut rng, 50, 21);
    let both = a.and(&b, backend);
    for query in 0..50 {
        let [a, b, both] = [&a, &b, &both].map(|state| State {
            out: Grid { rows: 1, cols: 21, data: state.out.row(query).to_vec() },
            log_sum_exp: vec![state.log_sum_exp[query]],
        });
        a.and(&b, backend).assert_is(&both);
    }
}

/// Keys, queries and values, and the options that decide which keys are visible.
struct Heads {
    queries: Grid,
    keys: Grid,
    values: Grid,
    keep: Grid<u8>,
    offset: isize,
}

impl Heads {
    fn random(rng: &mut Rng) -> Self {
        let (keys, queries, dim) = (1 + rng.below(300), 1 + rng.below(40), 1 + rng.below(30));
        let width = 1 + rng.below(30);
        // Runs of keys are masked, so that some parts have no visible key.
        let masks: Vec<[usize; 2]> =
            (0..queries).map(|_| [rng.below(keys + 40), rng.below(keys)]).collect();
        Self {
            queries: Grid::random(rng, Kind::Ordinary, queries, dim),
            keys: Grid::random(rng, Kind::Ordinary, keys, dim),
            values: Grid::random(rng, Kind::Ordinary, keys, width),
            keep: Grid::from_fn(keys, queries, |key, query| {
                u8::from(!(masks[query][0]..masks[query][0] + masks[query][1]).contains(&key))
            }),
            offset: rng.below(keys) as isize,
        }
    }

    /// Returns the attention over a range of keys, which keep their positions.
    fn part(&self, backend: Backend, sink: f32, from: usize, to: usize) -> State {
        let rows = |grid: &Grid| {
            let data = grid.data[from * grid.cols..to * grid.cols].to_vec();
            Grid { rows: to - from, cols: grid.cols, data }
        };
        let (keys, values) = (rows(&self.keys), rows(&self.values));
        let tokens = self.queries.rows;
        let keep = &self.keep.data[from * tokens..to * tokens];
        let attention = Attention::new()
            .on(backend)
            .scale(4.0)
            .causal()
            .query_offset(self.offset - from as isize)
            .sink(sink)
            .keep(MatrixRef::new(keep, to - from, tokens).unwrap());
        let mut out = Grid::zeros(tokens, values.cols);
        let mut log_sum_exp = vec![CANARY; tokens];
        let mut workspace = vec![NAN; Attention::workspace(keys.cols, values.cols)];
        attention
            .run_with_log_sum_exp(
                self.queries.view(),
                keys.view(),
                values.view(),
                out.view_mut(),
                &mut log_sum_exp,
                &mut workspace,
            )
            .unwrap();
        State { out, log_sum_exp }
    }

    fn whole(&self, backend: Backend, sink: f32) -> State {
        self.part(backend, sink, 0, self.keys.rows)
    }

    /// Returns parts between random cuts, some without keys.
    fn parts(&self, rng: &mut Rng, backend: Backend, sink: f32) -> Vec<State> {
        let count = 2 + rng.below(4);
        let mut cuts: Vec<usize> = (1..count).map(|_| rng.below(self.keys.rows + 1)).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([self.keys.rows]);
        let sink_of = rng.below(count);
        let mut from = 0;
        ends.enumerate()
            .map(|(i, to)| {
                let sink = if i == sink_of { sink } else { -INFINITY };
                let part = self.part(backend, sink, from, to);
                from = to;
                part
            })
            .collect()
    }

    /// Checks `got` against the attention over all keys, within the bound.
    fn check(&self, got: &State, whole: &State, parts: usize, worst: &mut Worst) {
        let values = self.values.data.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for query in 0..got.out.rows {
            let (got_log, log) = (got.log_sum_exp[query], whole.log_sum_exp[query]);
            if log == -INFINITY {
                assert_eq!(got_log, -INFINITY);
                assert!(got.out.row(query).iter().all(|x| x.to_bits() == 0));
                continue;
            }
            let size = 1.0 + f64::from(log.abs());
            let count = parts as f64 * (6.0 + 6.0 * size);
            let blocks = self.keys.rows.div_ceil(64);
            let n = 2 * (64.min(self.keys.rows) + blocks + 12) + count as usize;
            let close = f64::from((got_log - log).abs());
            assert!(close <= n as f64 / 16_777_216.0, "{got_log} is not {log}");
            for col in 0..got.out.cols {
                let value = f64::from(whole.out.at(query, col));
                let truth = Sum { value, magnitude: f64::from(values), underflow: 1.0 };
                worst.check(got.out.at(query, col), Case { fma: false, n, truth, propagated: 0.0 });
            }
        }
    }
}

/// Merges from the first part to the last, and from the last to the first.
fn merged_parts_match_the_whole(backend: Backend) {
    let mut rng = Rng::new(308);
    let mut worst = Worst::new(&bounds::MERGED_PARTS);
    for _ in 0..400 {
        let heads = Heads::random(&mut rng);
        let whole = heads.whole(backend, -INFINITY);
        let parts = heads.parts(&mut rng, backend, -INFINITY);
        let merge = |a: State, b: &State| a.and(b, backend);
        let forwards = parts[1..].iter().fold(parts[0].clone(), merge);
        let last = parts.len() - 1;
        let backwards = parts[..last].iter().rev().fold(parts[last].clone(), merge);
        for got in [forwards, backwards] {
            heads.check(&got, &whole, parts.len(), &mut worst);
        }
    }
    worst.finish(backend.name());
}

fn a_sink_belongs_to_one_part(backend: Backend) {
    let mut rng = Rng::new(309);
    let mut worst = Worst::new(&bounds::MERGED_PARTS);
    for _ in 0..100 {
        let heads = Heads::random(&mut rng);
        let sink = rng.between(-3.0, 3.0);
        let whole = heads.whole(backend, sink);
        let parts = heads.parts(&mut rng, backend, sink);
        let got = parts[1..].iter().fold(parts[0].clone(), |a, b| a.and(b, backend));
        heads.check(&got, &whole, parts.len(), &mut worst);
    }
    worst.finish(backend.name());
}

/// Merging is associative and commutative up to rounding.
fn grouping_does_not_matter(backend: Backend) {
    let mut rng = Rng::new(310);
    for range in [1.0, 10.0, 80.0, 2000.0] {
        for _ in 0..100 {
            let [a, b, c] = [0; 3].map(|_| State::random(&mut rng, 20, 20, range));
            let and = |a: &State, b: &State| a.and(b, backend);
            let want = and(&and(&a, &b), &c);
            for got in [and(&a, &and(&b, &c)), and(&c, &and(&b, &a)), and(&and(&a, &c), &b)] {
                for query in 0..20 {
                    let log = f64::from(want.log_sum_exp[query]);
                    // Two merges on either side, and the propagated roundings of two log-sum-exps.
                    let u = 1.0 / 16_777_216.0;
                    let allowed = 4.0 * (6.0 + 3.0 * (1.0 + log.abs())) * u;
                    assert!((f64::from(got.log_sum_exp[query]) - log).abs() <= allowed);
                    for (got, want) in got.out.row(query).iter().zip(want.out.row(query)) {
                        assert!(f64::from((got - want).abs()) <= allowed, "{got} is not {want}");
                    }
                }
            }
        }
    }
}

fn no_queries(backend: Backend) {
    let out = MatrixMut::new(&mut [], 0, 3).unwrap();
    assert_eq!(backend.merge(out, &mut [], MatrixRef::new(&[], 0, 3).unwrap(), &[]), Ok(()));
}

fn sizes_that_disagree(backend: Backend) {
    let floats = [CANARY; 64];
    let view = |[rows, cols]: [usize; 2]| MatrixRef::new(&floats, rows, cols).unwrap();
    let refused = |out: [usize; 2], log: usize, other: [usize; 2], other_log: usize| {
        let (mut buffer, mut log_sum_exp) = ([CANARY; 64], vec![CANARY; log]);
        let to = MatrixMut::new(&mut buffer, out[0], out[1]).unwrap();
        let result = backend.merge(to, &mut log_sum_exp, view(other), &floats[..other_log]);
        assert_eq!(result, Err(Error::Shape), "{out:?}, {log}, {other:?}, {other_log}");
        assert!(is_untouched(&buffer) && is_untouched(&log_sum_exp), "an error wrote");
    };
    for other in [[4, 5], [3, 4], [5, 3], [0, 4], [4, 0]] {
        refused([3, 5], 3, other, 3);
        refused(other, other[0], [3, 5], 3);
    }
    for log in [0, 2, 4] {
        refused([3, 5], log, [3, 5], 3);
        refused([3, 5], 3, [3, 5], log);
    }
    refused([3, 0], 3, [3, 0], 3);
    refused([0, 0], 0, [0, 0], 0);
}

#[test]
fn the_function_uses_the_best_back_end() {
    let mut rng = Rng::new(311);
    let (a, b) = any_states(&mut rng, 30, 17);
    let State { mut out, mut log_sum_exp } = a.clone();
    sdpa::merge(out.view_mut(), &mut log_sum_exp, b.out.view(), &b.log_sum_exp).unwrap();
    State { out, log_sum_exp }.assert_is(&a.and(&b, Backend::best()));
}
