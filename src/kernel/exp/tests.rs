//! `e^x` of every f32, compared with `f64`.

extern crate std;

use std::{println, vec, vec::Vec};

use super::{MAGIC, Shift, WEIGHT_BIAS, bias};
use crate::{
    dispatch::Backend,
    kernel::{Kernel, Name, exhaustive},
    simd::Vector,
};

/// Writes the weight of `x[i]` under the shift of the maximum `m[i]`, and `N`, which the shift subtracts from
/// the exponent.
struct Weights<'a> {
    x: &'a [f32],
    m: &'a [f32],
    weights: &'a mut [f32],
    n: &'a mut [f32],
}

impl Kernel for Weights<'_> {
    type Output = ();

    const NAME: Name = Name::OfTests;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let (x, m) = (self.x.as_chunks::<L>().0, self.m.as_chunks::<L>().0);
        let outs = self.weights.as_chunks_mut::<L>().0.iter_mut().zip(self.n.as_chunks_mut().0);
        for ((x, m), (weights, n)) in x.iter().zip(m).zip(outs) {
            let shift: Shift<V> = Shift::new(token, V::load(token, m));
            shift.weight(token, V::load(token, x)).store(weights);
            (V::splat(token, MAGIC + bias(false, V::FMA)) - shift.magic).store(n);
        }
    }
}

/// The weights of `x` under the maxima `m`, and the `N` of each.
fn weights(backend: Backend, x: &[f32], m: &[f32]) -> (Vec<f32>, Vec<i32>) {
    let (mut weights, mut n) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    assert_eq!(x.len() % 16, 0, "whole vectors");
    backend.run(Weights { x, m, weights: &mut weights, n: &mut n });
    (weights, n.into_iter().map(|n| n as i32).collect())
}

/// `2^power`.
fn two_to_the(power: i32) -> f64 {
    f64::from_bits(((1023 + power) as u64) << 52)
}

/// The worst error in ULP of the weights of `x`, each with `x` itself as the maximum.
fn worst_error(backend: Backend, x: &[f32], truths: &[f64]) -> f64 {
    let (weights, n) = weights(backend, x, x);
    let errors = weights.into_iter().zip(n).zip(truths).map(|((weight, n), truth)| {
        exhaustive::ulps(weight * two_to_the(-63) as f32, truth * two_to_the(-n))
    });
    errors.fold(0.0, f64::max)
}

/// Checks one in `step` of the f32 between −256 and 256, in both families. Below 2⁻²⁵ `e^x` is 1 within half
/// an ULP.
fn check(step: u32) {
    let [tiny, end] = [f32::from_bits(102 << 23), 256.0].map(f32::to_bits);
    let negated = |x: &[f32]| x.iter().map(|x| -x).collect::<Vec<f32>>();
    let above = exhaustive::worst_of([tiny, end, step], f64::exp, worst_error);
    let below = exhaustive::worst_of(
        [tiny, end, step],
        |x| (-x).exp(),
        |backend, x, truths| worst_error(backend, &negated(x), truths),
    );
    for ((backend, above), (_, below)) in above.into_iter().zip(below) {
        let worst = above.max(below);
        println!("{}: {worst:.4} ULP at worst", backend.name());
        assert!(worst <= 1.0, "{}: {worst} ULP", backend.name());
        assert!(worst > 0.85, "the errors of a whole family are not this small");
    }
    for backend in Backend::available() {
        let x: Vec<f32> = (0..tiny).step_by(61).map(f32::from_bits).collect();
        let x = &x[..x.len() / 16 * 16];
        for x in [x, &negated(x)] {
            assert!(weights(backend, x, x).0.iter().all(|&weight| weight == WEIGHT_BIAS));
        }
    }
}

#[test]
fn e_to_the_x_is_within_one_ulp() {
    check(61);
}

#[test]
#[ignore = "takes ten seconds; .ci/long runs it"]
fn e_to_the_x_is_within_one_ulp_for_every_f32() {
    check(1);
}

/// A shift of the exponent rounds nothing: the weight of `x` under any maximum is its weight under the
/// maximum `x`, times a power of two.
#[test]
fn the_shift_is_exact() {
    for backend in Backend::available() {
        for m in (-256..=256).map(|m| m as f32 * 0.997) {
            let x: Vec<f32> = (0..1200).map(|i| m - i as f32 * 0.07).collect();
            let (shifted, n) = weights(backend, &x, &vec![m; x.len()]);
            let (alone, n_alone) = weights(backend, &x, &x);
            for i in 0..x.len() {
                let power = n_alone[i] - n[i];
                if x[i] >= -256.0 && power > -188 {
                    let expected = f64::from(alone[i]) * two_to_the(power);
                    assert_eq!(f64::from(shifted[i]), expected, "{} under {m}", x[i]);
                }
            }
        }
    }
}

/// A weight of 2⁻¹⁹⁰ of the largest or less is exactly +0, and NaN stays NaN.
#[test]
fn far_below_the_maximum_weights_are_zero() {
    let far = [-132.0, -150.0, -1.0e4, -1.0e30, f32::MIN, f32::NEG_INFINITY, f32::NAN, -200.0];
    for backend in Backend::available() {
        for m in [0.0, 100.0, -100.0, 256.0, 300.0, 1.0e30, f32::MIN] {
            let x: [f32; 16] =
                core::array::from_fn(|i| far[i % 8] + if m > -1.0e38 { m } else { 0.0 });
            for (x, weight) in x.into_iter().zip(weights(backend, &x, &[m; 16]).0) {
                if x.is_nan() {
                    assert!(weight.is_nan());
                } else if x < m - 131.5 || x == f32::NEG_INFINITY {
                    assert_eq!(weight.to_bits(), 0, "{x} under {m}");
                }
            }
        }
    }
}

/// In the FMA family every weight is +0 or normal; with `e^r` instead of 2 · `e^r` some would be subnormal.
#[test]
fn no_weight_is_subnormal() {
    for backend in Backend::available().filter(|b| b.family() == crate::dispatch::Family::Fma) {
        for m in [0.0, 0.3, -97.0, 255.0] {
            let x: Vec<f32> = (0..1 << 14).map(|i| m - 128.0 - i as f32 / 2048.0).collect();
            let (weights, _) = weights(backend, &x, &vec![m; x.len()]);
            assert!(
                weights.iter().all(|w| *w == 0.0 || w.is_normal()),
                "{} under {m}",
                backend.name()
            );
            assert!(weights.contains(&0.0) && weights.iter().any(|w| *w > 0.0));
        }
    }
}

/// A maximum beyond ±256 is subtracted; the difference is exact where the weight is not 0.
#[test]
fn a_large_maximum_is_subtracted() {
    for backend in Backend::available() {
        for m in [256.1, 1000.0, -300.0, 1.0e6, -1.0e6] {
            for below in [0.0, 0.5, 1.0, 10.0, 50.0, 87.0] {
                let x: f32 = m - below;
                let (weight, n) = weights(backend, &[x; 16], &[m; 16]);
                let truth = (f64::from(x) - f64::from(m)).exp();
                let got = f64::from(weight[0]) * two_to_the(-63);
                assert!((got - truth).abs() <= truth * two_to_the(-23), "{x} under {m}");
                assert_eq!(n[0], 0);
            }
        }
    }
}
