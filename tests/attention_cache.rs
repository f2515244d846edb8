//! KV caches: attention over a cache has the bits of the plain call over every key ever appended, with the
//! dropped keys masked; a full cache refuses keys and loses none; on every back end.

use crate::common::{
    self, assert_same_bits,
    cases::{Kind, Layout, Rng},
    grid::{CANARY, Grid, GuardedMatrix},
    heads::{GuardedHeads, guarded},
    mask::Mask,
    options::{Options, part},
};
use sdpa::{
    Attention, Backend, CachePositions, Error, HeadsMut, HeadsRef, KEY_BLOCK, KvCache, KvCacheMut,
    KvCacheRef, MatrixRef,
};

suite! {
    has_the_bits_of_the_plain_call,
    a_fixed_size_cache_has_the_same_bits,
    dropping_is_a_window,
    wraps_around_many_times,
    serves_every_query_of_a_chunk,
    stale_storage_never_reaches_the_output,
    attends_with_more_queries_than_keys,
    bias_and_keep_have_one_row_per_key,
    large_positions_have_the_bits_of_small_ones,
    keeps_its_first_keys_or_says_why_not,
    refuses_what_disagrees,
}

/// The number of blocks with room for 64 keys.
const FOR_64: usize = 64 / KEY_BLOCK;

/// All keys and values ever appended to a cache.
struct History {
    keys: Grid,
    values: Grid,
    /// The position of the oldest key that is not kept.
    dropped: usize,
    kept: usize,
}

impl History {
    fn new(dim: usize, width: usize) -> Self {
        Self { keys: Grid::zeros(0, dim), values: Grid::zeros(0, width), dropped: 0, kept: 0 }
    }

    fn len(&self) -> usize {
        (0..self.keys.rows).filter(|&key| self.holds(key)).count()
    }

    fn holds(&self, key: usize) -> bool {
        key >= self.dropped || key < self.kept
    }

    /// The row of a key among those held.
    fn row(&self, key: usize) -> Option<usize> {
        self.holds(key).then(|| (0..key).filter(|&key| self.holds(key)).count())
    }

    fn append(&mut self, keys: &Grid, values: &Grid) {
        self.keys.data.extend(&keys.data);
        self.values.data.extend(&values.data);
        self.keys.rows += keys.rows;
        self.values.rows += values.rows;
    }

    /// As `KvCache::truncate`.
    fn truncate(&mut self, len: usize) -> Result<(), Error> {
        if len > self.len() {
            return Err(Error::Position);
        }
        // The position after the first `len` keys held; behind the dropped ones if nothing but kept keys is left.
        let rows = match (0..self.keys.rows).filter(|&key| self.holds(key)).nth(len) {
            Some(next) => next,
            None => self.keys.rows,
        };
        if self.kept > 0 && rows <= self.kept {
            self.dropped = 0;
        }
        for grid in [&mut self.keys, &mut self.values] {
            grid.rows = rows;
            grid.data.truncate(rows * grid.cols);
        }
        Ok(())
    }

    fn slide(&mut self, len: usize) {
        let oldest = self.keys.rows.saturating_sub(len.saturating_sub(self.kept));
        if oldest > self.kept {
            self.dropped = self.dropped.max(oldest);
        }
    }

    /// Returns the position of the first query of a call.
    fn newest(&self, tokens: usize) -> isize {
        self.keys.rows as isize - tokens as isize
    }

    /// Returns the options of the plain call: the same for the keys in the cache, the others masked, and
    /// positions counted from key 0.
    fn plain(&self, options: &Options, tokens: usize) -> Options {
        let held: Vec<_> = (0..self.keys.rows).map(|key| self.row(key)).collect();
        let padded = |key: usize| held[key];
        let all = || Mask::from(Grid::from_fn(self.len(), tokens, |_, _| 1));
        let rows = self.keys.rows;
        let keep = options.keep.clone().unwrap_or_else(all).map(|keep| {
            Grid::from_fn(rows, tokens, |key, token| {
                padded(key).map_or(0, |row| keep.at(row, token))
            })
        });
        let bias = options.bias.as_ref().map(|bias| {
            bias.map(|bias| {
                Grid::from_fn(rows, tokens, |key, token| {
                    padded(key).map_or(f32::NAN, |row| bias.at(row, token))
                })
            })
        });
        let offset = options.offset + self.newest(tokens);
        Options { keep: Some(keep), bias, offset, keep_first: self.kept, ..options.clone() }
    }

    /// Attends over the cache and by the plain call, with any options and queries, and compares the bits.
    #[track_caller]
    fn check(&self, backend: Backend, rng: &mut Rng, cache: KvCacheRef<'_>, what: &str) {
        assert_eq!(
            (cache.appended(), cache.dropped(), cache.len(), cache.is_empty()),
            (self.keys.rows as u64, self.dropped as u64, self.len(), self.len() == 0),
            "{what}"
        );
        let (heads, tokens) = (1 + rng.below(3), rng.pick(&[0, 1, 1, 1, 2, 5, 17, 40]));
        let mut options = Options::random(rng, heads, self.len(), tokens);
        if ![isize::MIN, isize::MAX].contains(&options.offset) && rng.one_in(2) {
            options.offset = rng.below(9) as isize - 4;
        }
        // The plain call counts from key 0; its offset must fit an `isize`.
        let newest = self.newest(tokens);
        options.offset = options.offset.saturating_add(newest).saturating_sub(newest);
        options.keep_first = rng.pick(&[0, self.kept]);
        let kind = Kind::any(rng);
        let queries: Vec<Grid> =
            (0..heads).map(|_| Grid::random(rng, kind, tokens, self.keys.cols)).collect();
        let queries = GuardedHeads::of(rng, &queries);
        let sizes = [heads, tokens, self.keys.cols, self.values.cols];
        let what = format!("{what}: {sizes:?}, {} keys, {kind:?}, {options:?}", self.len());

        let attention = options.attention(backend);
        let got = guarded(rng, &what, sizes, |out, logarithms, workspace| {
            let queries = queries.view();
            cache.attend_with_log_sum_exp(&attention, queries, out, logarithms, workspace)
        });
        let outputs = guarded(rng, &what, sizes, |out, _, workspace| {
            cache.attend(&attention, queries.view(), out, workspace)
        });
        let plain = self.plain(&options, tokens);
        let attention = plain.attention(backend);
        let want = guarded(rng, &what, sizes, |out, logarithms, workspace| {
            let (q, k, v) = (queries.view(), self.keys.view(), self.values.view());
            attention.run_with_log_sum_exp(q, k, v, out, logarithms, workspace)
        });
        for ((got, output), want) in got.iter().zip(&outputs).zip(&want) {
            assert_same_bits(&what, &got.0.data, &want.0.data);
            assert_same_bits(&what, &output.0.data, &want.0.data);
            assert_same_bits(&format!("log-sum-exp: {what}"), &got.1, &want.1);
        }

        let mut got = Patterns::new([heads, self.len(), tokens]);
        let of_cache = options.attention(backend);
        cache.pattern(&of_cache, queries.view(), got.heads(), &mut []).unwrap();
        let mut workspace = vec![CANARY; self.len() * tokens];
        cache.mean_pattern(&of_cache, queries.view(), got.mean.view_mut(), &mut workspace).unwrap();
        let mut want = Patterns::new([heads, self.keys.rows, tokens]);
        want.compute(attention, queries.view(), &self.keys);
        let held: Vec<_> = (0..self.keys.rows).filter(|&key| self.holds(key)).collect();
        got.assert_are(&format!("over all keys: {what}"), &want, &held);
        // Over the keys held alone, whose positions are less by the number of dropped ones.
        let dropped = self.keys.rows - self.len();
        let offset = options.offset.checked_add(self.len() as isize - tokens as isize);
        if let (Some(offset), true) = (offset, self.kept == 0 || dropped == 0) {
            let keys = part(&self.keys, [dropped, self.keys.rows], [0, self.keys.cols]);
            let options = Options { offset, keep_first: self.kept, ..options };
            let mut want = Patterns::new([heads, self.len(), tokens]);
            want.compute(options.attention(backend), queries.view(), &keys);
            let all: Vec<_> = (0..self.len()).collect();
            got.assert_are(&format!("over the keys held: {what}"), &want, &all);
        }
    }
}

/// The patterns of all heads, head after head, and their mean.
struct Patterns {
    sizes: [usize; 3],
    data: Vec<f32>,
    mean: Grid,
}

impl Patterns {
    fn new(sizes: [usize; 3]) -> Self {
        let [heads, keys, tokens] = sizes;
        let data = vec![CANARY; heads * keys * tokens];
        Self { sizes, data, mean: Grid::from_fn(keys, tokens, |_, _| CANARY) }
    }

    fn heads(&mut self) -> HeadsMut<'_> {
        let [heads, keys, tokens] = self.sizes;
        HeadsMut::stacked(&mut self.data, heads, keys, tokens).unwrap()
    }

    /// By plain calls.
    fn compute(&mut self, attention: Attention<'_>, queries: HeadsRef<'_>, keys: &Grid) {
        attention.pattern(queries, keys.view(), self.heads()).unwrap();
        let workspace = &mut vec![CANARY; self.mean.data.len()];
        attention.mean_pattern(queries, keys.view(), self.mean.view_mut(), workspace).unwrap();
    }

    /// Each row has the bits of a row of the others, whose further rows are 0.
    #[track_caller]
    fn assert_are(&self, what: &str, others: &Self, rows: &[usize]) {
        let [heads, keys, tokens] = others.sizes;
        let row = |of: &[f32], row: usize| of[row * tokens..][..tokens].to_vec();
        let of_rows = |of: &[f32], head: usize| -> Vec<f32> {
            rows.iter().flat_map(|&key| row(of, head * keys + key)).collect()
        };
        let want: Vec<f32> = (0..heads).flat_map(|head| of_rows(&others.data, head)).collect();
        assert_same_bits(&format!("pattern {what}"), &self.data, &want);
        assert_same_bits(&format!("mean {what}"), &self.mean.data, &of_rows(&others.mean.data, 0));
        let absent = (0..keys).filter(|key| !rows.contains(key));
        for key in absent {
            assert!(row(&others.mean.data, key).iter().all(|weight| *weight == 0.0), "{what}");
        }
    }
}

/// The storage of a cache, filled with NaN.
struct Storage {
    keys: Vec<f32>,
    values: Vec<f32>,
    span: CachePositions,
    dim: usize,
    width: usize,
}

impl Storage {
    fn new(dim: usize, width: usize, blocks: usize) -> Self {
        let floats = |width| vec![CANARY; width * KEY_BLOCK * blocks];
        let (keys, values) = (floats(dim), floats(width));
        Self { keys, values, span: CachePositions::default(), dim, width }
    }

    fn cache(&mut self) -> KvCacheMut<'_> {
        let Self { keys, values, span, dim, width } = self;
        KvCacheMut::new(keys, values, *dim, *width, span).unwrap()
    }

    fn view(&self) -> KvCacheRef<'_> {
        let Self { keys, values, span, dim, width } = self;
        KvCacheRef::new(keys, values, *dim, *width, *span).unwrap()
    }
}

fn random(rng: &mut Rng, kind: Kind, count: usize, [dim, width]: [usize; 2]) -> [GuardedMatrix; 2] {
    [dim, width].map(|cols| {
        let grid = Grid::random(rng, kind, count, cols);
        GuardedMatrix::of(&grid, Layout::of_output(rng, count, cols))
    })
}

/// Whether the cache has room for `count` more keys, by the definition in its documentation.
fn has_room(history: &History, blocks: usize, count: usize) -> bool {
    // Kept keys take whole blocks of 64.
    let pinned = history.kept.next_multiple_of(64);
    let held: std::collections::HashSet<usize> = (0..pinned.max(history.keys.rows + count))
        .filter(|&key| key < pinned || key >= history.dropped)
        .map(|key| key / KEY_BLOCK)
        .collect();
    held.len() <= blocks
}

/// Appends, slides, truncates and clears at random, and attends after each step.
fn has_the_bits_of_the_plain_call(backend: Backend) {
    let mut rng = Rng::new(31);
    let (mut refused, mut taken, mut dropped) = (0, 0, 0);
    for _ in 0..60 {
        let (dim, width, blocks) = (1 + rng.below(9), 1 + rng.below(9), 1 + rng.below(4 * FOR_64));
        let mut storage = Storage::new(dim, width, blocks);
        let mut history = History::new(dim, width);
        let (few, many) = (rng.below(9), rng.below(200));
        let kept = rng.pick(&[0, few, 64, many]);
        let fits = kept.div_ceil(64) * FOR_64 <= blocks;
        let result = storage.cache().keep_first(kept);
        assert_eq!(result, if fits { Ok(()) } else { Err(Error::Capacity) });
        history.kept = if fits { kept } else { 0 };
        for step in 0..20 {
            let kept = history.kept;
            let what = format!("{dim}, {width}, {blocks} blocks, {kept} kept, step {step}");
            let len = rng.below(history.len() + 20);
            match rng.below(8) {
                0 => {
                    let mut cache = storage.cache();
                    let between = cache.dropped().saturating_sub(history.kept as u64);
                    let behind = if len < history.kept { 0 } else { between };
                    let position = behind + len as u64;
                    let result = if rng.one_in(2) {
                        cache.truncate(len)
                    } else {
                        cache.truncate_to(position)
                    };
                    assert_eq!(result, history.truncate(len), "{what}: to {len}");
                }
                1 | 2 => {
                    storage.cache().slide(len);
                    history.slide(len);
                }
                _ => {
                    let any = rng.below(150);
                    let count = rng.pick(&[0, 1, 1, 2, 63, 64, 65, any]);
                    let kind = Kind::any(&mut rng);
                    let [keys, values] = random(&mut rng, kind, count, [dim, width]);
                    let result = storage.cache().append(keys.view(), values.view());
                    // Appending no keys always succeeds.
                    if has_room(&history, blocks, count) || count == 0 {
                        assert_eq!(result, Ok(()), "{what}: {count} keys");
                        history.append(&keys.grid(), &values.grid());
                        taken += 1;
                    } else {
                        assert_eq!(result, Err(Error::Capacity), "{what}: {count} keys");
                        refused += 1;
                    }
                }
            }
            dropped += usize::from(history.dropped > 0);
            history.check(backend, &mut rng, storage.cache().view(), &what);
            history.check(backend, &mut rng, storage.view(), &what);
        }
    }
    assert!(refused > 50 && taken > 200 && dropped > 200, "{refused}, {taken}, {dropped}");
}

fn a_fixed_size_cache_has_the_same_bits(backend: Backend) {
    of_fixed_size::<1, 1, 1>(backend);
    of_fixed_size::<3, 5, 2>(backend);
    of_fixed_size::<16, 8, 3>(backend);
}

fn of_fixed_size<const DIM: usize, const WIDTH: usize, const BLOCKS: usize>(backend: Backend) {
    let mut rng = Rng::new(32);
    let mut cache = KvCache::<DIM, WIDTH, BLOCKS>::new();
    let mut history = History::new(DIM, WIDTH);
    assert!(cache.is_empty());
    for step in 0..60 {
        let what = format!("{DIM}, {WIDTH}, {BLOCKS} blocks, step {step}");
        let len = rng.below(history.len() + 9);
        match rng.below(10) {
            0 => {
                let position = cache.dropped() + len as u64;
                let result =
                    if rng.one_in(2) { cache.truncate(len) } else { cache.truncate_to(position) };
                assert_eq!(result, history.truncate(len), "{what}: to {len}");
            }
            1 | 2 => {
                cache.slide(len);
                history.slide(len);
            }
            3 if rng.one_in(3) => {
                cache.clear();
                history = History::new(DIM, WIDTH);
            }
            _ => {
                let count = rng.below(50);
                let kind = Kind::any(&mut rng);
                let [keys, values] = random(&mut rng, kind, count, [DIM, WIDTH]);
                let before = cache.appended();
                let result = cache.append(keys.view(), values.view());
                if has_room(&history, BLOCKS, count) || count == 0 {
                    assert_eq!(result, Ok(()), "{what}: {count} keys");
                    history.append(&keys.grid(), &values.grid());
                } else {
                    assert_eq!(result, Err(Error::Capacity), "{what}: {count} keys");
                    assert_eq!(cache.appended(), before);
                }
            }
        }
        let (appended, dropped) = (history.keys.rows as u64, history.dropped as u64);
        assert_eq!((cache.len(), cache.appended()), (history.len(), appended), "{what}");
        assert_eq!((cache.is_empty(), cache.dropped()), (history.len() == 0, dropped));
        history.check(backend, &mut rng, cache.view(), &what);
        by_its_own_methods(backend, &mut rng, &cache);
    }
}

/// The methods of `KvCache` have the bits of those of its view.
fn by_its_own_methods<const DIM: usize, const WIDTH: usize, const BLOCKS: usize>(
    backend: Backend,
    rng: &mut Rng,
    cache: &KvCache<DIM, WIDTH, BLOCKS>,
) {
    let query = Grid::random(rng, Kind::Ordinary, 1, DIM);
    let attention = Attention::new().on(backend).causal();
    let sizes = [1, 1, DIM, WIDTH];
    let want = guarded(rng, "view", sizes, |out, logarithms, workspace| {
        let query = query.view();
        cache.view().attend_with_log_sum_exp(&attention, query, out, logarithms, workspace)
    });
    let got = guarded(rng, "owner", sizes, |out, logarithms, workspace| {
        cache.attend_with_log_sum_exp(&attention, query.view(), out, logarithms, workspace)
    });
    assert_same_bits("log-sum-exp", &got[0].1, &want[0].1);
    assert_same_bits("owner", &got[0].0.data, &want[0].0.data);
    let got = guarded(rng, "owner", sizes, |out, _, workspace| {
        cache.attend(&attention, query.view(), out, workspace)
    });
    assert_same_bits("owner", &got[0].0.data, &want[0].0.data);
    let (keys, query) = (cache.len(), query.view());
    let [mut got, mut want] = [0; 2].map(|_| Patterns::new([1, keys, 1]));
    let workspace = &mut vec![CANARY; keys];
    let view = cache.view();
    view.pattern(&attention, query, want.heads(), workspace).unwrap();
    view.mean_pattern(&attention, query, want.mean.view_mut(), workspace).unwrap();
    cache.pattern(&attention, query, got.heads(), workspace).unwrap();
    cache.mean_pattern(&attention, query, got.mean.view_mut(), workspace).unwrap();
    got.assert_are("owner", &want, &(0..keys).collect::<Vec<_>>());
}

/// Dropping all but the newest keys equals a window over a cache that drops none.
fn dropping_is_a_window(backend: Backend) {
    let mut rng = Rng::new(33);
    let (mut whole, mut sliding) = (Storage::new(7, 5, 8 * FOR_64), Storage::new(7, 5, 3 * FOR_64));
    let attention = Attention::new().on(backend).causal();
    for step in 0..8 * 64 {
        let [keys, values] = random(&mut rng, Kind::Wide, 1, [7, 5]);
        whole.cache().append(keys.view(), values.view()).unwrap();
        sliding.cache().append(keys.view(), values.view()).unwrap();
        sliding.cache().slide(100);
        let query = Grid::random(&mut rng, Kind::Ordinary, 1, 7);
        let mut attend = |storage: &Storage, attention: &Attention<'_>| {
            guarded(&mut rng, "window", [1, 1, 7, 5], |out, logarithms, workspace| {
                let query = query.view();
                storage.view().attend_with_log_sum_exp(attention, query, out, logarithms, workspace)
            })
            .remove(0)
        };
        let got = attend(&sliding, &attention);
        let want = attend(&whole, &attention.window(99, 0));
        assert_same_bits(&format!("step {step}"), &got.0.data, &want.0.data);
        assert_same_bits(&format!("step {step}"), &got.1, &want.1);
    }
}

/// A cache of two blocks, for a hundred blocks of keys.
fn wraps_around_many_times(backend: Backend) {
    let mut rng = Rng::new(34);
    let mut cache = KvCache::<3, 2, 2>::new();
    let mut history = History::new(3, 2);
    for step in 0..400 {
        let count = 1 + rng.below(KEY_BLOCK / 2);
        let [keys, values] = random(&mut rng, Kind::Ordinary, count, [3, 2]);
        let left = rng.below(KEY_BLOCK / 2 + 1);
        cache.slide(left);
        history.slide(left);
        assert_eq!(cache.append(keys.view(), values.view()), Ok(()), "step {step}");
        history.append(&keys.grid(), &values.grid());
        if step % 8 == 0 {
            history.check(backend, &mut rng, cache.view(), &format!("step {step}"));
        }
    }
    assert!(cache.appended() > 100 * KEY_BLOCK as u64 / 2 * 2, "{}", cache.appended());
    // There is room for one key more than a block, at any position.
    for _ in 0..3 * KEY_BLOCK {
        let [keys, values] = random(&mut rng, Kind::Ordinary, 1, [3, 2]);
        cache.slide(KEY_BLOCK);
        assert_eq!(cache.append(keys.view(), values.view()), Ok(()));
    }
}

/// The formula of the documentation: BLOCKS = ⌈(left + chunk) / KEY_BLOCK⌉ + 1.
fn serves_every_query_of_a_chunk(backend: Backend) {
    let mut rng = Rng::new(35);
    for _ in 0..12 {
        let (left, chunk) = (rng.below(200), 1 + rng.below(100));
        let mut storage = Storage::new(4, 3, (left + chunk).div_ceil(KEY_BLOCK) + 1);
        let mut history = History::new(4, 3);
        let attention = Attention::new().on(backend).causal().window(left, 0);
        for step in 0..8 {
            let what = format!("window of {left}, chunks of {chunk}, step {step}");
            let [keys, values] = random(&mut rng, Kind::Ordinary, chunk, [4, 3]);
            assert_eq!(storage.cache().append(keys.view(), values.view()), Ok(()), "{what}");
            history.append(&keys.grid(), &values.grid());
            let queries = Grid::random(&mut rng, Kind::Ordinary, chunk, 4);
            let sizes = [1, chunk, 4, 3];
            let got = guarded(&mut rng, &what, sizes, |out, _, workspace| {
                storage.view().attend(&attention, queries.view(), out, workspace)
            });
            // The plain call has all keys, and would see dropped ones within its window.
            let attention = attention.query_offset((step * chunk) as isize);
            let want = guarded(&mut rng, &what, sizes, |out, _, workspace| {
                let (k, v) = (history.keys.view(), history.values.view());
                attention.run(queries.view(), k, v, out, workspace)
            });
            assert_same_bits(&what, &got[0].0.data, &want[0].0.data);
            storage.cache().slide(left);
        }
    }
}

/// NaN in unused storage, in dropped keys and in truncated keys.
fn stale_storage_never_reaches_the_output(backend: Backend) {
    let mut rng = Rng::new(36);
    let attention = Attention::new().on(backend);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (stale, held) in [(1, 1), (63, 2), (64, 64), (70, 3), (3, 100)] {
            let mut storage = Storage::new(2, 2, 4 * FOR_64);
            let spoiled = Grid::from_fn(stale, 2, |_, _| bad);
            storage.cache().append(spoiled.view(), spoiled.view()).unwrap();
            let [keys, values] = random(&mut rng, Kind::Ordinary, held, [2, 2]);
            storage.cache().append(keys.view(), values.view()).unwrap();
            storage.cache().slide(held);
            storage.cache().append(spoiled.view(), spoiled.view()).unwrap();
            let with_stale = storage.cache().len();
            storage.cache().truncate(with_stale - stale).unwrap();
            assert_eq!(storage.view().len(), held);
            for tokens in [1, 3, 40] {
                let queries = Grid::random(&mut rng, Kind::Ordinary, tokens, 2);
                let out = guarded(&mut rng, "stale", [1, tokens, 2, 2], |out, l, workspace| {
                    let queries = queries.view();
                    storage.view().attend_with_log_sum_exp(&attention, queries, out, l, workspace)
                });
                let (out, logarithms) = &out[0];
                assert!(out.data.iter().chain(logarithms).all(|x| x.is_finite()), "{out:?}");
                assert!(out.data.iter().all(|x| x.abs() <= 1.0001), "{out:?}");
            }
        }
    }
}

/// The oldest queries are at positions before key 0, and see nothing if causal.
fn attends_with_more_queries_than_keys(backend: Backend) {
    let mut rng = Rng::new(37);
    let mut cache = KvCache::<3, 2, 1>::new();
    let attention = Attention::new().on(backend).causal();
    for keys in 0..4 {
        let queries = Grid::random(&mut rng, Kind::Ordinary, 6, 3);
        let out = guarded(&mut rng, "queries", [1, 6, 3, 2], |out, logarithms, workspace| {
            let queries = queries.view();
            cache.attend_with_log_sum_exp(&attention, queries, out, logarithms, workspace)
        });
        let (out, logarithms) = &out[0];
        for (token, logarithm) in logarithms.iter().enumerate() {
            let sees = token + keys >= 6;
            assert_eq!(logarithm.is_finite(), sees, "{keys} keys, token {token}: {logarithms:?}");
            assert_eq!(out.row(token).iter().all(|x| x.to_bits() == 0), !sees, "{out:?}");
        }
        let [key, value] = random(&mut rng, Kind::Ordinary, 1, [3, 2]);
        cache.append(key.view(), value.view()).unwrap();
    }
}

fn bias_and_keep_have_one_row_per_key(backend: Backend) {
    let mut rng = Rng::new(38);
    let mut storage = Storage::new(2, 3, 3 * FOR_64);
    let [keys, values] = random(&mut rng, Kind::Ordinary, 150, [2, 3]);
    storage.cache().append(keys.view(), values.view()).unwrap();
    storage.cache().slide(70);
    let query = Grid::random(&mut rng, Kind::Ordinary, 1, 2);
    // Keeps a single key, by one row of keep or of bias: each key of the cache in turn.
    for row in 0..70 {
        let value = values.grid().row(80 + row).to_vec();
        let keep = Grid::from_fn(70, 1, |key, _| u8::from(key == row));
        let bias = Grid::from_fn(70, 1, |key, _| if key == row { 0.0 } else { f32::NEG_INFINITY });
        let by_keep = Options { keep: Some(keep.into()), ..Options::new() };
        let by_bias = Options { bias: Some(bias.into()), ..Options::new() };
        for options in [by_keep, by_bias] {
            let attention = options.attention(backend);
            let out = guarded(&mut rng, "row", [1, 1, 2, 3], |out, _, workspace| {
                storage.view().attend(&attention, query.view(), out, workspace)
            });
            for (got, want) in out[0].0.data.iter().zip(&value) {
                assert!((got - want).abs() <= 1e-6 * want.abs(), "row {row}: {out:?}, {value:?}");
            }
        }
    }
    for rows in [69, 71, 150, 0] {
        let bias = Grid::zeros(rows, 1);
        let keep = vec![1; rows];
        let keep = MatrixRef::new(&keep, rows, 1).unwrap();
        for attention in [Attention::new().bias(bias.view()), Attention::new().keep(keep)] {
            let mut out = Grid::from_fn(1, 3, |_, _| CANARY);
            let mut workspace = vec![0.0; Attention::workspace(2, 3)];
            let result = storage.view().attend(
                &attention.on(backend),
                query.view(),
                out.view_mut(),
                &mut workspace,
            );
            assert_eq!(result, Err(Error::Shape));
            assert!(common::grid::is_untouched(&out.data));
        }
    }
}

fn keeps_its_first_keys_or_says_why_not(backend: Backend) {
    let mut cache = KvCache::<2, 2, { 3 * FOR_64 }>::new();
    let tokens = |count| Grid::random(&mut Rng::new(34), Kind::Ordinary, count, 2);
    assert_eq!(cache.keep_first(3 * 64 + 1), Err(Error::Capacity));
    assert_eq!(cache.keep_first(usize::MAX), Err(Error::Position));
    assert_eq!(cache.kept(), 0);
    assert_eq!(cache.keep_first(7), Ok(()));
    let some = tokens(100);
    cache.append(some.view(), some.view()).unwrap();
    assert_eq!(cache.keep_first(5), Ok(()));
    cache.slide(20);
    assert_eq!((cache.len(), cache.dropped(), cache.kept()), (20, 85, 5));
    assert_eq!(cache.keep_first(6), Err(Error::Position));
    assert_eq!(cache.keep_first(5), Ok(()));
    assert_eq!(cache.truncate_to(50), Err(Error::Position));

    // A number of its own, or none: another one is refused.
    let (query, mut out) = (tokens(1), Grid::zeros(1, 2));
    let mut workspace = vec![0.0; Attention::workspace(2, 2)];
    for (keys, result) in [(0, Ok(())), (5, Ok(())), (4, Err(Error::Option))] {
        let attention = Attention::new().on(backend).keep_first(keys);
        let got = cache.attend(&attention, query.view(), out.view_mut(), &mut workspace);
        assert_eq!(got, result);
    }
    // Down to the first of them.
    assert_eq!(cache.truncate(3), Ok(()));
    assert_eq!((cache.len(), cache.dropped(), cache.appended()), (3, 0, 3));
    assert_eq!(cache.keep_first(6), Ok(()));
    cache.clear();
    assert_eq!((cache.len(), cache.kept()), (0, 6));

    let mut later = KvCache::<2, 2, { 3 * FOR_64 }>::starting_at(64);
    assert_eq!(later.keep_first(1), Err(Error::Position));
    let largest = isize::MAX as u64;
    assert!(CachePositions::new(largest, largest).unwrap().keeping(5).is_ok());
    assert_eq!(CachePositions::new(largest + 1, largest).unwrap().keeping(5), Err(Error::Position));
    assert_eq!(CachePositions::new(9, 5).unwrap().keeping(5), Err(Error::Position));
    let mut positions = CachePositions::new(largest, largest).unwrap().keeping(5).unwrap();
    let mut storage = [0; 2].map(|_| vec![0.0; 2 * KEY_BLOCK * 3 * FOR_64]);
    let [keys, values] = &mut storage;
    let mut cache = KvCacheMut::new(keys, values, 2, 2, &mut positions).unwrap();
    assert_eq!(cache.append(tokens(1).view(), tokens(1).view()), Err(Error::Position));
}

fn refuses_what_disagrees(backend: Backend) {
    let mut rng = Rng::new(39);
    let mut storage = Storage::new(2, 3, 2 * FOR_64);
    let [keys, values] = random(&mut rng, Kind::Ordinary, 70, [2, 3]);
    storage.cache().append(keys.view(), values.view()).unwrap();
    let before = (storage.keys.clone(), storage.values.clone(), storage.span);
    let (one, two, three) = (Grid::zeros(5, 1), Grid::zeros(5, 2), Grid::zeros(5, 3));
    let other = Grid::zeros(4, 3);
    let many = (Grid::zeros(59, 2), Grid::zeros(59, 3));
    for (keys, values, error) in [
        (&one, &three, Error::Shape),
        (&two, &two, Error::Shape),
        (&three, &two, Error::Shape),
        (&two, &other, Error::Shape),
        (&many.0, &many.1, Error::Capacity),
    ] {
        assert_eq!(storage.cache().append(keys.view(), values.view()), Err(error));
    }
    let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same(&storage.keys, &before.0) && same(&storage.values, &before.1));
    assert_eq!(storage.span, before.2);

    let cache = storage.view();
    let attention = Attention::new().on(backend);
    let (query, wrong) = (Grid::zeros(1, 2), Grid::zeros(1, 3));
    let full = Attention::workspace(2, 3);
    for (query, width, len, error) in [
        (&wrong, 3, full, Error::Shape),
        (&query, 2, full, Error::Shape),
        (&query, 3, full - 1, Error::Workspace),
        (&query, 3, 0, Error::Workspace),
    ] {
        let mut out = Grid::from_fn(1, width, |_, _| CANARY);
        let (mut logarithm, mut workspace) = ([CANARY], vec![CANARY; len]);
        let (into, workspace_floats) = (out.view_mut(), &mut workspace[..]);
        let result = cache.attend_with_log_sum_exp(
            &attention,
            query.view(),
            into,
            &mut logarithm,
            workspace_floats,
        );
        assert_eq!(result, Err(error));
        for floats in [&out.data[..], &logarithm, &workspace] {
            assert!(common::grid::is_untouched(floats), "an error wrote");
        }
    }
    let mut out = Grid::from_fn(1, 3, |_, _| CANARY);
    let mut workspace = vec![CANARY; full];
    for len in [0, 2] {
        let mut logarithms = vec![CANARY; len];
        let (into, floats) = (out.view_mut(), &mut logarithms);
        let result =
            cache.attend_with_log_sum_exp(&attention, query.view(), into, floats, &mut workspace);
        assert_eq!(result, Err(Error::Shape));
    }
    assert!(common::grid::is_untouched(&out.data) && common::grid::is_untouched(&workspace));
}

/// After a long run time, attention has the bits of a cache that began at the same offset within its first
/// block, as both continue.
fn large_positions_have_the_bits_of_small_ones(backend: Backend) {
    const BLOCK: u64 = 64;
    let far = [1 << 31, 1 << 32, isize::MAX as u64, 1 << 63, u64::MAX - 400];
    for begin in far.into_iter().flat_map(|far| [far - 100, far - 1, far, far.saturating_add(99)]) {
        let mut both = [begin, begin % BLOCK].map(|begin| Storage {
            span: CachePositions::new(begin, begin).unwrap(),
            ..Storage::new(2, 3, 3 * FOR_64)
        });
        let rng = &mut Rng::new(begin);
        for (count, held, back) in
            [(70, 64, 0), (50, 100, 3), (1, 100, 1), (28, 90, 0), (39, 129, 30)]
        {
            let [keys, values] = [2, 3].map(|cols| Grid::random(rng, Kind::Ordinary, count, cols));
            for storage in &mut both {
                let mut cache = storage.cache();
                cache.append(keys.view(), values.view()).unwrap();
                cache.slide(held);
                cache.truncate_to(cache.appended() - back).unwrap();
            }
            let [far, near] = both.each_ref().map(|storage| storage.view());
            assert_eq!(far.appended() - begin, near.appended() - begin % BLOCK);
            assert_eq!(far.dropped() - begin, near.dropped() - begin % BLOCK);
            let query = Grid::random(rng, Kind::Ordinary, 5, 2);
            for attention in [
                Attention::new(),
                Attention::new().causal(),
                Attention::new().window(20, 3),
                Attention::new().window(70, 0).query_offset(-3),
                Attention::new().causal().query_offset(-40),
                Attention::new().window(isize::MAX as usize + 30, 0).query_offset(isize::MAX),
            ] {
                let [got, want] = [far, near].map(|cache| {
                    guarded(rng, "far", [1, 5, 2, 3], |out, logarithms, workspace| {
                        let (attention, query) = (attention.on(backend), query.view());
                        cache.attend_with_log_sum_exp(&attention, query, out, logarithms, workspace)
                    })
                });
                let what = format!("{attention:?} from {begin}");
                assert_same_bits(&what, &got[0].0.data, &want[0].0.data);
                assert_same_bits(&what, &got[0].1, &want[0].1);
                assert!(want[0].1.iter().any(|x| x.is_finite()), "{what}: nothing is seen");
            }
        }
    }
}

/// No key can be appended after the last position.
#[test]
fn the_last_position() {
    let mut storage = Storage::new(1, 1, 2);
    storage.span = CachePositions::new(u64::MAX - 3, u64::MAX - 3).unwrap();
    let rows = |count| Grid::zeros(count, 1);
    let mut cache = storage.cache();
    assert_eq!(cache.append(rows(4).view(), rows(4).view()), Err(Error::Position));
    assert_eq!(cache.append(rows(3).view(), rows(3).view()), Ok(()));
    assert_eq!((cache.len(), cache.appended()), (3, u64::MAX));
    assert_eq!(cache.append(rows(1).view(), rows(1).view()), Err(Error::Position));
    assert_eq!(CachePositions::new(1, 2), Err(Error::Shape));
    // More keys than a 32-bit `usize` can count.
    storage.span = CachePositions::new(u64::MAX, 0).unwrap();
    assert_eq!(
        KvCacheRef::new(&storage.keys, &storage.values, 1, 1, storage.span).err(),
        Some(Error::Capacity)
    );
}

/// Storage for no block, or widths of 0.
#[test]
fn storage_that_is_too_short() {
    let mut span = CachePositions::default();
    let block = KEY_BLOCK;
    for (keys, values, dim, width) in [
        (0, 0, 1, 1),
        (block - 1, block, 1, 1),
        (block, block - 1, 1, 1),
        (2 * block - 1, block, 2, 1),
        (block, block, 0, 1),
        (block, block, 1, 0),
        (block, block, usize::MAX, 1),
        (block, block, 1, usize::MAX / 2),
    ] {
        let (mut keys, mut values) = (vec![0.0; keys], vec![0.0; values]);
        let view = KvCacheRef::new(&keys, &values, dim, width, span);
        assert_eq!(view.err(), Some(Error::Shape), "{dim}, {width}");
        let cache = KvCacheMut::new(&mut keys, &mut values, dim, width, &mut span);
        assert_eq!(cache.err(), Some(Error::Shape), "{dim}, {width}");
    }
}

/// The number of blocks is the smaller of those that fit either slice.
#[test]
fn the_shorter_slice_limits_the_blocks() {
    for (key_blocks, value_blocks) in [(1, 3), (3, 1), (2, 2)] {
        let mut keys = vec![0.0; 2 * KEY_BLOCK * key_blocks + 5];
        let mut values = vec![0.0; 3 * KEY_BLOCK * value_blocks + 7];
        let mut span = CachePositions::default();
        let mut cache = KvCacheMut::new(&mut keys, &mut values, 2, 3, &mut span).unwrap();
        let room = key_blocks.min(value_blocks) * KEY_BLOCK;
        let (k, v) = (Grid::zeros(room, 2), Grid::zeros(room, 3));
        assert_eq!(cache.append(k.view(), v.view()), Ok(()));
        let (k, v) = (Grid::zeros(1, 2), Grid::zeros(1, 3));
        assert_eq!(cache.append(k.view(), v.view()), Err(Error::Capacity));
    }
}

/// Positions of a larger cache are refused.
#[test]
fn positions_of_another_cache_are_refused() {
    let mut larger = Storage::new(1, 1, 5 * FOR_64);
    let many = Grid::zeros(300, 1);
    larger.cache().append(many.view(), many.view()).unwrap();
    let Storage { mut keys, mut values, .. } = Storage::new(1, 1, 1);
    let refused = KvCacheRef::new(&keys, &values, 1, 1, larger.span).err();
    assert_eq!(refused, Some(Error::Capacity));
    let refused = KvCacheMut::new(&mut keys, &mut values, 1, 1, &mut larger.span).err();
    assert_eq!(refused, Some(Error::Capacity));
}

/// A slide to more keys than the cache holds changes nothing; a truncation to more is an error; a slide or
/// truncation to 0 leaves an empty cache that continues at its position; clear restarts at position 0.
#[test]
fn lengths_and_positions() {
    let mut cache = KvCache::<1, 1, 2>::default();
    let one = Grid::zeros(10, 1);
    let state = |cache: &KvCache<1, 1, 2>| (cache.appended(), cache.dropped(), cache.len());
    cache.append(one.view(), one.view()).unwrap();
    assert_eq!(state(&cache), (10, 0, 10));
    cache.slide(usize::MAX);
    cache.slide(10);
    assert_eq!(cache.truncate(usize::MAX), Err(Error::Position));
    assert_eq!(cache.truncate(11), Err(Error::Position));
    assert_eq!(cache.truncate_to(11), Err(Error::Position));
    assert_eq!(cache.truncate_to(u64::MAX), Err(Error::Position));
    cache.truncate(10).unwrap();
    cache.truncate_to(10).unwrap();
    assert_eq!(state(&cache), (10, 0, 10));
    cache.slide(4);
    assert_eq!(state(&cache), (10, 6, 4));
    cache.truncate(3).unwrap();
    assert_eq!(state(&cache), (9, 6, 3));
    // Keys that a slide has dropped cannot be restored.
    assert_eq!(cache.truncate_to(5), Err(Error::Position));
    assert_eq!(state(&cache), (9, 6, 3));
    cache.truncate_to(7).unwrap();
    assert_eq!(state(&cache), (7, 6, 1));
    cache.slide(0);
    assert_eq!(state(&cache), (7, 7, 0));
    assert!(cache.is_empty());
    cache.append(one.view(), one.view()).unwrap();
    assert_eq!(state(&cache), (17, 7, 10));
    cache.truncate(0).unwrap();
    assert_eq!(state(&cache), (7, 7, 0));
    cache.clear();
    assert_eq!(state(&cache), (0, 0, 0));
}

/// A copy has the keys, values and positions of the source, and nothing of its former content.
#[test]
fn a_copy_is_the_same_cache() {
    let mut rng = Rng::new(41);
    let [mut cache, mut copy] = [const { KvCache::<3, 2, { 2 * FOR_64 }>::new() }; 2];
    for (rows, len) in [(100, 30), (20, 45), (70, 64)] {
        let [keys, values] = random(&mut rng, Kind::Ordinary, rows, [3, 2]);
        cache.append(keys.view(), values.view()).unwrap();
        cache.slide(len);
        copy.append(values.grid().view(), keys.grid().view()).unwrap_err();
        copy.copy_from(&cache);
        let state = |cache: &KvCache<3, 2, { 2 * FOR_64 }>| (cache.appended(), cache.dropped());
        assert_eq!(state(&copy), state(&cache));
        let query = Grid::random(&mut rng, Kind::Ordinary, 1, 3);
        let [out, out_of_copy] = [&cache, &copy].map(|cache| {
            let (mut out, mut workspace) =
                (Grid::zeros(1, 2), vec![0.0; Attention::workspace(3, 2)]);
            cache.attend(&Attention::new(), query.view(), out.view_mut(), &mut workspace).unwrap();
            out.data
        });
        assert_same_bits("a copy", &out_of_copy, &out);
    }
}
