//! Causal masks and windows: which keys a query sees at which position, by every path, and in the score grid
//! and pattern; on every back end.

use crate::common::{
    cases::Rng,
    grid::Grid,
    heads::guarded,
    options::Options,
    paths::{assert_near, by_every_path, pattern, scores},
};
use sdpa::{Attention, Backend, CachePositions, KvCacheMut};

suite! {
    causal_is_by_position,
    windows_show_left_and_right,
    positions_do_not_wrap_around,
    positions_beyond_the_largest_offset,
    extreme_offsets_of_a_cache,
}

const INFINITY: f32 = f32::INFINITY;

/// Returns the visible keys of each query, read from the outputs: the values are an identity matrix, so that
/// column j of an output shows key j.
fn seen(backend: Backend, options: &Options, keys: usize, tokens: usize) -> Vec<Vec<usize>> {
    let (q, k) = (Grid::zeros(tokens, 1), Grid::zeros(keys, 1));
    let v = Grid::from_fn(keys, keys, |row, col| f32::from(u8::from(row == col)));
    let (out, logarithms) = by_every_path(backend, options, [&q, &k, &v]);
    let weights = pattern(backend, options, &q, &k);
    let grid = scores(backend, options, &q, &k);
    (0..tokens)
        .map(|token| {
            let seen: Vec<usize> = (0..keys).filter(|&key| out.at(token, key) > 0.0).collect();
            for key in 0..keys {
                let is_seen = seen.contains(&key);
                assert_eq!(weights.at(key, token) > 0.0, is_seen);
                assert_eq!(grid.at(key, token), if is_seen { 0.0 } else { -INFINITY });
            }
            match seen.len() {
                0 => assert_eq!(logarithms[token], -INFINITY),
                count => assert_near(logarithms[token], (count as f64).ln()),
            }
            seen
        })
        .collect()
}

fn causal_is_by_position(backend: Backend) {
    for (keys, tokens) in [(5, 5), (3, 9), (9, 3), (130, 3), (70, 66)] {
        for offset in [0, 1, -1, 2, 62, 63, 64, -3, 1000, -1000] {
            let options = Options { causal: true, offset, ..Options::new() };
            let all = seen(backend, &options, keys, tokens);
            for (token, seen) in all.iter().enumerate() {
                let end = (offset + token as isize + 1).clamp(0, keys as isize) as usize;
                assert_eq!(*seen, (0..end).collect::<Vec<_>>(), "{token}, {options:?}");
            }
        }
    }
}

/// left = 4 shows five keys, including the one at the query's position.
fn windows_show_left_and_right(backend: Backend) {
    let five = Options { window: [4, 0], ..Options::new() };
    assert_eq!(seen(backend, &five, 20, 20)[10], [6, 7, 8, 9, 10]);
    assert_eq!(seen(backend, &five, 20, 20)[2], [0, 1, 2]);
    for (keys, tokens) in [(7, 7), (130, 5), (100, 70)] {
        for [left, right] in [[0, 0], [4, 0], [0, 3], [64, 1], [2, usize::MAX], [usize::MAX, 2]] {
            for offset in [0, 5, -5, 60, 127] {
                for causal in [false, true] {
                    let window = [left, right];
                    let options = Options { window, offset, causal, ..Options::new() };
                    let all = seen(backend, &options, keys, tokens);
                    for (token, seen) in all.iter().enumerate() {
                        let at = offset as i128 + token as i128;
                        let right = if causal { 0 } else { right };
                        let want: Vec<usize> = (0..keys)
                            .filter(|&key| key as i128 >= at - left as i128)
                            .filter(|&key| key as i128 <= at + right as i128)
                            .collect();
                        assert_eq!(*seen, want, "{token}, {options:?}");
                    }
                }
            }
        }
    }
}

/// Returns the keys that causal and window allow, with positions in integers that do not overflow.
fn allowed(options: &Options, keys: usize, token: usize) -> Vec<usize> {
    let position = options.offset as i128 + token as i128;
    let [left, right] =
        options.window.map(|n| if n == usize::MAX { i128::MAX / 2 } else { n as i128 });
    let right = if options.causal { 0 } else { right };
    let is_allowed = |key: i128| (position - left..=position + right).contains(&key);
    (0..keys).filter(|&key| is_allowed(key as i128)).collect()
}

fn positions_do_not_wrap_around(backend: Backend) {
    let (all, none): (Vec<_>, Vec<_>) = ((0..70).collect(), Vec::new());
    let large = [usize::MAX, usize::MAX - 1, isize::MAX as usize, isize::MAX as usize + 1];
    let check = |options: Options, want: &Vec<usize>| {
        for seen in seen(backend, &options, 70, 5) {
            assert_eq!(seen, *want, "{options:?}");
        }
    };
    for left in large {
        for right in large {
            for offset in [0, 30, -30] {
                check(Options { window: [left, right], offset, ..Options::new() }, &all);
            }
        }
        check(Options { window: [left, 0], offset: isize::MIN, ..Options::new() }, &none);
    }
    check(Options { causal: true, offset: isize::MIN, ..Options::new() }, &none);
    check(Options { offset: isize::MIN, ..Options::new() }, &all);
    // `usize::MAX` means no limit, at any offset.
    check(Options { window: [0, usize::MAX], offset: isize::MIN, ..Options::new() }, &all);
    check(Options { window: [3, 3], offset: isize::MIN, ..Options::new() }, &none);
}

/// The last queries are at positions above `isize::MAX`; their windows end by the same rule.
fn positions_beyond_the_largest_offset(backend: Backend) {
    let (keys, tokens) = (70, 200);
    for offset in [isize::MAX - 100, isize::MAX - 1, isize::MAX, isize::MIN, isize::MIN + 100] {
        let near = offset.unsigned_abs();
        for window in [
            [usize::MAX; 2],
            [near, 0],
            [near - 30, 5],
            [near + 30, 0],
            [0, near],
            [5, near + 20],
            [3, 3],
        ] {
            for causal in [false, true] {
                let options = Options { window, offset, causal, ..Options::new() };
                let all = plainly_seen(backend, &options, keys, tokens);
                for (token, seen) in all.iter().enumerate() {
                    assert_eq!(*seen, allowed(&options, keys, token), "{token}, {options:?}");
                }
            }
        }
    }
}

/// As [`seen`], but by one call over all queries, as the offset of a later query would overflow.
fn plainly_seen(
    backend: Backend,
    options: &Options,
    keys: usize,
    tokens: usize,
) -> Vec<Vec<usize>> {
    let (q, k) = (Grid::zeros(tokens, 1), Grid::zeros(keys, 1));
    let v = Grid::from_fn(keys, keys, |row, col| f32::from(u8::from(row == col)));
    let mut out = Grid::zeros(tokens, keys);
    let mut workspace = vec![0.0; Attention::workspace(1, keys)];
    let attention = options.attention(backend);
    attention.run(q.view(), k.view(), v.view(), out.view_mut(), &mut workspace).unwrap();
    let weights = pattern(backend, options, &q, &k);
    let seen = |token: usize| -> Vec<usize> {
        (0..keys)
            .filter(|&key| {
                assert_eq!(weights.at(key, token) > 0.0, out.at(token, key) > 0.0);
                out.at(token, key) > 0.0
            })
            .collect()
    };
    (0..tokens).map(seen).collect()
}

/// The offsets of a cache count from its newest positions; the largest and smallest are valid too.
fn extreme_offsets_of_a_cache(backend: Backend) {
    let mut storage = [vec![0.0; 2 * 64], vec![0.0; 2 * 64]];
    let [keys, values] = &mut storage;
    let mut span = CachePositions::default();
    let mut cache = KvCacheMut::new(keys, values, 1, 1, &mut span).unwrap();
    let ones = Grid::from_fn(100, 1, |_, _| 1.0);
    cache.append(ones.view(), ones.view()).unwrap();
    cache.slide(20);
    for (attention, sees) in [
        (Attention::new().causal().query_offset(isize::MAX), true),
        (Attention::new().causal().query_offset(isize::MIN), false),
        (Attention::new().causal().query_offset(isize::MIN + 99), false),
        (Attention::new().window(usize::MAX, 0).query_offset(isize::MAX), true),
        (Attention::new().window(0, usize::MAX).query_offset(isize::MAX), false),
        (Attention::new().window(0, usize::MAX).query_offset(isize::MIN), true),
        (Attention::new().query_offset(isize::MIN), true),
        (Attention::new().causal().query_offset(-19), true),
        (Attention::new().causal().query_offset(-20), false),
        (Attention::new().window(19, 0).query_offset(19), true),
        (Attention::new().window(19, 0).query_offset(20), false),
    ] {
        let rng = &mut Rng::new(0);
        let answer = guarded(rng, "cache", [1, 1, 1, 1], |out, logarithms, workspace| {
            let query = Grid::zeros(1, 1);
            let attention = attention.on(backend);
            let view = cache.view();
            view.attend_with_log_sum_exp(&attention, query.view(), out, logarithms, workspace)
        });
        let (out, logarithm) = &answer[0];
        assert_eq!(out.data[0] > 0.5, sees, "{attention:?}");
        assert_eq!(logarithm[0] > -INFINITY, sees, "{attention:?}");
    }
}
