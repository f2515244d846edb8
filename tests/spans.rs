//! States of spans: any split of the keys, computed and joined in any order, has the bits of one call.

use crate::common::{
    assert_same_bits,
    cases::{self, Kind, Rng},
    elements::{Elements, Tested},
    grid::{CANARY, Grid, is_untouched},
    heads::{GuardedHeads, Workspace, guarded},
    options::{self, Options},
};
use sdpa::{
    Attention, Backend, Bf16, CachePositions, Error, F16, HeadsMut, HeadsRef, I8, KEY_BLOCK,
    KvCache, KvCacheMut, MatrixMut, MatrixRef, SPAN,
};

suite! {
    any_split_gives_the_bits_of_one_call,
    caches_give_the_bits_of_one_call,
    windows_that_begin_within_a_span,
    caches_that_keep_their_first_keys,
    a_maximum_of_1e8_loses_nothing,
    a_state_without_keys_changes_no_bit,
    a_maximum_of_zero_has_one_sign,
    many_spans_in_any_order,
    refused_states_write_nothing,
    refused_joins_write_nothing,
}

/// A number of keys of up to five spans.
fn key_count(rng: &mut Rng) -> usize {
    let near = SPAN * rng.below(5) + rng.pick(&[0, 1, 2, 63, 64, 65, 700, 1022, 1023]);
    let any = cases::size(rng);
    rng.pick(&[near, near, near, any])
}

/// Keys and values of a type, and the states of a range of them, from arrays and from a cache.
type Of = (
    fn(&mut Case) -> bool,
    fn(&Case, Backend, &mut Rng, [usize; 2]) -> Vec<Vec<f32>>,
    fn(&Case, Backend, &mut Rng, &Options, [usize; 3]) -> Vec<Vec<f32>>,
);

const FLOATS: Of = (|_| true, Case::states, Case::states_of_cache::<f32>);

const ELEMENTS: [Of; 3] = [
    (Case::round::<F16>, Case::states_of_elements::<F16>, Case::states_of_cache::<F16>),
    (Case::round::<Bf16>, Case::states_of_elements::<Bf16>, Case::states_of_cache::<Bf16>),
    (Case::round::<I8>, Case::states_of_elements::<I8>, Case::states_of_cache::<I8>),
];

impl Case {
    /// Floats, or elements near which the keys and values are moved.
    fn of_any(&mut self, rng: &mut Rng) -> Of {
        let of = rng.pick(&[FLOATS, ELEMENTS[0], ELEMENTS[1], ELEMENTS[2]]);
        if (of.0)(self) { of } else { FLOATS }
    }

    fn round<E: Tested>(&mut self) -> bool {
        let is_large = |x: &f32| x.is_finite() && x.abs() > 1e9;
        if !E::HAS_NAN && self.queries.iter().any(|grid| grid.data.iter().any(is_large)) {
            return false; // a sum of whole numbers may overflow before it is scaled
        }
        let near = |grids: &[Grid]| grids.iter().map(E::near).collect::<Option<Vec<Grid>>>();
        let Some((keys, values)) = near(&self.keys).zip(near(&self.values)) else { return false };
        (self.keys, self.values) = (keys, values);
        true
    }
}

/// The heads of one call: KV heads, and query heads that share them.
struct Case {
    options: Options,
    queries: Vec<Grid>,
    keys: Vec<Grid>,
    values: Vec<Grid>,
    what: String,
}

impl Case {
    fn random(rng: &mut Rng, key_heads: usize, keys: usize) -> Self {
        let heads = key_heads * rng.pick(&[1, 1, 2, 3]);
        let tokens = rng.pick(&[1, 1, 2, 5, 9, 17, 33]);
        let most = ((1 << 18) / (heads * tokens * (keys + 1))).max(1);
        let [dim, width] = [(); 2].map(|()| cases::size(rng).clamp(1, most));
        let options = Options::random(rng, heads, keys, tokens);
        let kinds = [Kind::any(rng), Kind::any(rng), Kind::any(rng)];
        let mut grids = |heads, kind, rows, cols| -> Vec<Grid> {
            (0..heads).map(|_| Grid::random(rng, kind, rows, cols)).collect()
        };
        let what = format!(
            "{heads} heads of {tokens}, {key_heads} of {keys}, {dim}, {width}, {kinds:?}, \
             sinks {:?}, causal {}, window {:?}, offset {}",
            options.sinks, options.causal, options.window, options.offset
        );
        Self {
            queries: grids(heads, kinds[0], tokens, dim),
            keys: grids(key_heads, kinds[1], keys, dim),
            values: grids(key_heads, kinds[2], keys, width),
            options,
            what,
        }
    }

    fn sizes(&self) -> [usize; 4] {
        let [queries, values] = [&self.queries[0], &self.values[0]];
        [self.queries.len(), queries.rows, queries.cols, values.cols]
    }

    fn run(&self, backend: Backend, rng: &mut Rng) -> Vec<(Grid, Vec<f32>)> {
        let [queries, keys, values] =
            [&self.queries, &self.keys, &self.values].map(|grids| GuardedHeads::of(rng, grids));
        let attention = self.options.attention(backend);
        guarded(rng, &self.what, self.sizes(), |out, logarithms, workspace| {
            let [queries, keys, values] = [&queries, &keys, &values].map(GuardedHeads::view);
            attention.run_with_log_sum_exp(queries, keys, values, out, logarithms, workspace)
        })
    }

    /// The states of the keys from `from` to `to`, one element per span.
    fn states(&self, on: Backend, rng: &mut Rng, [from, to]: [usize; 2]) -> Vec<Vec<f32>> {
        let [heads, tokens, dim, width] = self.sizes();
        let part = |grids: &[Grid]| -> Vec<Grid> {
            grids.iter().map(|grid| options::part(grid, [from, to], [0, grid.cols])).collect()
        };
        let queries = GuardedHeads::of(rng, &self.queries);
        let keys = GuardedHeads::of(rng, &part(&self.keys));
        let values = GuardedHeads::of(rng, &part(&self.values));
        let options = self.options.part([from, to], [0, tokens]);
        let attention = options.attention(on);
        states(&self.what, [heads, tokens, dim, width], (to - from).div_ceil(SPAN), |states, ws| {
            let (q, k, v) = (queries.view(), keys.view(), values.view());
            attention.run_spans(q, k, v, from as u64, states, ws)
        })
    }

    /// [`states`](Self::states) over elements.
    fn states_of_elements<E: Tested>(
        &self,
        on: Backend,
        rng: &mut Rng,
        [from, to]: [usize; 2],
    ) -> Vec<Vec<f32>> {
        let [heads, tokens, dim, width] = self.sizes();
        let elements = |grids: &[Grid]| {
            let part = |grid: &Grid| options::part(grid, [from, to], [0, grid.cols]).data;
            let (rows, cols) = (grids.len() * (to - from), grids[0].cols);
            Elements::<E>::of(&Grid { rows, cols, data: grids.iter().flat_map(part).collect() })
        };
        let (keys, values) = (elements(&self.keys), elements(&self.values));
        let queries = GuardedHeads::of(rng, &self.queries);
        let options = self.options.part([from, to], [0, tokens]);
        let attention = options.attention(on);
        let (sizes, spans) = ([heads, tokens, dim, width], (to - from).div_ceil(SPAN));
        states_in(Workspace::of::<E>(dim, width), &self.what, sizes, spans, |states, ws| {
            let (k, v) = (keys.heads(self.keys.len()), values.heads(self.values.len()));
            attention.run_elements_spans(queries.view(), k, v, from as u64, states, ws)
        })
    }

    /// The states of a cache of the keys from `from` to `to`, of which those before `kept` were dropped.
    fn states_of_cache<E: Tested>(
        &self,
        on: Backend,
        rng: &mut Rng,
        options: &Options,
        [from, kept, to]: [usize; 3],
    ) -> Vec<Vec<f32>> {
        let [_, _, dim, width] = self.sizes();
        let blocks = (to - from) / KEY_BLOCK + 2;
        let mut storage = [dim, width].map(|cols| vec![E::ZERO; blocks * cols * KEY_BLOCK]);
        let mut scales = [0; 2].map(|_| E::room(blocks * KEY_BLOCK));
        let ([to_keys, to_values], [key_scales, value_scales]) = (&mut storage, &mut scales);
        let scales = (&mut key_scales[..], &mut value_scales[..]);
        let mut positions = CachePositions::new(from as u64, from as u64).unwrap();
        let mut cache =
            KvCacheMut::<E>::with_scales(to_keys, to_values, scales, [dim, width], &mut positions)
                .unwrap();
        let [k, v] = [&self.keys[0], &self.values[0]]
            .map(|grid| options::part(grid, [from, to], [0, grid.cols]));
        cache.append(k.view(), v.view()).unwrap();
        cache.slide(to - kept);
        let attention = options.attention(on);
        let queries = GuardedHeads::of(rng, &self.queries);
        let (workspace, spans) = (Workspace::of::<E>(dim, width), cache.spans());
        states_in(workspace, &self.what, self.sizes(), spans, |states, workspace| {
            cache.view().run_spans(&attention, queries.view(), states, workspace)
        })
    }

    /// Whether a query sees one of these keys.
    fn sees(&self, keys: std::ops::Range<usize>) -> bool {
        let [_, tokens, ..] = self.sizes();
        let heads = (0..self.queries.len()).map(|head| self.options.of_head(head));
        heads.into_iter().any(|options| {
            keys.clone().any(|key| (0..tokens).any(|token| options.sees(key, token)))
        })
    }

    #[track_caller]
    fn check_join(
        &self,
        on: Backend,
        rng: &mut Rng,
        mut states: Vec<Vec<f32>>,
        want: &[(Grid, Vec<f32>)],
    ) {
        if !rng.one_in(4) {
            for i in 0..states.len() {
                let other = rng.below(states.len());
                states.swap(i, other);
            }
        }
        let attention = self.options.attention(on);
        let with_logarithms = !rng.one_in(3);
        let got = guarded(rng, &self.what, self.sizes(), |out, logarithms, _| {
            attention.join(&states.concat(), out, with_logarithms.then_some(logarithms))
        });
        for ((got, logarithms), (want, want_logarithms)) in got.iter().zip(want) {
            assert_same_bits(&self.what, &got.data, &want.data);
            if with_logarithms {
                assert_same_bits(&self.what, logarithms, want_logarithms);
            }
        }
    }
}

/// Calls with canaries around the states and the workspace, and returns the states of each span.
#[track_caller]
fn states(
    what: &str,
    sizes: [usize; 4],
    spans: usize,
    call: impl FnOnce(&mut [f32], &mut [f32]) -> Result<(), Error>,
) -> Vec<Vec<f32>> {
    let [.., dim, width] = sizes;
    states_in(Workspace::new(dim, width), what, sizes, spans, call)
}

#[track_caller]
fn states_in(
    mut workspace: Workspace,
    what: &str,
    [heads, tokens, _, width]: [usize; 4],
    spans: usize,
    call: impl FnOnce(&mut [f32], &mut [f32]) -> Result<(), Error>,
) -> Vec<Vec<f32>> {
    let len = heads * tokens * Attention::state_floats(width);
    let mut floats = vec![CANARY; 16 + spans * len + 16];
    let result = call(&mut floats[16..16 + spans * len], workspace.floats());
    assert_eq!(result, Ok(()), "{what}");
    let (before, rest) = floats.split_at(16);
    let (states, after) = rest.split_at(spans * len);
    assert!(is_untouched(before) && is_untouched(after) && workspace.is_guarded(), "{what}");
    states.chunks(len.max(1)).map(<[f32]>::to_vec).collect()
}

/// A back end of the family of `backend`.
fn kin(backend: Backend, rng: &mut Rng) -> Backend {
    let all: Vec<_> =
        Backend::available().filter(|other| other.family() == backend.family()).collect();
    rng.pick(&all)
}

fn any_split_gives_the_bits_of_one_call(backend: Backend) {
    let mut rng = Rng::new(61);
    for _ in 0..1000 {
        let (key_heads, keys) = (rng.pick(&[1, 1, 2]), key_count(&mut rng));
        let mut case = Case::random(&mut rng, key_heads, keys);
        let (_, states_of, _) = case.of_any(&mut rng);
        let want = case.run(backend, &mut rng);
        let mut states = Vec::new();
        let mut from = 0;
        while from < keys {
            let to = keys.min(from + SPAN * (1 + rng.below(3)));
            let on = kin(backend, &mut rng);
            for (state, first) in
                states_of(&case, on, &mut rng, [from, to]).into_iter().zip((from..).step_by(SPAN))
            {
                if rng.one_in(2) || case.sees(first..to.min(first + SPAN)) {
                    states.push(state);
                }
            }
            from = to;
        }
        case.check_join(kin(backend, &mut rng), &mut rng, states, &want);
    }
}

/// Keys at consecutive positions in caches that begin anywhere, of which the oldest are dropped.
fn caches_give_the_bits_of_one_call(backend: Backend) {
    let mut rng = Rng::new(62);
    for _ in 0..400 {
        let keys = key_count(&mut rng);
        let mut case = Case::random(&mut rng, 1, keys);
        case.options.keep_first = 0; // what a cache keeps
        let (_, _, states_of) = case.of_any(&mut rng);
        let (tokens, any) = (case.queries[0].rows, rng.below(keys + 1));
        let dropped = rng.pick(&[0, 0, any]);
        // Dropped keys are masked in the call over all, and have no row in the masks of the cache.
        let whole = || Grid::from_fn(keys, tokens, |_, _| 1).into();
        let keep = case.options.keep.take().unwrap_or_else(whole).map(|whole| {
            Grid::from_fn(
                keys,
                tokens,
                |key, token| {
                    if key < dropped { 0 } else { whole.at(key, token) }
                },
            )
        });
        case.options.keep = Some(keep);
        let newest = keys as isize - tokens as isize;
        let Some(offset) = case.options.offset.checked_sub(newest) else { continue };
        let want = case.run(backend, &mut rng);
        // A cache for all keys, or two: the second begins where the first ends.
        let cut = SPAN * rng.below(keys / SPAN + 1);
        let mut all = Vec::new();
        for [from, to] in [[0, cut], [cut, keys]] {
            let kept = dropped.clamp(from, to);
            let Some(offset) = offset.checked_add(keys as isize - to as isize) else { continue };
            let options = Options { offset, ..case.options.part([kept, to], [0, tokens]) };
            let on = kin(backend, &mut rng);
            all.extend(states_of(&case, on, &mut rng, &options, [from, kept, to]));
        }
        case.check_join(kin(backend, &mut rng), &mut rng, all, &want);
    }
}

/// A cache that keeps its first keys has the spans of those and of the newest, and no span between.
fn caches_that_keep_their_first_keys(backend: Backend) {
    let mut rng = Rng::new(64);
    for (kept, keys, held) in [
        (4, 700, 100),
        (4, 5000, 100),
        (64, 2048, 1024),
        (1024, 4000, 1500),
        (1100, 2100, 50),
        (1030, 6200, 100),
        (70, 3000, 0),
    ] {
        let tokens = rng.pick(&[1, 2, 9, 40]);
        let [queries, k, v] =
            [tokens, keys, keys].map(|rows| Grid::random(&mut rng, Kind::Ordinary, rows, 5));
        let window = rng.pick(&[[usize::MAX, 0], [60, 0], [3000, 2]]);
        let blocks = (kept + held) / KEY_BLOCK + 2 + 64 / KEY_BLOCK;
        let mut storage = [0; 2].map(|_| vec![f32::NAN; blocks * 5 * KEY_BLOCK]);
        let [to_keys, to_values] = &mut storage;
        let mut positions = CachePositions::default();
        let mut cache = KvCacheMut::new(to_keys, to_values, 5, 5, &mut positions).unwrap();
        cache.keep_first(kept).unwrap();
        for key in 0..keys {
            let row = |of: &Grid| options::part(of, [key, key + 1], [0, 5]);
            cache.append(row(&k).view(), row(&v).view()).unwrap();
            cache.slide(kept + held);
        }
        let dropped = cache.dropped() as usize;
        assert_eq!((cache.len(), dropped), (kept + held, keys - held));
        let held = |key: usize| u8::from(key < kept || key >= dropped);
        let of_all = Options {
            window,
            keep_first: kept,
            offset: keys as isize - tokens as isize,
            keep: Some(Grid::from_fn(keys, tokens, |key, _| held(key)).into()),
            slopes: vec![0.01],
            ..Options::new()
        };
        let want = by_run(backend, &of_all, [&queries, &k, &v]);
        let of_cache = Options { offset: 0, keep: None, keep_first: 0, ..of_all.clone() };
        let attention = of_cache.attention(backend);
        let mut workspace = vec![0.0; Attention::workspace(5, 5)];
        let spans = cache.spans();
        let of_held: std::collections::HashSet<usize> =
            (0..keys).filter(|&key| held(key) == 1).map(|key| key / SPAN).collect();
        assert_eq!(spans, of_held.len());
        let mut states = vec![f32::NAN; spans * tokens * Attention::state_floats(5)];
        let view = cache.view();
        view.run_spans(&attention, queries.view(), &mut states, &mut workspace).unwrap();
        let mut out = Grid::zeros(tokens, 5);
        attention.join(&states, out.view_mut(), None).unwrap();
        assert_same_bits(&format!("{kept} kept of {keys}, {window:?}"), &out.data, &want.data);
        view.attend(&attention, queries.view(), out.view_mut(), &mut workspace).unwrap();
        assert_same_bits(&format!("{kept} kept of {keys}, one call"), &out.data, &want.data);
    }
}

fn by_run(backend: Backend, options: &Options, [queries, keys, values]: [&Grid; 3]) -> Grid {
    let mut out = Grid::zeros(queries.rows, values.cols);
    let mut workspace = vec![0.0; Attention::workspace(queries.cols, values.cols)];
    let attention = options.attention(backend);
    let (q, k, v) = (queries.view(), keys.view(), values.view());
    attention.run(q, k, v, out.view_mut(), &mut workspace).unwrap();
    out
}

fn windows_that_begin_within_a_span(backend: Backend) {
    let mut rng = Rng::new(63);
    for left in [1, 63, 500, 1023, 1024, 1025, 1600] {
        let mut case = Case::random(&mut rng, 1, 3000);
        case.options.causal = true;
        case.options.window = [left, 0];
        case.options.offset = 3000 - case.queries[0].rows as isize;
        let want = case.run(backend, &mut rng);
        let states = case.states(backend, &mut rng, [1024, 3000]);
        let first = case.states(backend, &mut rng, [0, 1024]);
        case.check_join(backend, &mut rng, [states, first].concat(), &want);
    }
}

/// The log-sum-exps 1e8 and 1e8 + ln 3 are one float: `merge` would give ½.
fn a_maximum_of_1e8_loses_nothing(backend: Backend) {
    let (key, attention) = ([1e8], Attention::new().on(backend).scale(1.0));
    let query = MatrixRef::from_row(&[1.0]);
    let mut states = [0.0; 4 * 5];
    let mut workspace = vec![0.0; Attention::workspace(1, 1)];
    for (span, state) in states.chunks_mut(5).enumerate() {
        let (keys, value) = (MatrixRef::from_row(&key), [f32::from(u8::from(span > 0))]);
        let first_key = (span * SPAN) as u64;
        attention
            .run_spans(query, keys, MatrixRef::from_row(&value), first_key, state, &mut workspace)
            .unwrap();
    }
    let mut out = [0.0];
    attention.join(&states, MatrixMut::from_row(&mut out), None).unwrap();
    assert_eq!(out, [0.75]);
}

/// Scores that underflow are zeros of both signs, of which any may be the maximum; a state stores it.
fn a_maximum_of_zero_has_one_sign(backend: Backend) {
    let mut rng = Rng::new(66);
    for _ in 0..50 {
        let keys = 1 + rng.below(150);
        let keys = Grid::from_fn(keys, 1, |_, _| rng.pick(&[1e-30, -1e-30, -1e-30]));
        let values = Grid::from_fn(keys.rows, 1, |_, _| 1.0);
        let mut workspace = vec![0.0; Attention::workspace(1, 1)];
        let mut of = |queries: usize, backend| {
            let queries = Grid::from_fn(queries, 1, |_, _| 1e-30);
            let mut states = vec![0.0; queries.rows * Attention::state_floats(1)];
            let [queries, keys, values] = [&queries, &keys, &values].map(Grid::view);
            let attention = Attention::new().on(backend).scale(1.0);
            attention.run_spans(queries, keys, values, 0, &mut states, &mut workspace).unwrap();
            states
        };
        let want = of(1, backend);
        for queries in [1, 2, 3, 4, 5, 8, 9, 16, 17, 33] {
            for state in of(queries, kin(backend, &mut rng)).chunks(want.len()) {
                assert_same_bits(&format!("{queries} queries"), state, &want);
            }
        }
    }
}

fn a_state_without_keys_changes_no_bit(backend: Backend) {
    let mut rng = Rng::new(64);
    for _ in 0..100 {
        let case = Case::random(&mut rng, 1, 100);
        let want = case.run(backend, &mut rng);
        let mut states = case.states(backend, &mut rng, [0, 100]);
        let [_, tokens, ..] = case.sizes();
        let hidden = Case {
            options: Options {
                keep: Some(Grid::from_fn(100, tokens, |_, _| 0).into()),
                sinks: Vec::new(),
                ..case.options.clone()
            },
            queries: case.queries.clone(),
            keys: case.keys.clone(),
            values: case.values.clone(),
            what: case.what.clone(),
        };
        for (span, place) in [(1, 0), (1 << 24, 1), ((1 << 24) + 5, 2)] {
            let mut state = hidden.states(backend, &mut rng, [0, 100]).remove(0);
            for row in state.chunks_mut(Attention::state_floats(case.sizes()[3])) {
                assert_eq!(row[..4], [0.0, 0.0, f32::NEG_INFINITY, 0.0]);
                [row[0], row[1]] = [(span >> 24) as f32, (span & 0xff_ffff) as f32];
            }
            states.insert(place, state);
        }
        case.check_join(backend, &mut rng, states, &want);
    }
    // No state at all: +0 and −∞, or the sink.
    for sink in [f32::NEG_INFINITY, 3.0] {
        let (mut out, mut logarithm) = ([CANARY; 2], [CANARY]);
        let attention = Attention::new().on(backend).sink(sink);
        attention.join(&[], MatrixMut::from_row(&mut out), Some(&mut logarithm)).unwrap();
        assert_eq!(out.map(f32::to_bits), [0, 0]);
        assert_eq!(logarithm, [sink]);
    }
}

/// More spans than one search finds.
fn many_spans_in_any_order(backend: Backend) {
    let mut rng = Rng::new(65);
    let (spans, row) = (100, Attention::state_floats(3));
    let mut sorted: Vec<Vec<f32>> = (0..spans)
        .map(|span| {
            let mut state = vec![0.0; 2 * row];
            for row in state.chunks_mut(row) {
                Kind::Wide.fill(&mut rng, row);
                row[3] = row[3].abs();
                [row[0], row[1]] = [(span / 7) as f32, (3 * span) as f32];
            }
            state
        })
        .collect();
    let attention = Attention::new().on(backend).sink(0.5);
    let join = |states: &[Vec<f32>]| {
        let (mut out, mut logarithms) = ([0.0; 6], [0.0; 2]);
        let heads = HeadsMut::stacked(&mut out, 1, 2, 3).unwrap();
        attention.join(&states.concat(), heads, Some(&mut logarithms)).map(|()| (out, logarithms))
    };
    let want = join(&sorted).unwrap();
    for _ in 0..20 {
        for i in 0..spans {
            sorted.swap(i, rng.below(spans));
        }
        assert_eq!(join(&sorted), Ok(want));
        let twice = [&sorted[..], &sorted[rng.below(spans)..][..1]].concat();
        assert_eq!(join(&twice), Err(Error::Position));
    }
}

fn refused_states_write_nothing(backend: Backend) {
    let attention = Attention::new().on(backend);
    let floats = vec![0.5; 2100];
    let query = MatrixRef::new(&floats, 2, 1).unwrap();
    let keys = |rows| MatrixRef::new(&floats, rows, 1).unwrap();
    let refused = |attention: Attention<'_>, rows, first_key, len, workspace, want| {
        let mut states = vec![CANARY; len];
        let mut workspace = vec![CANARY; workspace];
        let (q, k) = (query, keys(rows));
        let got = attention.run_spans(q, k, k, first_key, &mut states, &mut workspace);
        assert_eq!(got, want, "{rows} keys from {first_key}, {len} floats");
        assert!(want.is_ok() || (is_untouched(&states) && is_untouched(&workspace)));
    };
    let len = Attention::workspace(1, 1);
    refused(attention, 2100, 0, 30, len, Ok(()));
    refused(attention, 2100, 1024, 30, len, Ok(()));
    refused(attention, 0, 0, 0, len, Ok(()));
    refused(attention, 2100, 0, 29, len, Err(Error::Shape));
    refused(attention, 2100, 0, 40, len, Err(Error::Shape));
    refused(attention, 2100, 0, 30, len - 1, Err(Error::Workspace));
    refused(attention.scale(f32::NAN), 2100, 0, 30, len, Err(Error::Option));
    refused(attention.sink(f32::NAN), 2100, 0, 30, len, Err(Error::Option));
    for first_key in [1, 64, 1023, 1025, u64::MAX, 1 << 63] {
        refused(attention, 2100, first_key, 30, len, Err(Error::Position));
    }
    if let Ok(end) = isize::try_from(1u64 << 58) {
        refused(attention, 2100, end as u64 - 3072, 30, len, Ok(()));
        refused(attention, 2100, end as u64 - 2048, 30, len, Err(Error::Position));
    }
    let bias = MatrixRef::new(&floats, 1000, 2).unwrap();
    refused(attention.bias(bias), 1001, 0, 10, len, Err(Error::Shape));
    let values = HeadsRef::stacked(&floats, 2, 3, 1).unwrap();
    let mut states = [CANARY; 10];
    let mut workspace = vec![0.0; len];
    let got = attention.run_spans(query, keys(3), values, 0, &mut states, &mut workspace);
    assert_eq!(got, Err(Error::Shape));
    assert!(is_untouched(&states));
}

fn refused_joins_write_nothing(backend: Backend) {
    let state = |high: f32, low: f32| [high, low, 1.0, 1.0, 5.0, 6.0];
    let refused = |attention: Attention<'_>, states: &[f32], want| {
        let (mut out, mut logarithms) = ([CANARY; 2], [CANARY]);
        let got = attention.on(backend).join(
            states,
            MatrixMut::from_row(&mut out),
            Some(&mut logarithms),
        );
        assert_eq!(got, want, "{states:?}");
        assert!(want.is_ok() || (is_untouched(&out) && is_untouched(&logarithms)));
    };
    let attention = Attention::new();
    let join = |indices: &[[f32; 2]], want| {
        let states: Vec<f32> = indices.iter().flat_map(|&[high, low]| state(high, low)).collect();
        refused(attention, &states, want);
    };
    let wrong = Err(Error::Position);
    let most = 16_777_215.0;
    join(&[[0.0, 0.0], [0.0, 1.0], [most, most]], Ok(()));
    join(&[[1.0, 0.0], [0.0, most]], Ok(()));
    join(&[[0.0, 1.0], [0.0, 1.0]], wrong);
    join(&[[0.0, 2.0], [0.0, 1.0], [0.0, 2.0]], wrong);
    for part in [0.5, -1.0, f32::NAN, f32::INFINITY, most + 1.0, -0.5] {
        join(&[[part, 0.0]], wrong);
        join(&[[0.0, 3.0], [0.0, part]], wrong);
    }
    refused(attention, &[0.0; 5], Err(Error::Shape));
    refused(attention, &[0.0; 7], Err(Error::Shape));
    refused(attention.sink(f32::INFINITY), &state(0.0, 0.0), Err(Error::Option));
    refused(attention.sinks(&[0.0; 2]), &state(0.0, 0.0), Err(Error::Shape));
    // Of two queries of one span with different indices.
    let mut out = [CANARY; 4];
    let two = [state(0.0, 0.0), state(0.0, 1.0)];
    let got = attention.on(backend).join(
        two.as_flattened(),
        MatrixMut::new(&mut out, 2, 2).unwrap(),
        None,
    );
    assert_eq!(got, wrong);
    let mut logarithms = [CANARY; 2];
    let got = attention.on(backend).join(
        &state(0.0, 0.0),
        MatrixMut::from_row(&mut out[..2]),
        Some(&mut logarithms),
    );
    assert_eq!(got, Err(Error::Shape));
    let empty = MatrixMut::new(&mut [], 1, 0).unwrap();
    assert_eq!(attention.on(backend).join(&[], empty, None), Err(Error::Shape));
    assert!(is_untouched(&out) && is_untouched(&logarithms));
}

/// A cache that begins at a position, as a part of a longer one.
#[test]
fn a_cache_can_begin_at_a_position() {
    let mut cache = KvCache::<1, 1, 2>::starting_at(1 << 40);
    assert_eq!((cache.len(), cache.spans(), cache.appended()), (0, 0, 1 << 40));
    cache.append(MatrixRef::from_row(&[1.0]), MatrixRef::from_row(&[2.0])).unwrap();
    assert_eq!((cache.len(), cache.spans(), cache.dropped()), (1, 1, 1 << 40));
    let query = MatrixRef::from_row(&[1.0]);
    let mut state = [0.0; 5];
    let mut workspace = [0.0; Attention::workspace(1, 1)];
    cache.run_spans(&Attention::new(), query, &mut state, &mut workspace).unwrap();
    assert_eq!(state[..2], [64.0, 0.0]);
    let mut out = [0.0];
    Attention::new().join(&state, MatrixMut::from_row(&mut out), None).unwrap();
    assert_eq!(out, [2.0]);
}
