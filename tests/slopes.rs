//! Options of each head: slopes (ALiBi), and masks of their own; on every back end.

use crate::common::{
    cases::{Kind, Rng},
    grid::Grid,
    heads::{GuardedHeads, guarded},
    mask::Mask,
    options::Options,
    paths::{assert_same, by_every_path, scores},
};
use sdpa::Backend;

suite! {
    a_slope_is_a_bias_of_the_distance,
    slopes_are_after_softcap_and_bias_and_before_masks,
    scores_that_are_not_finite_stay,
    far_distances_are_rounded_and_limited,
    one_mask_and_slope_per_head,
}

const INFINITY: f32 = f32::INFINITY;

/// Grids of random rows for each number of rows.
fn random<const N: usize>(rng: &mut Rng, cols: usize, rows: [usize; N]) -> [Grid; N] {
    rows.map(|rows| Grid::random(rng, Kind::Ordinary, rows, cols))
}

/// With a slope of a power of two, of which every product is exact, even the bits are those of a bias.
fn a_slope_is_a_bias_of_the_distance(backend: Backend) {
    let mut rng = Rng::new(91);
    for (keys, tokens) in [(1, 1), (70, 1), (70, 2), (130, 5), (200, 9), (65, 17), (64, 40)] {
        let [q, k, v] = random(&mut rng, 4, [tokens, keys, keys]);
        for (slope, offset) in [(0.125, 0), (-0.5, keys as isize - tokens as isize), (2.0, -20)] {
            let distance = |key: usize, token: usize| {
                (offset + token as isize - key as isize).unsigned_abs() as f32
            };
            let bias = Grid::from_fn(keys, tokens, |key, token| -slope * distance(key, token));
            for causal in [false, true] {
                let by_bias =
                    Options { bias: Some(bias.clone().into()), causal, offset, ..Options::new() };
                let by_slope = Options { bias: None, slopes: vec![slope], ..by_bias.clone() };
                let want = by_every_path(backend, &by_bias, [&q, &k, &v]);
                let got = by_every_path(backend, &by_slope, [&q, &k, &v]);
                assert_same(&format!("{keys} keys, {tokens} queries, {slope}"), &got, &want);
            }
        }
    }
}

fn slopes_are_after_softcap_and_bias_and_before_masks(backend: Backend) {
    let query = Grid::from_fn(1, 1, |_, _| 1.0);
    let keys = Grid { rows: 4, cols: 1, data: vec![50.0, -50.0, 0.0, 7.0] };
    let bias = Grid { rows: 4, cols: 1, data: vec![10.0, 0.0, -INFINITY, 0.0] };
    let keep = Grid { rows: 4, cols: 1, data: vec![1, 1, 1, 0] };
    let options = Options {
        scale: Some(1.0),
        softcap: 2.0,
        bias: Some(bias.into()),
        slopes: vec![0.5],
        keep: Some(keep.into()),
        offset: 1,
        ..Options::new()
    };
    let got = scores(backend, &options, &query, &keys).data;
    assert_eq!(got, [2.0 + 10.0 - 0.5, -2.0, -INFINITY, -INFINITY]);
}

/// The product of a slope and a distance is finite.
fn scores_that_are_not_finite_stay(backend: Backend) {
    let query = Grid::from_fn(1, 1, |_, _| 1.0);
    let keys = Grid { rows: 3, cols: 1, data: vec![INFINITY, -INFINITY, f32::NAN] };
    for slope in [97_f32.exp2(), -97_f32.exp2(), 0.0] {
        for offset in [0, isize::MIN, isize::MAX] {
            let options =
                Options { scale: Some(1.0), slopes: vec![slope], offset, ..Options::new() };
            let got = scores(backend, &options, &query, &keys).data;
            assert_eq!(got[..2], [INFINITY, -INFINITY]);
            assert!(got[2].is_nan());
        }
    }
}

fn far_distances_are_rounded_and_limited(backend: Backend) {
    let far = |bits: u32| 1_isize << bits;
    let largest = 30_f32.exp2();
    for (offset, want) in [
        (far(24) - 1, 16_777_215.0),
        (far(24) + 1, 16_777_216.0),
        (far(24) + 3, 16_777_220.0),
        (-far(24) - 3, 16_777_220.0),
        (far(30) - 65, 1_073_741_760.0),
        (far(30) - 1, largest),
        (far(30), largest),
        (far(30) + 65, largest),
        (-far(30) - 65, largest),
        (isize::MAX, largest),
        (isize::MIN, largest),
    ] {
        for tokens in [1, 5, 40] {
            // Each query and key is as far from the other as the first.
            for at in 0..tokens {
                let q = Grid::zeros(tokens, 1);
                let Some(offset) = offset.checked_sub(at as isize) else { continue };
                let options = Options { slopes: vec![-1.0], offset, ..Options::new() };
                let grid = scores(backend, &options, &q, &Grid::zeros(70, 1));
                assert_eq!(grid.at(0, at), want, "{offset}, {at} of {tokens}");
                for key in 0..70 {
                    let want = options.distance(key, at);
                    assert_eq!(grid.at(key, at), want, "{offset}, {at} of {tokens}, key {key}");
                }
            }
        }
    }
}

fn one_mask_and_slope_per_head(backend: Backend) {
    let mut rng = Rng::new(92);
    for (key_heads, tokens) in [(1, 1), (1, 7), (2, 5), (3, 40), (6, 1), (6, 9)] {
        let [q, k, v] = random(&mut rng, 4, [tokens, 70, 70]);
        let mut all = |grid: &Grid, heads| GuardedHeads::of(&mut rng, &vec![grid.clone(); heads]);
        let (queries, keys, values) = (all(&q, 6), all(&k, key_heads), all(&v, key_heads));
        let bias = Mask::from_fn(6, |_| Grid::random(&mut rng, Kind::Masked, 70, tokens));
        // Head 2 sees nothing, head 4 a single key.
        let keep = Mask::from_fn(6, |head| {
            Grid::from_fn(70, tokens, |key, _| match head {
                2 => 0,
                4 => u8::from(key == 66),
                _ => u8::from((key + head) % 5 > 0),
            })
        });
        let options = Options {
            bias: Some(bias),
            slopes: vec![0.5, 0.25, 0.1, 0.0, -0.3, 3.0],
            keep: Some(keep),
            ..Options::new()
        };
        let heads = guarded(&mut rng, "heads", [6, tokens, 4, 4], |out, logarithms, workspace| {
            let (q, k, v) = (queries.view(), keys.view(), values.view());
            options.attention(backend).run_with_log_sum_exp(q, k, v, out, logarithms, workspace)
        });
        for (head, got) in heads.iter().enumerate() {
            let want = by_every_path(backend, &options.of_head(head), [&q, &k, &v]);
            assert_same(&format!("head {head}"), got, &want);
        }
        assert!(heads[2].0.data.iter().all(|x| x.to_bits() == 0));
        let unequal = heads[0].0.data.iter().zip(&heads[1].0.data).any(|(a, b)| a != b);
        assert!(unequal, "each head has options of its own");
    }
}
