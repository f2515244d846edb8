//! The dot product of two slices.
//!
//! ```text
//! p[i mod P] = mul_add(a[i], b[i], p[i mod P])     for i = 0, 1, …
//! fold p
//! ```
//!
//! `P` partial sums keep as many multiply-adds in flight: see [`order`].

use super::{
    Kernel,
    order::{self, DOT_GROUPS},
};
use crate::simd::{Vector, array};

/// `a · b`; the slices are of one length.
pub(crate) struct Dot<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) -> f32 {
        let zero = V::splat(token, 0.0);
        let mut sums = [[zero; G]; DOT_GROUPS];
        let (a, b) =
            (self.a.chunks_exact(DOT_GROUPS * G * L), self.b.chunks_exact(DOT_GROUPS * G * L));
        let (a_rest, b_rest) = (a.remainder(), b.remainder());
        for (a, b) in a.zip(b) {
            let ((a, _), (b, _)) = (a.as_chunks::<L>(), b.as_chunks::<L>());
            for group in 0..DOT_GROUPS {
                for g in 0..G {
                    if let (Some(a), Some(b)) = (a.get(group * G + g), b.get(group * G + g)) {
                        let (a, b) = (V::load(token, a), V::load(token, b));
                        sums[group][g] = a.mul_add(b, sums[group][g]);
                    }
                }
            }
        }
        if !a_rest.is_empty() {
            for group in 0..DOT_GROUPS {
                for g in 0..G {
                    let a: V = rest(token, a_rest, (group * G + g) * L);
                    let b: V = rest(token, b_rest, (group * G + g) * L);
                    sums[group][g] = a.mul_add(b, sums[group][g]);
                }
            }
        }
        let [first, second, third, fourth] = sums;
        let halves = [add(first, third), add(second, fourth)];
        order::sum(token, add(halves[0], halves[1])).first()
    }
}

/// What `floats` has from `begin` on, filled up with zeros.
///
/// A masked load of nothing costs 100 cycles where its address is not mapped.
#[inline(always)]
fn rest<const L: usize, V: Vector<L>>(token: V::Token, floats: &[f32], begin: usize) -> V {
    match floats.get(begin..) {
        Some(floats) if !floats.is_empty() => V::load_partial(token, floats, 0.0),
        _ => V::splat(token, 0.0),
    }
}

#[inline(always)]
fn add<const L: usize, const G: usize, V: Vector<L>>(a: [V; G], b: [V; G]) -> [V; G] {
    array!(|i| a[i] + b[i])
}
