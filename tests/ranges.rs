//! The conditions of the error bounds, from "How exact" in the crate docs: results at the limits and beyond;
//! on every back end.

use crate::common::cases::Rng;
use sdpa::{Attention, Backend, MatrixMut, MatrixRef};

suite! {
    one_visible_key_gives_its_value,
    values_up_to_half_of_the_largest_sum,
    four_values_of_a_larger_sum,
    a_query_times_the_scale,
    products_of_a_larger_sum,
    merge_of_large_log_sum_exps,
}

/// Returns the output and log-sum-exp of one query over keys and values of one column.
fn run(options: Attention, query: f32, keys: &[f32], values: &[f32]) -> (f32, f32) {
    let column = |data| MatrixRef::new(data, keys.len(), 1).unwrap();
    let (mut out, mut log_sum_exp) = ([0.0], [0.0]);
    let mut workspace = [0.0; Attention::workspace(1, 1)];
    options
        .run_with_log_sum_exp(
            MatrixRef::new(&[query], 1, 1).unwrap(),
            column(keys),
            column(values),
            MatrixMut::new(&mut out, 1, 1).unwrap(),
            &mut log_sum_exp,
            &mut workspace,
        )
        .unwrap();
    (out[0], log_sum_exp[0])
}

/// Within 1 ULP: the weight is computed, and divided by itself.
fn one_visible_key_gives_its_value(backend: Backend) {
    let mut rng = Rng::new(60);
    for _ in 0..20_000 {
        let [query, key, value] = [rng.between(-30.0, 30.0), 1.0, rng.between(-4.0, 4.0)];
        let (out, _) = run(Attention::new().on(backend), query, &[key], &[value]);
        let apart = out.to_bits().abs_diff(value.to_bits());
        assert!(apart <= 1, "{out} for {value} under a score of {query}");
        let mut weight = [query];
        backend.softmax_in_place(&mut weight);
        assert!(weight[0].to_bits().abs_diff(1.0_f32.to_bits()) <= 1, "{weight:?}");
    }
}

/// 2 · Σ |value| below 2¹²⁸.
fn values_up_to_half_of_the_largest_sum(backend: Backend) {
    let mut rng = Rng::new(61);
    for keys in [1, 2, 4, 7, 64, 200] {
        let value = f32::MAX / 2.0 / keys as f32;
        for _ in 0..300 {
            let scores: Vec<f32> = (0..keys).map(|_| rng.between(-3.0, 3.0)).collect();
            let all = vec![value; keys];
            let (out, _) = run(Attention::new().on(backend).scale(1.0), 1.0, &scores, &all);
            assert!((out / value - 1.0).abs() < 1e-4, "{keys} keys of {value}: {out}");
        }
    }
}

/// Beyond 2¹²⁸ the sum may overflow before the division.
fn four_values_of_a_larger_sum(backend: Backend) {
    let (out, _) = run(Attention::new().on(backend), 0.0, &[0.0; 4], &[3e38; 4]);
    assert_eq!(out, f32::INFINITY);
}

/// |scale · query| below 2¹²⁸: the query is multiplied by the scale before the dot product.
fn a_query_times_the_scale(backend: Backend) {
    let score = |scale, query, key| {
        let (_, log_sum_exp) =
            run(Attention::new().on(backend).scale(scale), query, &[key], &[1.0]);
        log_sum_exp
    };
    assert!((score(1e7, 1e30, 1e-36) - 10.0).abs() < 1e-4);
    assert_eq!(score(1e9, 1e30, 1e-38), f32::INFINITY);
}

/// Σ |scale · query · key| below 2¹²⁸: a partial sum of the products may overflow even if the total does not.
fn products_of_a_larger_sum(backend: Backend) {
    let score = |products: &[f32; 3]| {
        let mut out = [0.0];
        let ones = [1.0; 3];
        let [query, key] = [&ones, products].map(|row| MatrixRef::new(row, 1, 3).unwrap());
        let out_view = MatrixMut::new(&mut out, 1, 1).unwrap();
        backend.scores(key, query, Some(1.0), out_view).unwrap();
        out[0]
    };
    assert!((score(&[1e38, 1e38, -1.5e38]) / 0.5e38 - 1.0).abs() < 1e-6);
    assert_eq!(score(&[3e38, 3e38, -3e38]), f32::INFINITY);
}

/// A log-sum-exp represents a number of keys only if its ULP is small: at 10⁸ it is 8, and ln 3 is lost.
fn merge_of_large_log_sum_exps(backend: Backend) {
    let merged = |score: f32| {
        let of = |keys: usize, value| {
            let options = Attention::new().on(backend);
            run(options, score, &vec![1.0; keys], &vec![value; keys])
        };
        let ((out, a), (other, b)) = (of(1, 0.0), of(3, 1.0));
        let (mut out, other, mut log_sum_exp) = ([out], [other], [a]);
        let into = MatrixMut::new(&mut out, 1, 1).unwrap();
        let from = MatrixRef::new(&other, 1, 1).unwrap();
        backend.merge(into, &mut log_sum_exp, from, &[b]).unwrap();
        out[0]
    };
    // Half an ULP of either log-sum-exp changes its weight by this relative error.
    for (score, within) in [(1.0, 1e-6), (100.0, 1e-5), (1e4, 4e-4), (1e6, 0.03)] {
        assert!((merged(score) - 0.75).abs() < within, "{} at {score}", merged(score));
    }
    assert_eq!(merged(1e8), 0.5);
}
