//! Heads and ranges of queries on many threads have the bits of one call on one thread; on every back end.
//! `examples/threads.rs` is the user's example.

#![cfg(not(target_family = "wasm"))] // rayon needs threads

use crate::common::{
    assert_same_bits,
    cases::{Kind, Rng},
    elements::Tested,
    grid::Grid,
    heads::{GuardedHeads, Workspace, guarded, guarded_in},
    options::Options,
};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use sdpa::{Attention, Backend, Bf16, F16, HeadsMut, HeadsRef, I8, KvCache};

suite! { heads_on_threads, ranges_on_threads, one_cache_on_threads }

fn pool() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(5).build().unwrap()
}

/// 4 query heads per group, keys and values of each group, and options for all.
struct Problem {
    options: Options,
    queries: GuardedHeads,
    keys: GuardedHeads,
    values: GuardedHeads,
    key_heads: usize,
    tokens: usize,
    key_count: usize,
}

const GROUP: usize = 4;
const DIM: usize = 24;
const WIDTH: usize = 17;

impl Problem {
    fn random(rng: &mut Rng) -> Self {
        let (key_heads, tokens, key_count) = (1 + rng.below(5), rng.below(200), rng.below(300));
        let options = Options::random(rng, key_heads * GROUP, key_count, tokens);
        let mut held = |heads, rows, cols| {
            let kind = Kind::any(rng);
            let grids: Vec<Grid> =
                (0..heads).map(|_| Grid::random(rng, kind, rows, cols)).collect();
            GuardedHeads::of(rng, &grids)
        };
        let queries = held(key_heads * GROUP, tokens, DIM);
        let (keys, values) = (held(key_heads, key_count, DIM), held(key_heads, key_count, WIDTH));
        Self { options, queries, keys, values, key_heads, tokens, key_count }
    }

    fn sizes(&self) -> [usize; 4] {
        [self.key_heads * GROUP, self.tokens, DIM, WIDTH]
    }

    fn at_once(&self, backend: Backend, rng: &mut Rng) -> Vec<(Grid, Vec<f32>)> {
        let attention = self.options.attention(backend);
        guarded(rng, "at once", self.sizes(), |out, logarithms, workspace| {
            let [q, k, v] = [&self.queries, &self.keys, &self.values].map(GuardedHeads::view);
            attention.run_with_log_sum_exp(q, k, v, out, logarithms, workspace)
        })
    }

    fn assert_same(&self, got: &[(Grid, Vec<f32>)], want: &[(Grid, Vec<f32>)]) {
        for (got, want) in got.iter().zip(want) {
            assert_same_bits("threads", &got.0.data, &want.0.data);
            assert_same_bits("threads", &got.1, &want.1);
        }
    }
}

/// A part of a call.
struct Part<'a> {
    options: Options,
    queries: HeadsRef<'a>,
    keys: HeadsRef<'a>,
    values: HeadsRef<'a>,
    out: HeadsMut<'a>,
    logarithms: Vec<f32>,
}

impl Part<'_> {
    fn run(&mut self, backend: Backend) {
        let Self { options, queries, keys, values, out, logarithms } = self;
        let mut workspace = vec![f32::NAN; Attention::workspace(DIM, WIDTH)];
        options
            .attention(backend)
            .run_with_log_sum_exp(
                *queries,
                *keys,
                *values,
                out.view_mut(),
                logarithms,
                &mut workspace,
            )
            .unwrap();
    }
}

fn heads_on_threads(backend: Backend) {
    let mut rng = Rng::new(71);
    let pool = pool();
    for _ in 0..30 {
        let problem = Problem::random(&mut rng);
        let want = problem.at_once(backend, &mut rng);
        let Problem { key_heads, tokens, .. } = problem;
        let got = guarded(&mut rng, "heads", problem.sizes(), |mut out, logarithms, _| {
            let mut rest = (problem.queries.view(), problem.keys.view(), problem.values.view());
            let mut parts = Vec::new();
            for head in 0..key_heads {
                let (queries, more_queries) = rest.0.split_heads(GROUP)?;
                let (keys, more_keys) = rest.1.split_heads(1)?;
                let (values, more_values) = rest.2.split_heads(1)?;
                let (first, more_out) = out.split_heads(GROUP)?;
                (rest, out) = ((more_queries, more_keys, more_values), more_out);
                let options = problem.options.of_heads(head * GROUP..(head + 1) * GROUP);
                let logarithms = vec![0.0; GROUP * tokens];
                parts.push(Part { options, queries, keys, values, out: first, logarithms });
            }
            pool.install(|| parts.par_iter_mut().for_each(|part| part.run(backend)));
            let all: Vec<f32> = parts.iter().flat_map(|part| part.logarithms.clone()).collect();
            logarithms.copy_from_slice(&all);
            Ok(())
        });
        problem.assert_same(&got, &want);
    }
}

fn ranges_on_threads(backend: Backend) {
    let mut rng = Rng::new(72);
    let pool = pool();
    for _ in 0..30 {
        let problem = Problem::random(&mut rng);
        let want = problem.at_once(backend, &mut rng);
        let (heads, tokens) = (problem.key_heads * GROUP, problem.tokens);
        let step = 1 + rng.below(70);
        let got = guarded(&mut rng, "ranges", problem.sizes(), |mut out, logarithms, _| {
            let mut rest = problem.queries.view();
            let (keys, values) = (problem.keys.view(), problem.values.view());
            let mut parts = Vec::new();
            for from in (0..tokens).step_by(step) {
                let count = step.min(tokens - from);
                let (queries, more_queries) = rest.split_rows(count)?;
                let (first, more_out) = out.split_rows(count)?;
                (rest, out) = (more_queries, more_out);
                let options = problem.options.part([0, problem.key_count], [from, from + count]);
                let logarithms = vec![0.0; heads * count];
                parts.push(Part { options, queries, keys, values, out: first, logarithms });
            }
            pool.install(|| parts.par_iter_mut().for_each(|part| part.run(backend)));
            let mut at = 0;
            for part in &parts {
                let count = part.queries.rows();
                for head in 0..heads {
                    let to = &mut logarithms[head * tokens + at..][..count];
                    to.copy_from_slice(&part.logarithms[head * count..][..count]);
                }
                at += count;
            }
            Ok(())
        });
        problem.assert_same(&got, &want);
    }
}

/// Many query heads over one cache, each on a thread.
fn one_cache_on_threads(backend: Backend) {
    one_cache_of::<f32>(backend);
    one_cache_of::<F16>(backend);
    one_cache_of::<Bf16>(backend);
    one_cache_of::<I8>(backend);
}

fn one_cache_of<E: Tested>(backend: Backend) {
    let mut rng = Rng::new(73);
    let mut cache = Box::new(KvCache::<DIM, WIDTH, 13, E>::EMPTY);
    let keys = Grid::random(&mut rng, Kind::Wide, 200, DIM);
    let values = Grid::random(&mut rng, Kind::Wide, 200, WIDTH);
    cache.append(keys.view(), values.view()).unwrap();
    cache.slide(150);
    let grids: Vec<Grid> =
        (0..12).map(|_| Grid::random(&mut rng, Kind::Ordinary, 3, DIM)).collect();
    let queries = GuardedHeads::of(&mut rng, &grids);
    let attention = Attention::new().on(backend).causal();
    let workspace = Workspace::of::<E>(DIM, WIDTH);
    let sizes = [12, 3, DIM, WIDTH];
    let want = guarded_in(&mut rng, "cache", sizes, workspace, |out, _, workspace| {
        cache.attend(&attention, queries.view(), out, workspace)
    });
    let cache = cache.view();
    let got: Vec<Grid> = pool().install(|| {
        grids
            .par_iter()
            .map(|queries| {
                let mut out = Grid::zeros(3, WIDTH);
                let mut workspace = Workspace::of::<E>(DIM, WIDTH);
                let into = out.view_mut();
                cache.attend(&attention, queries.view(), into, workspace.floats()).unwrap();
                out
            })
            .collect()
    });
    for (got, (want, _)) in got.iter().zip(&want) {
        assert_same_bits("cache", &got.data, &want.data);
    }
}
