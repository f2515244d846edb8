//! The dot product of two slices.
//!
//! ```text
//! p[i mod P] = mul_add(a[i], b[i], p[i mod P])     for i = 0, 1, …
//! fold p
//! ```
//!
//! `P` partial sums keep `P` multiply-adds in flight: see [`order`]. Each iteration of the loop reads
//! [`DOT_GROUPS`] groups of elements. In the FMA family each of them has its own group of partial sums; in
//! the non-FMA family all of them are added to the same one.

use super::{
    Kernel, Name,
    order::{self, DOT_GROUPS},
};
use crate::simd::{Vector, array, each, strip};

/// `a · b`; both slices have the same length.
pub(crate) struct Dot<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
}

impl Kernel for &Dot<'_> {
    type Output = f32;

    const NAME: Name = Name::Dot;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) -> f32 {
        if V::FMA { self.many_groups::<L, G, V>(token) } else { self.one_group::<L, G, V>(token) }
    }
}

impl Dot<'_> {
    /// With [`DOT_GROUPS`] groups of partial sums.
    #[inline(always)]
    fn many_groups<const L: usize, const G: usize, V: Vector<L>>(&self, token: V::Token) -> f32 {
        if self.a.len() <= G * L {
            return self.first_group::<L, G, V>(token);
        }
        let mut sums = [[V::splat(token, 0.0); G]; DOT_GROUPS];
        let ((a, a_tail), (b, b_tail)) = (steps(self.a), steps(self.b));
        strip::for_each_pair(
            a,
            b,
            #[inline(always)]
            |a: &Step<L, G>, b| {
                each::<DOT_GROUPS>(
                    #[inline(always)]
                    |i| add(token, &mut sums[i], &a[i], &b[i]),
                );
            },
        );
        if !a_tail.is_empty() {
            each::<DOT_GROUPS>(
                #[inline(always)]
                |i| {
                    each::<G>(
                        #[inline(always)]
                        |g| {
                            let begin = (i * G + g) * L;
                            let a: V = load_tail(token, a_tail, begin);
                            sums[i][g] = a.mul_add(load_tail(token, b_tail, begin), sums[i][g]);
                        },
                    );
                },
            );
        }
        order::sum(token, order::groups(sums))
    }

    /// At most one group of elements. The other groups are 0: adding one of them turns a sum of −0 into +0, and
    /// adding more changes nothing.
    #[inline(always)]
    fn first_group<const L: usize, const G: usize, V: Vector<L>>(&self, token: V::Token) -> f32 {
        let zero = V::splat(token, 0.0);
        let sums: [V; G] = array!(|g| {
            let a: V = load_tail(token, self.a, g * L);
            a.mul_add(load_tail(token, self.b, g * L), zero) + zero
        });
        order::sum(token, sums)
    }

    /// With one group of partial sums.
    #[inline(always)]
    fn one_group<const L: usize, const G: usize, V: Vector<L>>(&self, token: V::Token) -> f32 {
        let mut sums = [V::splat(token, 0.0); G];
        let ((a, a_tail), (b, b_tail)) = (steps(self.a), steps(self.b));
        strip::for_each_pair(
            a,
            b,
            #[inline(always)]
            |a: &Step<L, G>, b| {
                // The compiler unrolls this loop when it optimises for speed, and keeps it for size.
                for i in 0..DOT_GROUPS {
                    add(token, &mut sums, &a[i], &b[i]);
                }
            },
        );
        // One vector per iteration, in the least code: it is added to `sums[0]`, then the sums rotate by one.
        // The number of iterations is a multiple of `G`, so that each sum returns to its index.
        for i in 0..a_tail.len().div_ceil(G * L) * G {
            let a: V = load_tail(token, a_tail, i * L);
            let first = a.mul_add(load_tail(token, b_tail, i * L), sums[0]);
            sums = array!(|g| if g + 1 < G { sums[g + 1] } else { first });
        }
        order::sum(token, sums)
    }
}

/// The elements of one iteration.
type Step<const L: usize, const G: usize> = [[[f32; L]; G]; DOT_GROUPS];

/// Splits `floats` into whole [`Step`]s and a tail.
#[inline(always)]
fn steps<const L: usize, const G: usize>(floats: &[f32]) -> (&[Step<L, G>], &[f32]) {
    let steps = floats.as_chunks().0.as_chunks().0.as_chunks().0;
    (steps, floats.get(steps.len() * DOT_GROUPS * G * L..).unwrap_or(&[]))
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

/// Loads the floats from `begin` on, filled up with zeros.
///
/// A masked load of no lanes is avoided: it costs 100 cycles where its address is not mapped.
#[inline(always)]
fn load_tail<const L: usize, V: Vector<L>>(token: V::Token, floats: &[f32], begin: usize) -> V {
    match floats.get(begin..) {
        Some(floats) if !floats.is_empty() => V::load_partial(token, floats, 0.0),
        _ => V::splat(token, 0.0),
    }
}
