//! One head by every path of the API, and its score grid and pattern under the same options.

use sdpa::{Backend, CachePositions, KvCacheMut};

use super::{
    assert_same_bits,
    cases::Rng,
    grid::Grid,
    heads::{GuardedHeads, guarded},
    options::Options,
};

/// Outputs and log-sum-exps.
pub(crate) type Answer = (Grid, Vec<f32>);

/// Computes one head by every path: alone, as three heads of one call, as three heads of one group, and from
/// caches that have dropped keys. Fails unless all have the same bits.
#[track_caller]
pub(crate) fn by_every_path(backend: Backend, options: &Options, grids: [&Grid; 3]) -> Answer {
    let rng = &mut Rng::new(0);
    let attention = options.attention(backend);
    let [queries, keys, values] = grids;
    let [tokens, dim, width] = [queries.rows, queries.cols, values.cols];
    let mut plain = guarded(rng, "plain", [1, tokens, dim, width], |out, logarithms, workspace| {
        let (q, k, v) = (queries.view(), keys.view(), values.view());
        attention.run_with_log_sum_exp(q, k, v, out, logarithms, workspace)
    });
    let plain = plain.remove(0);
    for key_heads in [1, 3] {
        let mut three = |grid: &Grid, heads| GuardedHeads::of(rng, &vec![grid.clone(); heads]);
        let q = three(queries, 3);
        let (k, v) = (three(keys, key_heads), three(values, key_heads));
        let sizes = [3, tokens, dim, width];
        let all = guarded(rng, "heads", sizes, |out, logarithms, workspace| {
            let (q, k, v) = (q.view(), k.view(), v.view());
            attention.run_with_log_sum_exp(q, k, v, out, logarithms, workspace)
        });
        all.iter().for_each(|head| assert_same(&format!("{key_heads} key heads"), head, &plain));
    }
    for dropped in [0, BLOCK, 3 * BLOCK] {
        if let Some(got) = from_cache(backend, options, grids, dropped) {
            assert_same(&format!("from a cache that dropped {dropped}"), &got, &plain);
        }
    }
    plain
}

#[track_caller]
pub(crate) fn assert_same(how: &str, got: &Answer, want: &Answer) {
    assert_same_bits(how, &got.0.data, &want.0.data);
    assert_same_bits(&format!("log-sum-exp, {how}"), &got.1, &want.1);
}

/// The number of keys in a block of the sums.
const BLOCK: usize = 64;

/// Attends from a cache that has dropped `dropped` keys of NaN; `None` if the offset would overflow.
fn from_cache(
    backend: Backend,
    options: &Options,
    [queries, keys, values]: [&Grid; 3],
    dropped: usize,
) -> Option<Answer> {
    let newest = (dropped + keys.rows) as isize - queries.rows as isize;
    let offset = options.offset.checked_sub(newest)?.checked_add(dropped as isize)?;
    let options = Options { offset, ..options.clone() };
    let room = keys.rows.next_multiple_of(BLOCK).max(BLOCK);
    let [dim, width] = [keys.cols, values.cols];
    let mut storage = [dim, width].map(|cols| vec![f32::NAN; cols * room]);
    let mut span = CachePositions::default();
    let [key_floats, value_floats] = &mut storage;
    let mut cache = KvCacheMut::new(key_floats, value_floats, dim, width, &mut span).unwrap();
    for _ in 0..dropped / BLOCK {
        let nan = [dim, width].map(|cols| Grid::from_fn(BLOCK, cols, |_, _| f32::NAN));
        cache.append(nan[0].view(), nan[1].view()).unwrap();
        cache.slide(0);
    }
    cache.append(keys.view(), values.view()).unwrap();
    let rng = &mut Rng::new(0);
    let attention = options.attention(backend);
    let sizes = [1, queries.rows, dim, width];
    let mut heads = guarded(rng, "cache", sizes, |out, logarithms, workspace| {
        let view = cache.view();
        view.attend_with_log_sum_exp(&attention, queries.view(), out, logarithms, workspace)
    });
    Some(heads.remove(0))
}

pub(crate) fn scores(backend: Backend, options: &Options, queries: &Grid, keys: &Grid) -> Grid {
    let mut out = Grid::zeros(keys.rows, queries.rows);
    options.attention(backend).scores(queries.view(), keys.view(), out.view_mut()).unwrap();
    out
}

pub(crate) fn pattern(backend: Backend, options: &Options, queries: &Grid, keys: &Grid) -> Grid {
    let mut out = Grid::zeros(keys.rows, queries.rows);
    options.attention(backend).pattern(queries.view(), keys.view(), out.view_mut()).unwrap();
    out
}

#[track_caller]
pub(crate) fn assert_near(got: f32, want: f64) {
    let error = (f64::from(got) - want).abs();
    assert!(error <= 2e-6 * want.abs().max(1.0), "{got} is not {want}");
}
