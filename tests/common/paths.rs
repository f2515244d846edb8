//! One head by every path of the API, and its score grid and pattern under the same options.

use sdpa::{Backend, Bf16, CachePositions, F16, I8, KvCacheMut};

use super::{
    assert_same_bits,
    cases::Rng,
    elements::{Elements, Tested},
    grid::Grid,
    heads::{GuardedHeads, Workspace, guarded, guarded_in},
    options::Options,
};

/// Outputs and log-sum-exps.
pub(crate) type Answer = (Grid, Vec<f32>);

/// Computes one head by every path: alone, as three heads of one call, as three heads of one group, and from
/// caches that have dropped keys; and with keys and values rounded to each type of element. Fails unless all have the
/// same bits.
#[track_caller]
pub(crate) fn by_every_path(backend: Backend, options: &Options, grids: [&Grid; 3]) -> Answer {
    let rng = &mut Rng::new(0);
    let [queries, keys, values] = grids;
    let [tokens, dim, width] = [queries.rows, queries.cols, values.cols];
    let plain = alone(backend, options, grids);
    for key_heads in [1, 3] {
        let mut three = |grid: &Grid, heads| GuardedHeads::of(rng, &vec![grid.clone(); heads]);
        let q = three(queries, 3);
        let (k, v) = (three(keys, key_heads), three(values, key_heads));
        let sizes = [3, tokens, dim, width];
        let options = Options { slopes: options.slopes.repeat(3), ..options.clone() };
        let attention = options.attention(backend);
        let all = guarded(rng, "heads", sizes, |out, logarithms, workspace| {
            let (q, k, v) = (q.view(), k.view(), v.view());
            attention.run_with_log_sum_exp(q, k, v, out, logarithms, workspace)
        });
        all.iter().for_each(|head| assert_same(&format!("{key_heads} key heads"), head, &plain));
    }
    for dropped in [0, BLOCK, 3 * BLOCK] {
        if let Some(got) = from_cache::<f32>(backend, options, grids, dropped) {
            assert_same(&format!("from a cache that dropped {dropped}"), &got, &plain);
        }
    }
    of_elements::<F16>(backend, options, grids);
    of_elements::<Bf16>(backend, options, grids);
    of_elements::<I8>(backend, options, grids);
    plain
}

#[track_caller]
fn alone(backend: Backend, options: &Options, [queries, keys, values]: [&Grid; 3]) -> Answer {
    let sizes = [1, queries.rows, queries.cols, values.cols];
    let mut one = guarded(&mut Rng::new(0), "plain", sizes, |out, logarithms, workspace| {
        let (q, k, v) = (queries.view(), keys.view(), values.view());
        options.attention(backend).run_with_log_sum_exp(q, k, v, out, logarithms, workspace)
    });
    one.remove(0)
}

/// Keys and values of a type near these, in arrays and in a cache: the bits of the call with floats.
#[track_caller]
fn of_elements<E: Tested>(
    backend: Backend,
    options: &Options,
    [queries, keys, values]: [&Grid; 3],
) {
    let Some((keys, values)) = E::near(keys).zip(E::near(values)) else { return };
    let is_usual = |scale: f32| scale == 0.0 || (1e-9..1e9).contains(&scale.abs());
    if !E::HAS_NAN && !options.scale.is_none_or(is_usual) {
        return; // a sum of whole numbers may overflow before it is scaled
    }
    let plain = alone(backend, options, [queries, &keys, &values]);
    let (of_keys, of_values) = (Elements::<E>::of(&keys), Elements::<E>::of(&values));
    let rng = &mut Rng::new(0);
    let what = std::any::type_name::<E>();
    for heads in [1, 3] {
        let all = GuardedHeads::of(rng, &vec![queries.clone(); heads]);
        let sizes = [heads, queries.rows, queries.cols, values.cols];
        let workspace = Workspace::of::<E>(queries.cols, values.cols);
        let options = Options { slopes: options.slopes.repeat(heads), ..options.clone() };
        let attention = options.attention(backend);
        let got = guarded_in(rng, what, sizes, workspace, |out, logarithms, workspace| {
            let (q, k, v) = (all.view(), of_keys.heads(1), of_values.heads(1));
            attention.run_elements(q, k, v, out, Some(logarithms), workspace)
        });
        got.iter().for_each(|head| assert_same(&format!("{heads} heads of {what}"), head, &plain));
    }
    if let Some(got) = from_cache::<E>(backend, options, [queries, &keys, &values], BLOCK) {
        assert_same(&format!("from a cache of {what}"), &got, &plain);
    }
}

#[track_caller]
pub(crate) fn assert_same(how: &str, got: &Answer, want: &Answer) {
    assert_same_bits(how, &got.0.data, &want.0.data);
    assert_same_bits(&format!("log-sum-exp, {how}"), &got.1, &want.1);
}

/// The number of keys in a block of the sums.
const BLOCK: usize = 64;

/// Attends from a cache that has dropped `dropped` keys; `None` if the offset would overflow.
fn from_cache<E: Tested>(
    backend: Backend,
    options: &Options,
    [queries, keys, values]: [&Grid; 3],
    dropped: usize,
) -> Option<Answer> {
    let newest = (dropped + keys.rows) as isize - queries.rows as isize;
    let offset = options.offset.checked_sub(newest)?.checked_add(dropped as isize)?;
    if options.keep_first > 0 && dropped > 0 {
        return None; // another number than that of the cache
    }
    let options = Options { offset, ..options.clone() };
    let room = keys.rows.next_multiple_of(BLOCK).max(BLOCK);
    let [dim, width] = [keys.cols, values.cols];
    // A float that shows if it is read.
    let bad = if E::HAS_NAN { f32::NAN } else { 1e6 };
    let mut storage = [dim, width].map(|cols| vec![E::round(bad, E::NO_SCALE); cols * room]);
    let mut scales = [0; 2].map(|_| E::room(room));
    let mut span = CachePositions::default();
    let ([to_keys, to_values], [key_scales, value_scales]) = (&mut storage, &mut scales);
    let scales = (&mut key_scales[..], &mut value_scales[..]);
    let mut cache =
        KvCacheMut::<E>::with_scales(to_keys, to_values, scales, [dim, width], &mut span).unwrap();
    if cache.keep_first(options.keep_first).is_err() {
        return None; // too few blocks
    }
    for _ in 0..dropped / BLOCK {
        let bad = [dim, width].map(|cols| Grid::from_fn(BLOCK, cols, |_, _| bad));
        cache.append(bad[0].view(), bad[1].view()).unwrap();
        cache.slide(0);
    }
    cache.append(keys.view(), values.view()).unwrap();
    let rng = &mut Rng::new(0);
    let attention = options.attention(backend);
    let sizes = [1, queries.rows, dim, width];
    let workspace = Workspace::of::<E>(dim, width);
    let mut heads = guarded_in(rng, "cache", sizes, workspace, |out, logarithms, workspace| {
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
