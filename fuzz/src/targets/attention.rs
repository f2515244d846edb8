//! Attention: against f64, over a cache, and in parts that are merged; with canaries around all outputs.
//!
//! ```text
//! every back end    all heads in one call == each head alone == over a cache == states of spans, or of those in
//!                   a cache, joined == others of its family, bit for bit
//! each family       scores of `Attention::scores`, and outputs and pattern computed from these scores in
//!                   f64: within their bounds
//! two parts, merged within the bound of one call
//! elements          of f16 and bf16: the bits of the widened keys and values; of i8 too: over arrays == over a
//!                   cache == states of spans, joined
//! ```

mod elements;
mod options;
mod truth;

use sdpa::{
    Attention, Backend, CachePositions, Error, HeadsMut, HeadsRef, KEY_BLOCK, KvCacheMut,
    MatrixMut, MatrixRef, SPAN,
};

use self::{
    options::Options,
    truth::{Column, Tolerance, U},
};
use super::input::Input;
use crate::common::{
    assert_same_bits,
    cases::{Layout, Rng},
    grid::{CANARY, Grid, GuardedMatrix, is_untouched},
    oracle,
};

fn rows<T: Copy>(grid: &Grid<T>, from: usize, to: usize) -> Grid<T> {
    let data = grid.data[from * grid.cols..to * grid.cols].to_vec();
    Grid { rows: to - from, cols: grid.cols, data }
}

/// Heads, `[heads][tokens][dim]`.
struct Heads {
    heads: usize,
    tokens: usize,
    dim: usize,
    data: Vec<f32>,
}

impl Heads {
    fn new(input: &mut Input<'_>, heads: usize, tokens: usize, dim: usize) -> Self {
        Self { heads, tokens, dim, data: input.values(heads * tokens * dim) }
    }

    fn view(&self) -> HeadsRef<'_> {
        HeadsRef::stacked(&self.data, self.heads, self.tokens, self.dim).expect("dense")
    }

    fn head(&self, head: usize) -> Grid {
        let len = self.tokens * self.dim;
        Grid { rows: self.tokens, cols: self.dim, data: self.data[head * len..][..len].to_vec() }
    }

    /// Transposes to `[tokens][heads][dim]`.
    fn interleaved(&self) -> Vec<f32> {
        let mut data = Vec::with_capacity(self.data.len());
        for token in 0..self.tokens {
            for head in 0..self.heads {
                let from = (head * self.tokens + token) * self.dim;
                data.extend_from_slice(&self.data[from..][..self.dim]);
            }
        }
        data
    }

    fn rows(&self, from: usize, to: usize) -> Self {
        let data = (0..self.heads).flat_map(|head| rows(&self.head(head), from, to).data);
        Self { tokens: to - from, data: data.collect(), ..*self }
    }
}

/// Outputs, `[heads][tokens][width]`, and log-sum-exps.
#[derive(Clone)]
struct State {
    out: Vec<f32>,
    log_sum_exp: Vec<f32>,
}

impl State {
    #[track_caller]
    fn assert_is(&self, what: &str, other: &Self) {
        assert_same_bits(&format!("{what}: output"), &self.out, &other.out);
        assert_same_bits(&format!("{what}: log-sum-exp"), &self.log_sum_exp, &other.log_sum_exp);
    }
}

struct Case {
    options: Options,
    queries: Heads,
    keys: Heads,
    values: Heads,
}

/// Floats with canaries on both sides.
struct Guarded(Vec<f32>);

impl Guarded {
    const MARGIN: usize = 5;

    fn new(len: usize) -> Self {
        Self(vec![CANARY; len + 2 * Self::MARGIN])
    }

    fn inner(&mut self) -> &mut [f32] {
        let len = self.0.len() - 2 * Self::MARGIN;
        &mut self.0[Self::MARGIN..][..len]
    }

    fn checked(mut self, what: &str) -> Vec<f32> {
        let inner = self.inner().to_vec();
        self.inner().fill(CANARY);
        assert!(is_untouched(&self.0), "{what}: wrote outside");
        inner
    }
}

/// Input bytes: query heads and KV heads; queries, keys; dim and width; a cut and a layout of one byte each;
/// the values of queries, keys and values; the options; the formats of keys and values.
pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let heads = input.u8();
    let (key_heads, group) = (1 + usize::from(heads) % 2, 1 + usize::from(heads / 2) % 3);
    let (queries, mut keys) = (input.size() % 41, usize::from(input.u8()));
    // Up to 200 keys, or of one to three spans.
    keys = if keys < 240 { keys % 201 } else { 900 + (keys - 240) * 130 };
    let (dim, width) = (input.size() % 25, input.size() % 25);
    while key_heads * group * queries * keys * (dim + width) > 1 << 15 {
        keys /= 2;
    }
    let (cut, kind) = (usize::from(input.u8()) % (keys + 1), input.u8());
    let case = Case {
        queries: Heads::new(&mut input, key_heads * group, queries, dim),
        keys: Heads::new(&mut input, key_heads, keys, dim),
        values: Heads::new(&mut input, key_heads, keys, width),
        options: Options::new(&mut input, key_heads * group, keys, queries),
    };
    let error = if dim == 0 || width == 0 { Some(Error::Shape) } else { case.options.error() };
    if let Some(error) = error {
        Backend::available().for_each(|backend| case.refused(backend, error));
        return;
    }
    let mut families: Vec<(Backend, State)> = Vec::new();
    for backend in Backend::available() {
        let state = case.run(backend);
        match families.iter().find(|(first, _)| first.family() == backend.family()) {
            Some((_, first)) => state.assert_is(backend.name(), first),
            None => families.push((backend, state.clone())),
        }
        case.heads_alone(backend, kind).assert_is("heads alone", &state);
        case.interleaved(backend).assert_is("interleaved", &state);
        case.check_cache(backend, kind);
        case.in_spans(backend, kind).assert_is("spans, joined", &state);
    }
    let formats = input.u8();
    if !formats.is_multiple_of(16) {
        case.check_elements(formats);
    }
    for (backend, state) in families {
        let merged = case.in_parts(backend, cut);
        for head in 0..case.queries.heads {
            case.check_head(backend, head, &state, &merged);
        }
    }
}

impl Case {
    fn group(&self) -> usize {
        self.queries.heads / self.keys.heads
    }

    fn workspace(&self) -> usize {
        Attention::workspace(self.keys.dim, self.values.dim)
    }

    fn outputs(&self) -> (Guarded, Guarded) {
        let queries = self.queries.heads * self.queries.tokens;
        (Guarded::new(queries * self.values.dim), Guarded::new(queries))
    }

    /// Computes all heads in one call, stacked.
    fn call(&self, backend: Backend) -> (Result<(), Error>, State) {
        let (mut out, mut log_sum_exp) = self.outputs();
        let mut workspace = Guarded::new(self.workspace());
        let (heads, tokens, width) = (self.queries.heads, self.queries.tokens, self.values.dim);
        let result = self.options.attention(backend).run_with_log_sum_exp(
            self.queries.view(),
            self.keys.view(),
            self.values.view(),
            HeadsMut::stacked(out.inner(), heads, tokens, width).expect("dense"),
            log_sum_exp.inner(),
            workspace.inner(),
        );
        workspace.checked("workspace");
        let state =
            State { out: out.checked("output"), log_sum_exp: log_sum_exp.checked("log-sum-exp") };
        (result, state)
    }

    fn run(&self, backend: Backend) -> State {
        let (result, state) = self.call(backend);
        result.expect("sizes agree");
        state
    }

    fn refused(&self, backend: Backend, error: Error) {
        let (result, State { out, log_sum_exp }) = self.call(backend);
        assert_eq!(result, Err(error));
        assert!(is_untouched(&out) && is_untouched(&log_sum_exp), "an error wrote");
    }

    /// Computes the states of one or two spans at a time, from the last or the first on, leaves out those that no
    /// query sees, and joins the others.
    fn in_spans(&self, backend: Backend, kind: u8) -> State {
        let (keys, tokens) = (self.keys.tokens, self.queries.tokens);
        let step = SPAN * if kind & 2 == 0 { 1 } else { 2 };
        let mut starts: Vec<usize> = (0..keys).step_by(step).collect();
        if kind & 1 != 0 {
            starts.reverse();
        }
        let own: Vec<Options> =
            (0..self.queries.heads).map(|head| self.options.of_heads(head..head + 1)).collect();
        let mut states = Vec::new();
        for from in starts {
            let to = keys.min(from + step);
            let sees = |key| own.iter().any(|own| (0..tokens).any(|token| own.sees(key, token)));
            if kind & 4 != 0 && !(from..to).any(sees) {
                continue;
            }
            let options = Options { offset: self.options.offset, ..self.options.part(from, to) };
            let (k, v) = (self.keys.rows(from, to), self.values.rows(from, to));
            let run = |first_key: usize, states: &mut [f32], workspace: &mut [f32]| {
                let (q, k, v) = (self.queries.view(), k.view(), v.view());
                options.attention(backend).run_spans(q, k, v, first_key as u64, states, workspace)
            };
            states.extend(self.states((to - from).div_ceil(SPAN), |states, workspace| {
                let between = from + 1 + usize::from(kind);
                assert_eq!(run(between, states, workspace), Err(Error::Position));
                assert!(is_untouched(states) && is_untouched(workspace), "an error wrote");
                run(from, states, workspace)
            }));
        }
        self.join(backend, states)
    }

    /// The states of `spans` spans, which `run` writes.
    fn states(
        &self,
        spans: usize,
        run: impl FnOnce(&mut [f32], &mut [f32]) -> Result<(), Error>,
    ) -> Vec<f32> {
        self.states_of(Attention::workspace, spans, run)
    }

    /// [`states`](Self::states) with another workspace.
    fn states_of(
        &self,
        workspace: impl Fn(usize, usize) -> usize,
        spans: usize,
        run: impl FnOnce(&mut [f32], &mut [f32]) -> Result<(), Error>,
    ) -> Vec<f32> {
        let queries = self.queries.heads * self.queries.tokens;
        let mut states = Guarded::new(spans * queries * Attention::state_floats(self.values.dim));
        let mut workspace = Guarded::new(workspace(self.keys.dim, self.values.dim));
        run(states.inner(), workspace.inner()).expect("sizes agree");
        workspace.checked("workspace");
        states.checked("states")
    }

    /// Joins states; with a span that is there twice they are refused.
    fn join(&self, backend: Backend, mut states: Vec<f32>) -> State {
        let (heads, tokens, width) = (self.queries.heads, self.queries.tokens, self.values.dim);
        let join = |states: &[f32]| {
            let (mut out, mut log_sum_exp) = self.outputs();
            let heads = HeadsMut::stacked(out.inner(), heads, tokens, width).expect("dense");
            let attention = self.options.attention(backend);
            let result = attention.join(states, heads, Some(log_sum_exp.inner()));
            let (out, log_sum_exp) = (out.checked("join"), log_sum_exp.checked("join"));
            (result, State { out, log_sum_exp })
        };
        let (result, state) = join(&states);
        result.expect("sizes agree");
        if !states.is_empty() {
            states.extend_from_within(..heads * tokens * Attention::state_floats(width));
            let (result, State { out, log_sum_exp }) = join(&states);
            assert_eq!(result, Err(Error::Position), "a span is there twice");
            assert!(is_untouched(&out) && is_untouched(&log_sum_exp), "an error wrote");
        }
        state
    }

    /// Computes head after head, each in some layout; first with a workspace that is too short.
    fn heads_alone(&self, backend: Backend, kind: u8) -> State {
        let mut rng = Rng::new(u64::from(kind));
        let mut state = State { out: Vec::new(), log_sum_exp: Vec::new() };
        for head in 0..self.queries.heads {
            let [queries, keys, values] =
                [(&self.queries, 1), (&self.keys, self.group()), (&self.values, self.group())].map(
                    |(heads, group)| {
                        let grid = heads.head(head / group);
                        let layout = Layout::of_output(&mut rng, grid.rows, grid.cols);
                        GuardedMatrix::of(&grid, layout)
                    },
                );
            let layout = Layout::of_output(&mut rng, self.queries.tokens, self.values.dim);
            let mut out = GuardedMatrix::empty(layout);
            let mut log_sum_exp = vec![CANARY; self.queries.tokens];
            let mut workspace = vec![CANARY; self.workspace()];
            let own = self.options.of_heads(head..head + 1);
            let mut run = |workspace: &mut [f32]| {
                own.attention(backend).run_with_log_sum_exp(
                    queries.view(),
                    keys.view(),
                    values.view(),
                    out.view_mut(),
                    &mut log_sum_exp,
                    workspace,
                )
            };
            let (_, short) = workspace.split_at_mut(1);
            assert_eq!(run(short), Err(Error::Workspace));
            assert!(is_untouched(&workspace), "an error wrote");
            run(&mut workspace).expect("sizes agree");
            state.out.extend(out.checked("a head alone").data);
            state.log_sum_exp.extend(log_sum_exp);
        }
        state
    }

    /// Computes all heads in one call, interleaved.
    fn interleaved(&self, backend: Backend) -> State {
        let [queries, keys, values] =
            [&self.queries, &self.keys, &self.values].map(Heads::interleaved);
        let view = |data, of: &Heads| HeadsRef::interleaved(data, of.heads, of.tokens, of.dim);
        let (heads, tokens, width) = (self.queries.heads, self.queries.tokens, self.values.dim);
        let (mut out, mut log_sum_exp) = self.outputs();
        self.options
            .attention(backend)
            .run_with_log_sum_exp(
                view(&queries, &self.queries).expect("dense"),
                view(&keys, &self.keys).expect("dense"),
                view(&values, &self.values).expect("dense"),
                HeadsMut::interleaved(out.inner(), heads, tokens, width).expect("dense"),
                log_sum_exp.inner(),
                &mut vec![CANARY; self.workspace()],
            )
            .expect("sizes agree");
        let by_token = out.checked("interleaved");
        let by_token = Heads { heads: tokens, tokens: heads, dim: width, data: by_token };
        State { out: by_token.interleaved(), log_sum_exp: log_sum_exp.checked("log-sum-exp") }
    }

    /// Over a cache after appends, slides and truncations, which may keep its first keys: the bits of a call over all
    /// keys with the dropped ones masked.
    fn check_cache(&self, backend: Backend, kind: u8) {
        let (keys, tokens) = (self.keys.tokens, self.queries.tokens);
        let (dim, width, group) = (self.keys.dim, self.values.dim, self.group());
        let newest = keys as isize - tokens as isize;
        let Some(offset) = self.options.offset.checked_sub(newest) else { return };
        for head in 0..self.keys.heads {
            let mut rng = Rng::new(u64::from(kind));
            let blocks = 1 + rng.below(4);
            let floats = |width: usize| Guarded::new(width * KEY_BLOCK * blocks);
            let (mut key_floats, mut value_floats) = (floats(dim), floats(width));
            // Whole spans before key 0 change no bit, nor blocks that leave all keys in one span.
            let blocks_before = if keys <= SPAN - KEY_BLOCK { 1 } else { 16 };
            let base = KEY_BLOCK as u64 * [0, blocks_before, 1 << 26, 1 << 57][rng.below(4)];
            let mut span = CachePositions::new(base, base).expect("none dropped");
            let mut cache =
                KvCacheMut::new(key_floats.inner(), value_floats.inner(), dim, width, &mut span)
                    .expect("room for a block");
            let mut keeps = Rng::new(256 + u64::from(kind));
            let mut kept = if base == 0 { keeps.below(2) * keeps.below(80) } else { 0 };
            // Kept keys take whole blocks of 64; one block is left for others.
            let mut pinned = kept.div_ceil(64) * (64 / KEY_BLOCK);
            if pinned >= blocks {
                (kept, pinned) = (0, 0);
            }
            cache.keep_first(kept).expect("room for them");
            let (all_keys, all_values) = (self.keys.head(head), self.values.head(head));
            let mut at = 0;
            while at < keys {
                let room = 1 + rng.below(((blocks - pinned - 1) * KEY_BLOCK + 1).min(100));
                let end = keys.min(at + room);
                let chunk = [&all_keys, &all_values].map(|grid| rows(grid, at, end));
                match cache.append(chunk[0].view(), chunk[1].view()) {
                    Ok(()) => at = end,
                    Err(error) => {
                        assert_eq!(error, Error::Capacity);
                        cache.slide(cache.len() / 2);
                    }
                }
                if rng.one_in(6) {
                    let back = rng.below(1 + cache.len().min(3));
                    cache.truncate(cache.len() - back).expect("that many are held");
                    at = (cache.appended() - base) as usize;
                }
            }
            if rng.one_in(3) {
                cache.slide(rng.below(cache.len() + 1));
            }
            let dropped = (cache.dropped() - base) as usize;
            let dropped = kept.min(dropped)..dropped;
            let cache = cache.view();
            assert_eq!((cache.appended(), cache.len()), (base + keys as u64, keys - dropped.len()));

            let own = self.options.of_heads(head * group..(head + 1) * group);
            let own = Options { keep_first: kept, ..own }; // what the cache keeps
            let keep_first = keeps.below(2) * kept;
            let held = Options { offset, keep_first, ..own.without(dropped.clone()) };
            let all = || Grid::from_fn(keys, tokens, |_, _| 1).into();
            let keep = own.keep.clone().unwrap_or_else(all).map(|keep| {
                let seen =
                    |key, token| if dropped.contains(&key) { 0 } else { keep.at(key, token) };
                Grid::from_fn(keys, tokens, seen)
            });
            let masked = Options { keep: Some(keep), ..own };
            let one = |heads: &Heads, first: usize, count: usize| Heads {
                heads: count,
                data: heads.data[first * heads.tokens * heads.dim..]
                    [..count * heads.tokens * heads.dim]
                    .to_vec(),
                ..*heads
            };
            let alone = Case {
                queries: one(&self.queries, head * group, group),
                keys: one(&self.keys, head, 1),
                values: one(&self.values, head, 1),
                options: masked,
            };
            let want = alone.run(backend);

            let (mut out, mut log_sum_exp) = alone.outputs();
            cache
                .attend_with_log_sum_exp(
                    &held.attention(backend),
                    alone.queries.view(),
                    HeadsMut::stacked(out.inner(), group, tokens, width).expect("dense"),
                    log_sum_exp.inner(),
                    &mut vec![CANARY; self.workspace()],
                )
                .expect("sizes agree");
            let got = State {
                out: out.checked("from a cache"),
                log_sum_exp: log_sum_exp.checked("from a cache"),
            };
            got.assert_is("from a cache", &want);
            let count = keys - dropped.len();
            let [mut pattern, mut over_all] =
                [count, keys].map(|keys| Guarded::new(group * keys * tokens));
            let to = HeadsMut::stacked(pattern.inner(), group, count, tokens).expect("dense");
            let attention = held.attention(backend);
            cache.pattern(&attention, alone.queries.view(), to, &mut []).expect("sizes agree");
            let to = HeadsMut::stacked(over_all.inner(), group, keys, tokens).expect("dense");
            let masked = alone.options.attention(backend);
            masked.pattern(alone.queries.view(), alone.keys.view(), to).expect("sizes agree");
            let (pattern, over_all) = (pattern.checked("pattern"), over_all.checked("pattern"));
            let rows = (0..group * keys).filter(|row| !dropped.contains(&(row % keys)));
            let of_held: Vec<f32> =
                rows.flat_map(|row| &over_all[row * tokens..][..tokens]).copied().collect();
            assert_same_bits("pattern of a cache", &pattern, &of_held);
            // States have no room for later positions.
            if cache.appended() < 1 << 58 {
                let attention = held.attention(backend);
                let states = alone.states(cache.spans(), |states, workspace| {
                    cache.run_spans(&attention, alone.queries.view(), states, workspace)
                });
                alone.join(backend, states).assert_is("spans of a cache, joined", &want);
            }
            key_floats.checked("keys of a cache");
            value_floats.checked("values of a cache");
        }
    }

    /// Merges the attention over the keys before `cut` and over the others; also returns the log-sum-exps of
    /// both.
    fn in_parts(&self, backend: Backend, cut: usize) -> (State, [Vec<f32>; 2]) {
        let part = |from, to, sinks| {
            let part = Self {
                queries: self.queries.rows(0, self.queries.tokens),
                keys: self.keys.rows(from, to),
                values: self.values.rows(from, to),
                options: Options { sinks, ..self.options.part(from, to) },
            };
            part.run(backend)
        };
        let first = part(0, cut, self.options.sinks.clone());
        let second = part(cut, self.keys.tokens, Vec::new());
        let (queries, width) = (first.log_sum_exp.len(), self.values.dim);
        let logs = [first.log_sum_exp.clone(), second.log_sum_exp.clone()];
        let State { mut out, mut log_sum_exp } = first;
        backend
            .merge(
                MatrixMut::new(&mut out, queries, width).expect("dense"),
                &mut log_sum_exp,
                MatrixRef::new(&second.out, queries, width).expect("dense"),
                &second.log_sum_exp,
            )
            .expect("sizes agree");
        (State { out, log_sum_exp }, logs)
    }

    /// Checks one head against f64.
    fn check_head(
        &self,
        backend: Backend,
        head: usize,
        state: &State,
        (merged, parts): &(State, [Vec<f32>; 2]),
    ) {
        let queries = self.queries.head(head);
        let (keys, values) =
            (self.keys.head(head / self.group()), self.values.head(head / self.group()));
        let own = self.options.of_heads(head..head + 1);
        let attention = own.attention(backend);
        let mut scores = Grid::zeros(keys.rows, queries.rows);
        attention.scores(queries.view(), keys.view(), scores.view_mut()).expect("sizes agree");
        let mut pattern = Grid::zeros(keys.rows, queries.rows);
        attention.pattern(queries.view(), keys.view(), pattern.view_mut()).expect("sizes agree");
        Self::check_scores(&own, &keys, &queries, &scores);

        for token in 0..queries.rows {
            let seen: Vec<usize> = (0..keys.rows).filter(|&key| own.sees(key, token)).collect();
            let column = Column::new(
                own.sink(),
                &seen.iter().map(|&key| scores.at(key, token)).collect::<Vec<_>>(),
            );
            for key in 0..keys.rows {
                let got = pattern.at(key, token);
                match seen.binary_search(&key) {
                    Err(_) => {
                        assert_eq!(got.to_bits(), 0, "a masked key weighs {got:e}");
                        assert_eq!(scores.at(key, token), f32::NEG_INFINITY, "a masked score");
                    }
                    Ok(_) if column.log_sum_exp.is_nan() => assert!(got.is_nan()),
                    Ok(i) => {
                        let truth = column.weights[i];
                        assert!((f64::from(got) - truth).abs() < 2e-5, "{got:e}, not {truth:e}");
                    }
                }
            }

            let at = head * queries.rows + token;
            let tolerance = Tolerance::new(backend.family(), keys.rows, &column);
            tolerance.check_log(state.log_sum_exp[at], column.log_sum_exp);
            let merges = tolerance.merged();
            let parts = [parts[0][at], parts[1][at]];
            let unknown = parts == [f32::INFINITY; 2];
            if unknown {
                assert!(merged.log_sum_exp[at].is_nan());
            } else {
                merges.check_log(merged.log_sum_exp[at], column.log_sum_exp);
            }
            for col in 0..values.cols {
                let i = at * values.cols + col;
                let seen: Vec<f64> =
                    seen.iter().map(|&key| f64::from(values.at(key, col))).collect();
                tolerance.check(state.out[i], &column, &seen);
                // Values in a part without visible keys may be infinite or NaN: they are ignored.
                let is_read =
                    seen.iter().all(|x| x.is_finite()) || !parts.contains(&f32::NEG_INFINITY);
                if unknown {
                    assert!(merged.out[i].is_nan());
                } else if is_read {
                    merges.check(merged.out[i], &column, &seen);
                }
            }
        }
    }

    /// Checks scores of ordinary size, before masked keys are set to −∞.
    fn check_scores(options: &Options, keys: &Grid, queries: &Grid, scores: &Grid) {
        let Options { scale, softcap, .. } = *options;
        let products = oracle::scores(keys, queries, scale);
        let factor = f64::from(scale.unwrap_or(1.0)).abs();
        let cap = f64::from(softcap);
        for key in 0..keys.rows {
            for token in (0..queries.rows).filter(|&token| options.sees(key, token)) {
                let product = products.at(key, token);
                let largest =
                    queries.row(token).iter().fold(0.0, |max: f64, q| max.max(f64::from(q.abs())));
                let bias = options.bias.as_ref().map_or(0.0, |bias| f64::from(bias.at(key, token)));
                let slope = options.slope_by_distance(key, token);
                let ordinary = |x: f64| x.abs() < 1e38;
                if ![product.magnitude, factor * largest, bias, slope].into_iter().all(ordinary) {
                    continue;
                }
                let mut truth = product.value;
                let mut allowed = (keys.cols + 3) as f64 * 1.001 * U * product.magnitude
                    + product.underflow * 1e-44;
                if cap > 0.0 {
                    truth = cap * (truth / cap).tanh();
                    // The quotient by the cap may be subnormal.
                    allowed += 6.0 * U * truth.abs() + cap * 3e-45 + 3e-45;
                }
                truth += bias;
                allowed += U * truth.abs();
                truth -= slope;
                allowed += U * (truth.abs() + slope.abs()) + 3e-45;
                let got = f64::from(scores.at(key, token));
                assert!((got - truth).abs() <= allowed, "score {got:e}, not {truth:e}");
            }
        }
    }
}
