//! The semantics of attention, line by line of the crate docs: plain calls, heads and caches, score grid and
//! pattern; on every back end.

use crate::common::{
    self, assert_same_bits,
    cases::{Kind, Rng},
    grid::{Grid, is_untouched},
    heads::{GuardedHeads, guarded},
    options::{Options, part},
    paths::{assert_near, assert_same, by_every_path, pattern, scores},
};
use sdpa::{Attention, Backend, HeadsMut, HeadsRef};

suite! {
    masked_keys_never_reach_the_output,
    a_bias_of_minus_infinity_masks,
    nothing_visible_gives_zeros,
    nothing_visible_gives_the_sink,
    a_score_of_minus_infinity_weighs_nothing,
    scores_of_infinity_share,
    a_bias_of_infinity_shares,
    infinity_in_a_later_block_takes_all,
    a_nan_in_a_score_fills_its_query,
    a_nan_in_a_value_fills_its_column,
    infinity_in_a_value_stays_in_its_column,
    softcap_is_before_bias_and_mask,
    softcap_of_infinity_is_the_cap,
    scales,
    a_sink_takes_its_share,
    one_sink_per_head,
    log_sum_exp_covers_visible_keys,
    no_queries,
    no_keys,
    no_keys_in_a_cache,
}

const INFINITY: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

fn random<const N: usize>(rng: &mut Rng, shapes: [(usize, usize); N]) -> [Grid; N] {
    shapes.map(|(rows, cols)| Grid::random(rng, Kind::Ordinary, rows, cols))
}

/// Queries of 1 for keys of one column: with a scale of 1 the keys are the scores.
fn ones(tokens: usize) -> Grid {
    Grid::from_fn(tokens, 1, |_, _| 1.0)
}

fn unscaled() -> Options {
    Options { scale: Some(1.0), ..Options::new() }
}

fn column(x: &[f32]) -> Grid {
    Grid { rows: x.len(), cols: 1, data: x.to_vec() }
}

fn is_zero(x: &f32) -> bool {
    x.to_bits() == 0
}

/// Numbers of keys, each with the index of one key: in every partial sum, at both ends of blocks.
const PLACES: [(usize, usize); 12] = [
    (1, 0),
    (2, 1),
    (5, 2),
    (7, 3),
    (63, 62),
    (64, 0),
    (64, 63),
    (65, 64),
    (130, 63),
    (130, 64),
    (130, 129),
    (200, 100),
];

/// Numbers of queries around every number of lanes.
const TOKENS: [usize; 6] = [1, 3, 8, 17, 33, 70];

fn masked_keys_never_reach_the_output(backend: Backend) {
    let mut rng = Rng::new(51);
    for (keys, hidden) in PLACES {
        for tokens in TOKENS {
            let [q, mut k, mut v, mut bias] =
                random(&mut rng, [(tokens, 3), (keys, 3), (keys, 2), (keys, tokens)]);
            let others = || (0..keys).filter(|&key| key != hidden);
            let keep = Grid::from_fn(keys, tokens, |key, _| u8::from(key != hidden));
            let options = |bias: &Grid| Options {
                keep: Some(keep.clone().into()),
                bias: Some(bias.clone().into()),
                ..Options::new()
            };
            let want = by_every_path(backend, &options(&bias), [&q, &k, &v]);
            let weights = pattern(backend, &options(&bias), &q, &k);
            for bad in [NAN, INFINITY, -INFINITY, f32::MAX] {
                k.data[hidden * 3 + rng.below(3)] = bad;
                v.data[hidden * 2 + rng.below(2)] = bad;
                bias.data[hidden * tokens + rng.below(tokens)] = bad;
                let got = by_every_path(backend, &options(&bias), [&q, &k, &v]);
                assert_same(&format!("{bad} in key {hidden} of {keys}"), &got, &want);
                let got = pattern(backend, &options(&bias), &q, &k);
                assert_same_bits("pattern", &got.data, &weights.data);
                assert!(got.row(hidden).iter().all(is_zero));
                let grid = scores(backend, &options(&bias), &q, &k);
                assert!(grid.row(hidden).iter().all(|&x| x == -INFINITY));
                assert!(others().all(|key| grid.row(key).iter().all(|x| x.is_finite())));
            }
        }
    }
    masked_by_position(backend, &mut rng);
}

/// Also for keys that causal or a window masks for some queries only.
fn masked_by_position(backend: Backend, rng: &mut Rng) {
    for (keys, hidden) in PLACES {
        let [q, k, v] = random(rng, [(40, 3), (keys, 3), (keys, 2)]);
        let middle = hidden as isize - 20;
        let window = Options { window: [5, 9], offset: middle, ..Options::new() };
        for options in [Options { causal: true, offset: middle, ..Options::new() }, window] {
            let want = by_every_path(backend, &options, [&q, &k, &v]);
            for bad in [NAN, INFINITY, -INFINITY] {
                let (mut k, mut v) = (k.clone(), v.clone());
                k.data[hidden * 3] = bad;
                v.data[hidden * 2 + 1] = bad;
                let got = by_every_path(backend, &options, [&q, &k, &v]);
                let weights = pattern(backend, &options, &q, &k);
                for token in 0..40 {
                    if options.sees(hidden, token) {
                        continue;
                    }
                    assert_same_bits("hidden", got.0.row(token), want.0.row(token));
                    assert_same_bits("hidden", &got.1[token..=token], &want.1[token..=token]);
                    assert!(is_zero(&weights.at(hidden, token)));
                    assert!(weights.column(token).iter().all(|x| x.is_finite()));
                }
            }
        }
    }
}

fn a_bias_of_minus_infinity_masks(backend: Backend) {
    let mut rng = Rng::new(52);
    for (keys, hidden) in PLACES {
        for tokens in TOKENS {
            let [q, mut k, mut v, mut bias] =
                random(&mut rng, [(tokens, 3), (keys, 3), (keys, 2), (keys, tokens)]);
            let keep = Grid::from_fn(keys, tokens, |key, _| u8::from(key != hidden));
            let by_keep = Options {
                keep: Some(keep.into()),
                bias: Some(bias.clone().into()),
                ..Options::new()
            };
            let want = by_every_path(backend, &by_keep, [&q, &k, &v]);
            bias.data[hidden * tokens..][..tokens].fill(-INFINITY);
            let by_bias = Options { bias: Some(bias.into()), ..Options::new() };
            for bad in [0.0, NAN, INFINITY, -INFINITY] {
                k.data[hidden * 3] = bad;
                v.data[hidden * 2] = bad;
                let got = by_every_path(backend, &by_bias, [&q, &k, &v]);
                assert_same(&format!("{bad} in key {hidden} of {keys}"), &got, &want);
                let grid = scores(backend, &by_bias, &q, &k);
                assert!(grid.row(hidden).iter().all(|&x| x == -INFINITY));
                let weights = pattern(backend, &by_bias, &q, &k);
                assert!(weights.row(hidden).iter().all(is_zero));
                assert!(weights.data.iter().all(|x| x.is_finite()));
            }
        }
    }
}

/// Every option that masks all keys of all queries.
fn all_masked(keys: usize, tokens: usize) -> [Options; 5] {
    let keep = Grid::from_fn(keys, tokens, |_, _| 0);
    let bias = Grid::from_fn(keys, tokens, |_, _| -INFINITY);
    [
        Options { keep: Some(keep.into()), ..Options::new() },
        Options { bias: Some(bias.into()), ..Options::new() },
        Options { causal: true, offset: -(tokens as isize), ..Options::new() },
        Options { window: [3, 5], offset: keys as isize + 3, ..Options::new() },
        Options { window: [3, 5], offset: -(tokens as isize) - 5, ..Options::new() },
    ]
}

fn nothing_visible_gives_zeros(backend: Backend) {
    let mut rng = Rng::new(53);
    for (keys, bad) in PLACES {
        for tokens in TOKENS {
            let [q, mut k, mut v] = random(&mut rng, [(tokens, 3), (keys, 3), (keys, 2)]);
            k.data[bad * 3] = NAN;
            v.data[bad * 2] = INFINITY;
            for options in all_masked(keys, tokens) {
                let (out, logarithms) = by_every_path(backend, &options, [&q, &k, &v]);
                assert!(out.data.iter().all(is_zero), "{options:?}: {out:?}");
                assert!(logarithms.iter().all(|&x| x == -INFINITY), "{logarithms:?}");
                assert!(pattern(backend, &options, &q, &k).data.iter().all(is_zero));
                let grid = scores(backend, &options, &q, &k);
                assert!(grid.data.iter().all(|&x| x == -INFINITY));
            }
        }
    }
}

fn nothing_visible_gives_the_sink(backend: Backend) {
    let mut rng = Rng::new(54);
    for sink in [0.0, -0.0, 1.5, -80.0, 300.0, -1e6, 3e30, f32::MAX, f32::MIN] {
        let [q, k, v] = random(&mut rng, [(9, 3), (70, 3), (70, 2)]);
        for options in all_masked(70, 9) {
            let options = Options { sinks: vec![sink], ..options };
            let (out, logarithms) = by_every_path(backend, &options, [&q, &k, &v]);
            assert!(out.data.iter().all(is_zero), "{options:?}: {out:?}");
            for logarithm in logarithms {
                let error = (f64::from(logarithm) - f64::from(sink)).abs();
                assert!(error <= 3e-7 * f64::from(sink).abs().max(1.0), "{logarithm}, {sink}");
            }
            assert!(pattern(backend, &options, &q, &k).data.iter().all(is_zero));
        }
    }
}

/// Such a key is not masked: its value takes part, with a weight of 0.
fn a_score_of_minus_infinity_weighs_nothing(backend: Backend) {
    for (keys, lowest) in PLACES {
        for tokens in TOKENS {
            let mut k = Grid::from_fn(keys, 1, |_, _| 3.0);
            k.data[lowest] = -INFINITY;
            let v = Grid::from_fn(keys, 1, |key, _| if key == lowest { 1e30 } else { 7.0 });
            let (out, logarithms) = by_every_path(backend, &unscaled(), [&ones(tokens), &k, &v]);
            let weights = pattern(backend, &unscaled(), &ones(tokens), &k);
            assert!(weights.row(lowest).iter().all(is_zero));
            for (&out, &logarithm) in out.data.iter().zip(&logarithms) {
                if keys == 1 {
                    assert!(is_zero(&out) && logarithm == -INFINITY, "{out}, {logarithm}");
                } else {
                    assert_near(out, 7.0);
                    assert_near(logarithm, 3.0 + ((keys - 1) as f64).ln());
                }
            }
        }
    }
}

fn scores_of_infinity_share(backend: Backend) {
    for (keys, first) in PLACES {
        for tokens in TOKENS {
            let second = (first + 70) % keys;
            let is_infinite = |key| key == first || key == second;
            let k = Grid::from_fn(keys, 1, |key, _| if is_infinite(key) { INFINITY } else { 9e9 });
            let v =
                Grid::from_fn(keys, 1, |key, _| if is_infinite(key) { key as f32 } else { -7.0 });
            for sinks in [vec![], vec![5.0], vec![3e38]] {
                let options = Options { sinks, ..unscaled() };
                let (out, logarithms) = by_every_path(backend, &options, [&ones(tokens), &k, &v]);
                let want = (first + second) as f32 / 2.0;
                assert!(out.data.iter().all(|&x| x == want), "{out:?}, {want}");
                assert!(logarithms.iter().all(|&x| x == INFINITY), "{logarithms:?}");
                let weights = pattern(backend, &options, &ones(tokens), &k);
                let part = if first == second { 1.0 } else { 0.5 };
                for (key, row) in (0..keys).map(|key| (key, weights.row(key))) {
                    let want: f32 = if is_infinite(key) { part } else { 0.0 };
                    assert!(row.iter().all(|x| x.to_bits() == want.to_bits()), "{row:?}");
                }
            }
        }
    }
}

/// +∞ by the bias, for one query among others; the softcap comes before the bias.
fn a_bias_of_infinity_shares(backend: Backend) {
    let mut rng = Rng::new(55);
    for (keys, first) in PLACES {
        for softcap in [0.0, 2.0] {
            let [q, k, v] = random(&mut rng, [(20, 3), (keys, 3), (keys, 2)]);
            let none = Options { softcap, ..Options::new() };
            let want = by_every_path(backend, &none, [&q, &k, &v]);
            for token in [0, 7, 19] {
                let mut bias = Grid::zeros(keys, 20);
                bias.data[first * 20 + token] = INFINITY;
                let options = Options { bias: Some(bias.into()), ..none.clone() };
                let got = by_every_path(backend, &options, [&q, &k, &v]);
                for other in (0..20).filter(|&other| other != token) {
                    assert_same_bits("others", got.0.row(other), want.0.row(other));
                }
                // 1 · value, up to the last multiplication.
                assert_same_bits("shared", got.0.row(token), v.row(first));
                assert_eq!(got.1[token], INFINITY);
            }
        }
    }
}

/// +∞ after blocks of large scores and before others; with a NaN in another score the result is NaN.
fn infinity_in_a_later_block_takes_all(backend: Backend) {
    for place in [0, 63, 64, 150, 191] {
        let scores: Vec<f32> =
            (0..192).map(|key| if key == place { INFINITY } else { 1e3 - key as f32 }).collect();
        let mut k = column(&scores);
        let v = Grid::from_fn(192, 1, |key, _| if key == place { 2.5 } else { 1e35 });
        for tokens in TOKENS {
            let (out, _) = by_every_path(backend, &unscaled(), [&ones(tokens), &k, &v]);
            assert!(out.data.iter().all(|&x| x == 2.5), "{place}: {out:?}");
        }
        for nan in [1, 65, 190] {
            k.data[nan] = NAN;
            let (out, logarithms) = by_every_path(backend, &unscaled(), [&ones(5), &k, &v]);
            assert!(out.data.iter().chain(&logarithms).all(|x| x.is_nan()), "{out:?}");
            k.data[nan] = 0.0;
        }
    }
}

fn a_nan_in_a_score_fills_its_query(backend: Backend) {
    let mut rng = Rng::new(56);
    for (keys, key) in PLACES {
        for token in [0, 1, 6, 20] {
            let [q, k, v] = random(&mut rng, [(21, 3), (keys, 3), (keys, 5)]);
            let want = by_every_path(backend, &Options::new(), [&q, &k, &v]);
            let mut bad = q.clone();
            bad.data[token * 3 + rng.below(3)] = NAN;
            let by_query = by_every_path(backend, &Options::new(), [&bad, &k, &v]);
            let mut bias = Grid::zeros(keys, 21);
            bias.data[key * 21 + token] = NAN;
            let options = Options { bias: Some(bias.into()), ..Options::new() };
            let by_bias = by_every_path(backend, &options, [&q, &k, &v]);
            let weights = pattern(backend, &options, &q, &k);
            for got in [by_query, by_bias] {
                assert!(got.0.row(token).iter().all(|x| x.is_nan()), "{got:?}");
                assert!(got.1[token].is_nan());
                for other in (0..21).filter(|&other| other != token) {
                    assert_same_bits("others", got.0.row(other), want.0.row(other));
                    assert_same_bits("others", &got.1[other..=other], &want.1[other..=other]);
                }
            }
            for other in 0..21 {
                let column = weights.column(other);
                assert!(column.iter().all(|x| x.is_nan() == (other == token)), "{column:?}");
            }
        }
    }
    beside_a_mask(backend, &mut rng);
}

/// A NaN score of a visible key, and a masked key in the same column: the masked key still has weight +0.
fn beside_a_mask(backend: Backend, rng: &mut Rng) {
    for (keys, hidden) in PLACES.into_iter().filter(|&(keys, _)| keys > 1) {
        let [q, mut k, v] = random(rng, [(6, 2), (keys, 2), (keys, 3)]);
        k.data[2 * ((hidden + 1) % keys)] = NAN;
        let keep = Grid::from_fn(keys, 6, |key, _| u8::from(key != hidden));
        let options = Options { keep: Some(keep.into()), ..Options::new() };
        let weights = pattern(backend, &options, &q, &k);
        for key in 0..keys {
            let row = weights.row(key);
            assert!(row.iter().all(|x| if key == hidden { is_zero(x) } else { x.is_nan() }));
        }
        let (out, _) = by_every_path(backend, &options, [&q, &k, &v]);
        assert!(out.data.iter().all(|x| x.is_nan()), "{out:?}");
    }
}

/// The NaN reaches its column of every query that sees the key, whatever the weight; no other column and no
/// other query.
fn a_nan_in_a_value_fills_its_column(backend: Backend) {
    value_stays_in_its_column(backend, NAN, |x| x.is_nan());
}

fn infinity_in_a_value_stays_in_its_column(backend: Backend) {
    value_stays_in_its_column(backend, INFINITY, |x| !x.is_finite());
    value_stays_in_its_column(backend, -INFINITY, |x| !x.is_finite());
}

fn value_stays_in_its_column(backend: Backend, bad: f32, shows: fn(f32) -> bool) {
    let mut rng = Rng::new(57);
    for (keys, key) in PLACES {
        let [q, k, v] = random(&mut rng, [(40, 2), (keys, 2), (keys, 9)]);
        let mut spoiled = v.clone();
        let col = rng.below(9);
        spoiled.data[key * 9 + col] = bad;
        let lowest = Grid::from_fn(keys, 40, |at, _| if at == key { -1e30 } else { 0.0 });
        let keep = Grid::from_fn(keys, 40, |at, token| u8::from(at != key || token % 3 == 0));
        let offset = key as isize - 20;
        for options in [
            Options::new(),
            Options { bias: Some(lowest.into()), ..Options::new() },
            Options { keep: Some(keep.into()), ..Options::new() },
            Options { causal: true, offset, ..Options::new() },
            Options { window: [7, 2], offset, ..Options::new() },
        ] {
            let want = by_every_path(backend, &options, [&q, &k, &v]);
            let got = by_every_path(backend, &options, [&q, &k, &spoiled]);
            assert_same_bits("log-sum-exp", &got.1, &want.1);
            for token in 0..40 {
                for at in 0..9 {
                    let (got, want) = (got.0.at(token, at), want.0.at(token, at));
                    if at == col && options.sees(key, token) {
                        assert!(shows(got), "{got} in column {at} of {token}: {options:?}");
                    } else {
                        assert_same_bits("elsewhere", &[got], &[want]);
                    }
                }
            }
        }
    }
}

fn softcap_is_before_bias_and_mask(backend: Backend) {
    let raw = [0.0, 1.0, -3.0, 50.0, 2.0];
    let bias = Grid { rows: 5, cols: 1, data: vec![10.0, -1.0, 0.5, 4.0, -INFINITY] };
    let options = Options { softcap: 2.0, bias: Some(bias.clone().into()), ..unscaled() };
    let grid = scores(backend, &options, &ones(1), &column(&raw));
    for key in 0..4 {
        let want = 2.0 * (f64::from(raw[key]) / 2.0).tanh() + f64::from(bias.at(key, 0));
        assert_near(grid.at(key, 0), want);
    }
    assert_eq!(grid.at(4, 0), -INFINITY);
    let v = column(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    let (out, _) = by_every_path(backend, &options, [&ones(1), &column(&raw), &v]);
    let weights: Vec<f64> = (0..4).map(|key| f64::from(grid.at(key, 0)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let want = (0..4).map(|key| weights[key] * f64::from(v.data[key])).sum::<f64>() / total;
    assert_near(out.data[0], want);
    // A cap of 0 means no cap.
    let mut zero = Grid::zeros(1, 1);
    let mut workspace = vec![0.0; Attention::workspace(1, 1)];
    let attention = Attention::new().on(backend).scale(1.0).softcap(0.0);
    let (q, k) = (ones(1), column(&raw));
    attention.run(q.view(), k.view(), v.view(), zero.view_mut(), &mut workspace).unwrap();
    let (without, _) = by_every_path(backend, &unscaled(), [&q, &k, &v]);
    assert_same_bits("no cap", &zero.data, &without.data);
}

fn softcap_of_infinity_is_the_cap(backend: Backend) {
    for cap in [1e-3, 0.5, 30.0, 1e30] {
        let k = column(&[INFINITY, -INFINITY, 0.0, NAN]);
        let options = Options { softcap: cap, ..unscaled() };
        let grid = scores(backend, &options, &ones(1), &k);
        assert_eq!(grid.data[..3], [cap, -cap, 0.0]);
        assert!(grid.data[3].is_nan());
        let two = part(&k, [0, 2], [0, 1]);
        let (out, _) = by_every_path(backend, &options, [&ones(3), &two, &column(&[1.0, 0.0])]);
        let want = 1.0 / (1.0 + (-2.0 * f64::from(cap)).exp());
        out.data.iter().for_each(|&out| assert_near(out, want));
    }
}

/// The default is 1 / √dim; 0 is a zero; any finite scale is valid.
fn scales(backend: Backend) {
    let mut rng = Rng::new(58);
    let [q, k, v] = random(&mut rng, [(5, 16), (70, 16), (70, 3)]);
    let run = |scale| by_every_path(backend, &Options { scale, ..Options::new() }, [&q, &k, &v]);
    assert_same("left out", &run(None), &run(Some(0.25)));
    for zero in [0.0, -0.0] {
        let (out, logarithms) = run(Some(zero));
        for col in 0..3 {
            let mean = v.column(col).iter().map(|&x| f64::from(x)).sum::<f64>() / 70.0;
            (0..5).for_each(|token| assert_near(out.at(token, col), mean));
        }
        logarithms.iter().for_each(|&logarithm| assert_near(logarithm, 70_f64.ln()));
    }
    let (out, logarithms) = run(Some(-3.0));
    let turned = Grid::from_fn(5, 16, |row, col| -q.at(row, col));
    let options = Options { scale: Some(3.0), ..Options::new() };
    assert_same(
        "negative",
        &(out, logarithms),
        &by_every_path(backend, &options, [&turned, &k, &v]),
    );
    for scale in [f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1)] {
        let (out, _) = run(Some(scale));
        assert!(out.data.iter().all(|x| !x.is_nan()), "{scale}: {out:?}");
    }
}

/// A sink is one more score in the denominator, without a value.
fn a_sink_takes_its_share(backend: Backend) {
    for (keys, _) in PLACES {
        for sink in [-INFINITY, -30.0, 0.0, 2.0, 80.0] {
            let options = Options { sinks: vec![sink], ..unscaled() };
            let (q, k) = (ones(20), Grid::from_fn(keys, 1, |_, _| 1.0));
            let v = Grid::from_fn(keys, 1, |_, _| 5.0);
            let (out, logarithms) = by_every_path(backend, &options, [&q, &k, &v]);
            let (all, sink) = (keys as f64 * 1_f64.exp(), f64::from(sink).exp());
            let part = all / (all + sink);
            out.data.iter().for_each(|&out| assert_near(out, 5.0 * part));
            logarithms.iter().for_each(|&logarithm| assert_near(logarithm, (all + sink).ln()));
            let weights = pattern(backend, &options, &q, &k);
            weights.data.iter().for_each(|&weight| assert_near(weight, part / keys as f64));
            if sink == 0.0 {
                let none = by_every_path(backend, &unscaled(), [&q, &k, &v]);
                assert_same("a sink of −∞", &(out, logarithms), &none);
            }
        }
    }
}

fn one_sink_per_head(backend: Backend) {
    let mut rng = Rng::new(59);
    let sinks = [-INFINITY, 0.0, 3.0, -2.0, 50.0, f32::MIN];
    for (key_heads, tokens) in [(1, 1), (1, 7), (2, 5), (3, 40), (6, 1), (6, 9)] {
        let [q, k, v] = random(&mut rng, [(tokens, 4), (70, 4), (70, 3)]);
        let mut all = |grid: &Grid, heads| GuardedHeads::of(&mut rng, &vec![grid.clone(); heads]);
        let (queries, keys, values) = (all(&q, 6), all(&k, key_heads), all(&v, key_heads));
        let attention = Attention::new().on(backend).sinks(&sinks);
        let sizes = [6, tokens, 4, 3];
        let heads = guarded(&mut rng, "sinks", sizes, |out, logarithms, workspace| {
            let (q, k, v) = (queries.view(), keys.view(), values.view());
            attention.run_with_log_sum_exp(q, k, v, out, logarithms, workspace)
        });
        for (head, &sink) in heads.iter().zip(&sinks) {
            let options = Options { sinks: vec![sink], ..Options::new() };
            assert_same("a head", head, &by_every_path(backend, &options, [&q, &k, &v]));
        }
    }
    // The last of `sink` and `sinks` wins.
    let [q, k, v] = random(&mut rng, [(1, 4), (9, 4), (9, 3)]);
    let one = Options { sinks: vec![1.0], ..Options::new() };
    let want = by_every_path(backend, &one, [&q, &k, &v]);
    for attention in
        [Attention::new().sink(9.0).sinks(&[1.0]), Attention::new().sinks(&[9.0]).sink(1.0)]
    {
        let got = guarded(&mut rng, "last", [1, 1, 4, 3], |out, logarithms, workspace| {
            let (q, k, v) = (q.view(), k.view(), v.view());
            attention.on(backend).run_with_log_sum_exp(q, k, v, out, logarithms, workspace)
        });
        assert_same("last", &got[0], &want);
    }
}

/// The natural logarithm, over the scaled, capped, biased and masked scores and the sink.
fn log_sum_exp_covers_visible_keys(backend: Backend) {
    let mut rng = Rng::new(60);
    for (keys, hidden) in PLACES.into_iter().filter(|&(keys, _)| keys > 1) {
        let [q, k, v, bias] = random(&mut rng, [(9, 4), (keys, 4), (keys, 2), (keys, 9)]);
        let keep = Grid::from_fn(keys, 9, |key, _| u8::from(key != hidden));
        let options = Options {
            scale: Some(2.5),
            softcap: 3.0,
            bias: Some(bias.clone().into()),
            keep: Some(keep.into()),
            sinks: vec![0.5],
            ..Options::new()
        };
        let (_, logarithms) = by_every_path(backend, &options, [&q, &k, &v]);
        for (token, &logarithm) in logarithms.iter().enumerate() {
            let mut total = 0.5_f64.exp();
            for key in (0..keys).filter(|&key| key != hidden) {
                let products = k.row(key).iter().zip(q.row(token));
                let dot: f64 = products.map(|(&k, &q)| f64::from(k) * f64::from(q)).sum();
                total += (3.0 * (2.5 * dot / 3.0).tanh() + f64::from(bias.at(key, token))).exp();
            }
            assert_near(logarithm, total.ln());
        }
    }
}

fn no_queries(backend: Backend) {
    let mut rng = Rng::new(61);
    let [q, k, v] = random(&mut rng, [(0, 3), (70, 3), (70, 2)]);
    let (out, logarithms) = by_every_path(backend, &Options::new(), [&q, &k, &v]);
    assert!(out.data.is_empty() && logarithms.is_empty());
    let mut workspace = vec![common::grid::CANARY; Attention::workspace(3, 2)];
    let (none, k, v) = (q.view(), k.view(), v.view());
    let into = sdpa::MatrixMut::new(&mut [], 0, 2).unwrap();
    assert_eq!(Attention::new().on(backend).run(none, k, v, into, &mut workspace), Ok(()));
    assert!(is_untouched(&workspace));
    // `usize::MAX` heads without queries.
    let heads =
        |rows, cols| HeadsRef::with_strides(&[0.0], [usize::MAX, rows, cols], [0; 3]).unwrap();
    let into = HeadsMut::with_strides(&mut [], [usize::MAX, 0, 2], [0; 3]).unwrap();
    let (q, k, v) = (heads(0, 3), heads(70, 3), heads(70, 2));
    assert_eq!(Attention::new().on(backend).run(q, k, v, into, &mut workspace), Ok(()));
    let into = HeadsMut::with_strides(&mut [], [usize::MAX, 70, 0], [0; 3]).unwrap();
    assert_eq!(Attention::new().on(backend).pattern(q, k, into), Ok(()));
    let into = sdpa::MatrixMut::new(&mut [], 70, 0).unwrap();
    assert_eq!(Attention::new().on(backend).mean_pattern(q, k, into, &mut []), Ok(()));
    for rows in [0, 70] {
        let out = |cols| sdpa::MatrixMut::new(&mut [], rows, cols).unwrap();
        let keys = Grid::zeros(rows, 3);
        let attention = Attention::new().on(backend);
        assert_eq!(attention.scores(none, keys.view(), out(0)), Ok(()));
        assert_eq!(attention.pattern(none, keys.view(), out(0)), Ok(()));
    }
}

fn no_keys(backend: Backend) {
    for tokens in TOKENS {
        let (q, k, v) =
            (Grid::from_fn(tokens, 3, |_, _| NAN), Grid::zeros(0, 3), Grid::zeros(0, 2));
        let (out, logarithms) = by_every_path(backend, &Options::new(), [&q, &k, &v]);
        assert!(out.data.iter().all(is_zero), "{out:?}");
        assert!(logarithms.iter().all(|&x| x == -INFINITY), "{logarithms:?}");
        let options = Options { sinks: vec![2.0], causal: true, ..Options::new() };
        let (out, logarithms) = by_every_path(backend, &options, [&q, &k, &v]);
        assert!(out.data.iter().all(is_zero), "{out:?}");
        logarithms.iter().for_each(|&logarithm| assert_near(logarithm, 2.0));
    }
}

/// A new cache, one slid to 0 keys, and one cleared.
fn no_keys_in_a_cache(backend: Backend) {
    let mut cache = sdpa::KvCache::<3, 2, 5>::new();
    let some = random(&mut Rng::new(62), [(70, 3), (70, 2)]);
    for step in 0..4 {
        let rng = &mut Rng::new(0);
        let query = ones(1);
        let query = Grid::from_fn(5, 3, |_, _| query.data[0]);
        let answer = guarded(rng, "empty", [1, 5, 3, 2], |out, logarithms, workspace| {
            let (attention, query) = (Attention::new().on(backend), query.view());
            cache.attend_with_log_sum_exp(&attention, query, out, logarithms, workspace)
        });
        let (out, logarithms) = &answer[0];
        assert!(out.data.iter().all(is_zero), "step {step}: {out:?}");
        assert!(logarithms.iter().all(|&x| x == -INFINITY), "step {step}: {logarithms:?}");
        cache.append(some[0].view(), some[1].view()).unwrap();
        match step {
            0 => cache.slide(0),
            1 => cache.truncate(0).unwrap(),
            _ => cache.clear(),
        }
    }
}
