//! In which order sums are formed: the one page that defines it.
//!
//! Inside a family (fused: a multiply-add rounds once; unfused: after the
//! multiplication and after the addition) every back end follows this page, so
//! that they agree in every bit. `tests/common/reference.rs` is this page in plain scalar
//! code.
//!
//! # Lanes across: one chain
//!
//! Where lanes are independent results the order is the plain one, whatever the
//! number of lanes:
//!
//! * a score: `s = 0`, then `s = mul_add(key[i], scale * query[i], s)` for
//!   `i = 0, 1, …`; the query is multiplied by the scale first, rounded once;
//! * a projection: `s = 0`, then `s = mul_add(x[i], w[i], s)` for `i = 0, 1, …`,
//!   at last `s + bias`;
//! * an output: `s = 0`, then `s = mul_add(weight[key], value[key], s)` for
//!   `key = 0, 1, …`;
//! * the sum of a column of weights: one [compensated](super::softmax) sum, key
//!   for key.
//!
//! # Lanes along: partial sums and a tree
//!
//! Where lanes run along the sum itself, element `i` belongs to partial sum
//! `i mod P`, and each partial sum, 0 at first, adds its elements in their order. The
//! last round of `P` is filled up with zeros (which shows only where a partial sum is −0):
//!
//! | sum | `P` fused | `P` unfused |
//! | --- | --- | --- |
//! | `dot` | 64 | 16 |
//! | the weights of a slice or row, [compensated](super::softmax) | 16 | 4 |
//!
//! The weights are added in pairs, the first and second of a partial sum, the third and fourth, and
//! so on; where one is missing it is 0. With the sum in `a`, biased, and what additions
//! to it lose in `e`:
//!
//! * unfused, for each pair: `u = w0 + w1`, `t = a + u`, `e = e + (u − (t − a))`, `a = t`;
//! * fused, for each two pairs: `u = w0 + w1`, `v = w2 + w3`, `t = a + u`, `s = t + v`,
//!   `e = e + ((u − (t − a)) + (v − (s − t)))`, `a = s`.
//!
//! Then the partial sums are folded in half until one is left:
//! `p[i] = p[i] + p[i + P / 2]` for `i < P / 2`, and so on with `P / 2`.
//!
//! The weights have one **group** of partial sums, `dot` has [`DOT_GROUPS`]. A
//! group of 16 is one vector of AVX-512, two of AVX2, four of NEON. `dot` is bound by
//! its two loads a multiply-add: 64 sums hide the latency of the fused
//! multiply-add (4 cycles) on a core that loads two vectors of 512 bits a cycle. The unfused
//! family has fewer, so that they stay in the registers of a microcontroller.

use crate::simd::Vector;

/// How many groups of partial sums `dot` has.
pub(crate) const DOT_GROUPS: usize = 4;

/// Folds a group of partial sums into one, which every lane gets.
#[inline(always)]
pub(crate) fn sum<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    group: [V; G],
) -> V {
    const { assert!(G * L == if V::FUSED { 16 } else { 4 }) };
    fold(
        token,
        group,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// Folds maxima into one, which every lane gets; their order shows
/// nowhere.
#[inline(always)]
pub(crate) fn maximum<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    group: [V; G],
) -> V {
    fold(token, group, V::max)
}

#[inline(always)]
fn fold<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    mut group: [V; G],
    f: impl Fn(V, V) -> V,
) -> V {
    let mut half = G / 2;
    while half > 0 {
        for i in 0..half {
            group[i] = f(group[i], group[i + half]);
        }
        half /= 2;
    }
    group[0].fold(token, f)
}
