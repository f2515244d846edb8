//! `tanh x` of every f32 on every back end, compared with `f64`.

extern crate std;

use std::{vec, vec::Vec};

use super::tanh;
use crate::{
    dispatch::Backend,
    kernel::{Kernel, Name, exhaustive},
    simd::Vector,
};

struct Tanh<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Tanh<'_> {
    type Output = ();

    const NAME: Name = Name::OfTests;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let outs = self.out.as_chunks_mut::<L>().0.iter_mut();
        for (x, out) in self.x.as_chunks::<L>().0.iter().zip(outs) {
            tanh(token, V::load(token, x)).store(out);
        }
    }
}

fn run(backend: Backend, x: &[f32]) -> Vec<f32> {
    assert_eq!(x.len() % 16, 0, "whole vectors");
    let mut out = vec![0.0; x.len()];
    backend.run(Tanh { x, out: &mut out });
    out
}

/// `tanh x` for `x >= 0`, with a relative error of at most 2⁻⁴⁵.
fn truth(x: f64) -> f64 {
    if x > 20.0 {
        1.0
    } else if x < 1.0 / 64.0 {
        let square = x * x;
        x * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 - square * (17.0 / 315.0))))
    } else {
        1.0 - 2.0 / ((2.0 * x).exp() + 1.0)
    }
}

/// Checks the bound for the floats with the bits `from`, `from + step`, … below `to`.
fn check(range: [u32; 3]) {
    let least = if range == MIDDLE { 1.0 } else { 0.0 };
    exhaustive::assert_within_two_ulp(range, run, truth, least);
}

/// From 2⁻¹³, below which `1 + x² · P(x²)` rounds to 1, to 10, to which larger `x` are clamped.
const MIDDLE: [u32; 3] = [114 << 23, 10.0f32.to_bits(), 61];
const END: u32 = f32::INFINITY.to_bits() + 1;

/// One in 61 f32 of the middle range, and one in 509 of the others, whose results are `x` or 1.
const RANGES: [[u32; 3]; 3] = [[0, MIDDLE[0], 509], MIDDLE, [MIDDLE[1], END, 509]];

#[test]
fn tanh_is_within_two_ulp() {
    for range in RANGES {
        check(range);
        exhaustive::assert_alike(range, run, |y| -y);
    }
}

#[test]
#[ignore = "takes a minute; .ci/long runs it"]
fn tanh_is_within_two_ulp_for_every_f32() {
    check([0, END, 1]);
    let [from, to, _] = MIDDLE;
    for range in [[0, from, 61], [from, to, 1], [to, END, 61]] {
        exhaustive::assert_alike(range, run, |y| -y);
    }
}

/// NaN returns NaN. (`tanh_is_within_two_ulp` tests zeros and subnormals.)
#[test]
fn nan_stays() {
    for backend in Backend::available() {
        for bits in [0x7f80_0001, 0x7fc0_0000, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff] {
            assert!(run(backend, &[f32::from_bits(bits); 16]).iter().all(|y| y.is_nan()));
        }
    }
}
