//! The dot product of two slices.
//!
//! ```text
//! p[i mod P] = mul_add(a[i], b[i], p[i mod P])     for i = 0, 1, …
//! fold p
//! ```
//!
//! `P` partial sums keep as many multiply-adds in flight: see [`order`]. The loop takes
//! [`DOT_GROUPS`] groups of elements a turn: FMA each of them has partial sums of its
//! own, non-FMA all go to the same.

use super::{
    Kernel,
    order::{self, DOT_GROUPS},
};
use crate::simd::{Vector, array, each, strip};

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
        if V::FMA { self.wide::<L, G, V>(token) } else { self.narrow::<L, G, V>(token) }
    }
}

impl Dot<'_> {
    /// With [`DOT_GROUPS`] groups of partial sums.
    #[inline(always)]
    fn wide<const L: usize, const G: usize, V: Vector<L>>(self, token: V::Token) -> f32 {
        let mut sums = [[V::splat(token, 0.0); G]; DOT_GROUPS];
        let ((a, a_rest), (b, b_rest)) = (turns(self.a), turns(self.b));
        strip::pairs(
            a,
            b,
            #[inline(always)]
            |a: &Turn<L, G>, b| {
                each::<DOT_GROUPS>(
                    #[inline(always)]
                    |i| add(token, &mut sums[i], &a[i], &b[i]),
                );
            },
        );
        if !a_rest.is_empty() {
            each::<DOT_GROUPS>(
                #[inline(always)]
                |i| {
                    each::<G>(
                        #[inline(always)]
                        |g| {
                            let begin = (i * G + g) * L;
                            let a: V = rest(token, a_rest, begin);
                            sums[i][g] = a.mul_add(rest(token, b_rest, begin), sums[i][g]);
                        },
                    );
                },
            );
        }
        order::sum(token, order::groups(sums))
    }

    /// With one group.
    #[inline(always)]
    fn narrow<const L: usize, const G: usize, V: Vector<L>>(self, token: V::Token) -> f32 {
        let mut sums = [V::splat(token, 0.0); G];
        let ((a, a_rest), (b, b_rest)) = (turns(self.a), turns(self.b));
        strip::pairs(
            a,
            b,
            #[inline(always)]
            |a: &Turn<L, G>, b| {
                // Written out where speed counts and a loop where size does.
                for i in 0..DOT_GROUPS {
                    add(token, &mut sums, &a[i], &b[i]);
                }
            },
        );
        // A vector at a time, which is the least code: its sum is the first one, and then
        // all move up by one.
        for i in 0..a_rest.len().div_ceil(G * L) * G {
            let a: V = rest(token, a_rest, i * L);
            let first = a.mul_add(rest(token, b_rest, i * L), sums[0]);
            sums = array!(|g| if g + 1 < G { sums[g + 1] } else { first });
        }
        order::sum(token, sums)
    }
}

/// What a turn of the loop takes.
type Turn<const L: usize, const G: usize> = [[[f32; L]; G]; DOT_GROUPS];

/// The whole turns of `floats`, and what is left.
#[inline(always)]
fn turns<const L: usize, const G: usize>(floats: &[f32]) -> (&[Turn<L, G>], &[f32]) {
    let turns = floats.as_chunks().0.as_chunks().0.as_chunks().0;
    (turns, floats.get(turns.len() * DOT_GROUPS * G * L..).unwrap_or(&[]))
}

/// Adds the products of one group of elements to one group of partial sums.
#[inline(always)]
fn add<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    sums: &mut [V; G],
    a: &[[f32; L]; G],
    b: &[[f32; L]; G],
) {
    each::<G>(
        #[inline(always)]
        |g| sums[g] = V::load(token, &a[g]).mul_add(V::load(token, &b[g]), sums[g]),
    );
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
