//! In which order sums are formed: the one page that defines it.
//!
//! Inside a family (FMA: a multiply-add rounds once; non-FMA: after the
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
//! # Attention: blocks of keys
//!
//! Scores as above, then `cap * tanh(s / cap)`, then `s + bias`, then −∞ where masked. Keys come
//! in blocks of [`KEY_BLOCK`](super::mask::KEY_BLOCK), counted from absolute key 0. For each
//! block, from the first on, of which the query sees a key:
//!
//! * `m` becomes the largest score so far, and gives a whole `N` ([`exp`](super::exp)); `f` is
//!   2^(N before − N), or 0 for the first block; a weight is `e^(s − N · ln 2)`;
//! * the weights' sum `b`: key `i` of the block belongs to partial sum `i mod 4`, 0 at first;
//!   then `b = (p0 + p2) + (p1 + p3)`, and `sum = mul_add(sum, f, b)`;
//! * an output's sum `c`: one chain `c = mul_add(weight, value, c)` over the block, 0 at first; then
//!   `acc = mul_add(acc, f, c)`.
//!
//! At last `out = mul_add(acc, 1 / sum, +0)`. A masked key adds nothing anywhere: the +0 of
//! its weight changes at most the sign of a zero, which the last step takes away. The sink is
//! the first `m`, and its weight the first `sum`.
//!
//! The log-sum-exp is `base + ln(sum · 2^N)`, the whole `N` added to the exponent of the sum; `base`
//! is 0, or where it was taken off, the largest score. [`ln`](super::ln) and [`tanh`](super::tanh)
//! have one text for all lanes.
//!
//! Two states [merged](super::merge): `out = mul_add(b, v / (w + v), a * (w / (w + v)))`.
//!
//! # Lanes along: partial sums and a tree
//!
//! Where lanes run along the sum itself, element `i` belongs to partial sum
//! `i mod P`, and each partial sum, 0 at first, adds its elements in their order. The
//! last round of `P` is filled up with zeros (which shows only where a partial sum is −0):
//!
//! | sum | `P` FMA | `P` non-FMA |
//! | --- | --- | --- |
//! | `dot` | 64 | 4 |
//! | the weights of a slice or row, [compensated](super::softmax) | 16 | 4 |
//!
//! The weights are added in pairs, the first and second of a partial sum, the third and fourth, and
//! so on; where one is missing it is 0. With the sum in `a`, biased, and what additions
//! to it lose in `e`:
//!
//! * non-FMA, for each pair: `u = w0 + w1`, `t = a + u`, `e = e + (u − (t − a))`, `a = t`;
//! * FMA, for each two pairs: `u = w0 + w1`, `v = w2 + w3`, `t = a + u`, `s = t + v`,
//!   `e = e + ((u − (t − a)) + (v − (s − t)))`, `a = s`.
//!
//! Then the partial sums are folded in half until one is left:
//! `p[i] = p[i] + p[i + P / 2]` for `i < P / 2`, and so on with `P / 2`.
//!
//! A **group** of 16 partial sums is one vector of AVX-512, two of AVX2, four of NEON; one of 4
//! is one vector of `portable`. FMA, `dot` has [`DOT_GROUPS`] of them, and all other sums one.
//! `dot` is bound by its two loads a multiply-add: 64 sums hide the latency of the FMA
//! multiply-add (4 cycles) on a core that loads two vectors of 512 bits a cycle. Non-FMA
//! there are as many as a microcontroller wants: a vector of the Cortex-M55, whose
//! additions are as slow as its loads, and on a core without vectors registers that no call has
//! to save and the least code (8 sums: 400 bytes of flash in place of 270).

use crate::simd::{Vector, array, each};

/// How many groups of partial sums `dot` has in the FMA family.
pub(crate) const DOT_GROUPS: usize = 4;

/// Adds groups of partial sums into one.
#[inline(always)]
pub(crate) fn groups<const L: usize, const G: usize, const N: usize, V: Vector<L>>(
    groups: [[V; G]; N],
) -> [V; G] {
    halve(
        groups,
        #[inline(always)]
        |a, b| array!(|g| a[g] + b[g]),
    )
}

/// Folds a group of partial sums into one.
#[inline(always)]
pub(crate) fn sum<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    group: [V; G],
) -> f32 {
    const { assert!(G * L == if V::FMA { 16 } else { 4 }) };
    halve(
        group,
        #[inline(always)]
        |a, b| a + b,
    )
    .sum(token)
}

/// Folds maxima into one; their order shows nowhere.
#[inline(always)]
pub(crate) fn maximum<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    group: [V; G],
) -> f32 {
    halve(group, V::max).largest(token)
}

/// Joins each of the lower half with the one of the upper half at its place, until one
/// is left.
#[inline(always)]
pub(crate) fn halve<const N: usize, T: Copy>(mut parts: [T; N], join: impl Fn(T, T) -> T) -> T {
    each::<4>(
        #[inline(always)]
        |level| {
            let half = N >> (level + 1);
            each::<N>(
                #[inline(always)]
                |i| {
                    if i < half {
                        parts[i] = join(parts[i], parts[i + half]);
                    }
                },
            );
        },
    );
    parts[0]
}
