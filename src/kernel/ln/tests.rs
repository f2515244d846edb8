//! `ln x` and log-sum-exp, compared with `f64`.

extern crate std;

use std::{println, vec, vec::Vec};

use super::{ln as ln_of_lanes, load};
use crate::{
    dispatch::Backend,
    kernel::{Kernel, Name, exhaustive},
    simd::Vector,
};

/// `base + ln (sum · 2^n)`.
struct Logarithms<'a> {
    base: &'a [f32],
    n: &'a [f32],
    sum: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Logarithms<'_> {
    type Output = ();

    const NAME: Name = Name::OfTests;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        for (first, out) in (0..).step_by(L).zip(self.out.chunks_mut(L)) {
            let [base, n, sum]: [V; 3] =
                [self.base, self.n, self.sum].map(|floats| load(token, floats, first));
            (base + ln_of_lanes(token, sum, n)).store_partial(out);
        }
    }
}

fn log_sum_exp(backend: Backend, base: &[f32], n: &[f32], sum: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; sum.len()];
    backend.run(Logarithms { base, n, sum, out: &mut out });
    out
}

/// `ln x`: a log-sum-exp with `base` and `n` of 0.
fn ln(backend: Backend, x: &[f32]) -> Vec<f32> {
    let zeros = vec![0.0; x.len()];
    log_sum_exp(backend, &zeros, &zeros, x)
}

/// Checks the bound for the floats with the bits `from`, `from + step`, … below `to`.
fn check(range: [u32; 3]) {
    let least = if range == MIDDLE { 0.6 } else { 0.0 };
    exhaustive::assert_within_two_ulp(range, ln, f64::ln, least);
}

/// From ¼ to 4. Elsewhere the last addition has the largest error: its result is above 1, and the term added
/// to `e · ln 2` is below ½.
const MIDDLE: [u32; 3] = [0.25f32.to_bits(), 4.0f32.to_bits(), 61];
const BEGIN: u32 = f32::MIN_POSITIVE.to_bits();
const END: u32 = f32::INFINITY.to_bits() + 1;

/// One in 61 f32 of the middle range, and one in 509 of the others.
const RANGES: [[u32; 3]; 3] = [[BEGIN, MIDDLE[0], 509], MIDDLE, [MIDDLE[1], END, 509]];

#[test]
fn ln_is_within_two_ulp() {
    for range in RANGES {
        check(range);
        exhaustive::assert_alike(range, ln, |_| f32::NAN);
    }
}

#[test]
#[ignore = "takes a minute; .ci/long runs it"]
fn ln_is_within_two_ulp_for_every_f32() {
    check([BEGIN, END, 1]);
    let [from, to, _] = MIDDLE;
    for range in [[BEGIN, from, 61], [from, to, 1], [to, END, 61]] {
        exhaustive::assert_alike(range, ln, |_| f32::NAN);
    }
}

#[test]
fn ln_of_special_values() {
    let inf = f32::INFINITY;
    let cases = [
        (0.0, -inf),
        (-0.0, -inf),
        (f32::from_bits(1), -inf),
        (f32::from_bits(0x007f_ffff), -inf),
        (inf, inf),
        (1.0, 0.0),
        (-1.0, f32::NAN),
        (-f32::from_bits(1), f32::NAN),
        (-inf, f32::NAN),
        (f32::NAN, f32::NAN),
        (-f32::NAN, f32::NAN),
    ];
    for backend in Backend::available() {
        for (x, want) in cases {
            // In each lane, with another number in the others.
            for at in 0..16 {
                let lanes: [f32; 16] = core::array::from_fn(|i| if i == at { x } else { 2.0 });
                for (i, got) in ln(backend, &lanes).into_iter().enumerate() {
                    let want = if i == at { want } else { core::f32::consts::LN_2 };
                    let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                    assert!(same, "{}: ln {x:e} is {got:e}", backend.name());
                }
            }
        }
    }
}

/// `n · ln 2` and the logarithm of the sum nearly cancel, or are large: the result is as exact as for other
/// numbers.
#[test]
fn nothing_is_cancelled() {
    for backend in Backend::available() {
        let mut worst: f64 = 0.0;
        // The `N` of a shift is even.
        for power in (-1500..1500i32).step_by(2) {
            // The sum of up to 2²⁰ weights of at most 2, or far more.
            let k = power.clamp(-60, 60);
            let m: Vec<f32> = (0..48).map(|i| 0.75 + i as f32 * 0.015_7).collect();
            let sum: Vec<f32> =
                m.iter().map(|m| m * f32::from_bits(((127 + k) as u32) << 23)).collect();
            let got =
                log_sum_exp(backend, &vec![0.0; m.len()], &vec![-power as f32; m.len()], &sum);
            for (got, m) in got.into_iter().zip(m) {
                let truth = f64::from(m).ln() + f64::from(k - power) * core::f64::consts::LN_2;
                worst = worst.max(exhaustive::ulps(got, truth));
            }
        }
        println!("{}: {worst:.4} ULP at worst", backend.name());
        assert!(worst <= 2.0, "{}: {worst} ULP", backend.name());
    }
}

/// The base is added last, with one rounding.
#[test]
fn a_large_base_is_added() {
    for backend in Backend::available() {
        for (base, sum) in [(2.0e6, 3.0), (-3.0e7, 700.0), (1.0e30, 1.0), (f32::MAX, 2.0)] {
            let [got] = log_sum_exp(backend, &[base], &[0.0], &[sum])[..] else { panic!() };
            let truth = f64::from(base) + f64::from(sum).ln();
            assert!(exhaustive::ulps(got, truth) <= 0.6, "{base:e}, {sum:e}: {got:e}");
        }
        let [infinite] = log_sum_exp(backend, &[f32::INFINITY], &[0.0], &[3.0])[..] else {
            panic!()
        };
        assert_eq!(infinite, f32::INFINITY);
        let [nan] = log_sum_exp(backend, &[f32::INFINITY], &[0.0], &[f32::NAN])[..] else {
            panic!()
        };
        assert!(nan.is_nan());
    }
}
