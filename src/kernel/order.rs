//! The order of summation. This page defines it.
//!
//! There are two families. In the FMA family a multiply-add rounds once; in the non-FMA family it rounds
//! after the multiplication and after the addition. Every back end of a family follows this page, so that all
//! of them return the same bits. `tests/common/reference.rs` is this page in plain scalar code.
//!
//! Elements of 16 and 8 bits are widened first, which is exact: they change no order.
//!
//! # One result per lane: one chain
//!
//! Where each lane holds an independent result, its terms are added one after another, whatever the number of
//! lanes:
//!
//! * a score: `s = 0`, then `s = mul_add(key[i], scale * query[i], s)` for `i = 0, 1, …`; the product
//!   `scale * query[i]` is rounded first;
//! * a projection: `s = 0`, then `s = mul_add(x[i], w[i], s)` for `i = 0, 1, …`, and finally `s + bias`; with weights of
//!   `I8`: `s = s * scale`, then `s + bias`;
//! * an output of `weighted_sum`: `s = 0`, then `s = s + c` for each block of [`KEY_BLOCK`](super::mask::KEY_BLOCK)
//!   keys, with `c = 0` and then `c = mul_add(weight[key], value[key], c)` for each `key` of the block;
//! * a rotated pair: `mul_add(a, cos, −(b * sin))` and `mul_add(b, cos, a * sin)`; the products `b * sin` and `a * sin`
//!   are rounded first;
//! * the sum of a column of weights: one [compensated](super::softmax) sum, key by key.
//!
//! # Attention: blocks and spans of keys
//!
//! A score is the chain above, times its scale if the key is of `I8`, then `cap * tanh(s / cap)`, then `s + bias`, then
//! `mul_add(distance, -slope, s)` with the distance rounded to a float, then −∞ where it is masked. Keys
//! are split into spans of [`SPAN`](super::mask::SPAN) and these into blocks of
//! [`KEY_BLOCK`](super::mask::KEY_BLOCK), counted from absolute key 0. Each span has a state of its own: the
//! largest score `m`, its whole number `N`, `sum` and `acc`. It begins with `m = −∞` and sums of 0. For each
//! block of the span with at least one key that the query sees, in ascending order:
//!
//! * `m` is the largest score so far; a whole number `N` is computed from it ([`exp`](super::exp)). `f` is
//!   2^(previous N − N), or 0 for the first block; a weight is `e^(s − N · ln 2)`;
//! * `b` is the sum of the block's weights: key `i` of the block belongs to partial sum `i mod 4`, which
//!   starts at 0; then `b = (p0 + p2) + (p1 + p3)`, and `sum = mul_add(sum, f, b)`;
//! * `c` is an output's sum over the block: one chain `c = mul_add(weight, value, c)`, which starts at 0;
//!   then `acc = mul_add(acc, f, c)`. If the value is of `I8`, `weight * scale`, rounded, takes the place of `weight`
//!   here, not in `b`.
//!
//! Then the states join, in ascending order of their spans. The first becomes the total. The sink is a state
//! before all spans: its `m` is the sink, its `sum` the weight of the sink, its `acc` 0. For each later state:
//!
//! * the lesser of the state and the total is the one with the smaller `m` (with equal ones either); `f` is
//!   2^(N of the lesser − N of the larger), or 0 where the lesser has no key;
//! * `sum` and every `acc` become `mul_add(lesser, f, larger)`, and `m` and `N` those of the larger.
//!
//! `f` is a power of two except where a maximum was subtracted ([`exp`](super::exp)): there it is a rounded
//! exponential. If one `m` is +∞ the other state has `f = 0`; if both are, `f = 1`.
//!
//! Finally `out = mul_add(acc, 1 / sum, +0)`. A masked key changes no sum: the +0 of its weight changes at
//! most the sign of a zero, which the last step removes. For the same reason neither does a span without a
//! visible key.
//!
//! The log-sum-exp is `base + ln(sum · 2^N)`: `N`, a whole number, is added to the exponent of the sum.
//! `base` is the largest score where the shift subtracted it, and 0 otherwise. [`ln`](super::ln) and
//! [`tanh`](super::tanh) compute the same bits in every lane.
//!
//! [Merging](super::merge) two states: `out = mul_add(b, v / (w + v), a * (w / (w + v)))`.
//!
//! # One sum over all lanes: partial sums and a tree
//!
//! Where the lanes of a vector are terms of the same sum, element `i` belongs to partial sum `i mod P`. Each
//! partial sum starts at 0 and adds its elements in ascending order. The last round of `P` elements is filled
//! up with zeros (which changes a bit only where a partial sum is −0):
//!
//! | sum | `P` FMA | `P` non-FMA |
//! | --- | --- | --- |
//! | `dot` | 64 | 4 |
//! | the weights of a slice or row, [compensated](super::softmax) | 16 | 4 |
//!
//! A partial sum adds its weights in pairs: its first and second, its third and fourth, and so on; a missing
//! weight is 0. `a` holds the sum plus a bias, `e` what the additions to `a` lose:
//!
//! * non-FMA, for each pair: `u = w0 + w1`, `t = a + u`, `e = e + (u − (t − a))`, `a = t`;
//! * FMA, for each two pairs: `u = w0 + w1`, `v = w2 + w3`, `t = a + u`, `s = t + v`,
//!   `e = e + ((u − (t − a)) + (v − (s − t)))`, `a = s`.
//!
//! Then the partial sums are folded in half until one is left: `p[i] = p[i] + p[i + P / 2]` for `i < P / 2`,
//! then the same with `P / 2` of them.
//!
//! # Groups
//!
//! A **group** is 16 partial sums in the FMA family: one vector of AVX-512, two of AVX2, four of NEON. It is
//! 4 partial sums in the non-FMA family: one vector of `portable`. `dot` has [`DOT_GROUPS`] groups in the FMA
//! family; all other sums have one.
//!
//! * FMA: `dot` is bound by its two loads per multiply-add. 64 partial sums hide the latency of a
//!   multiply-add (4 cycles) on a core that loads two vectors of 512 bits per cycle.
//! * Non-FMA: 4 partial sums suit a microcontroller. They are one vector of a Cortex-M55, whose additions are
//!   as slow as its loads. On a core without vectors they fit in the registers that no call has to save, in
//!   the least code (8 partial sums: 400 bytes of flash instead of 270).

use crate::simd::{Vector, array, each};

/// The number of groups of partial sums of `dot` in the FMA family.
pub(crate) const DOT_GROUPS: usize = 4;

/// Adds groups of partial sums up to one group.
#[inline(always)]
pub(crate) fn groups<const L: usize, const G: usize, const N: usize, V: Vector<L>>(
    groups: [[V; G]; N],
) -> [V; G] {
    fold_in_half(
        groups,
        #[inline(always)]
        |a, b| array!(|g| a[g] + b[g]),
    )
}

/// The sum of a group of partial sums.
#[inline(always)]
pub(crate) fn sum<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    group: [V; G],
) -> f32 {
    const { assert!(G * L == if V::FMA { 16 } else { 4 }) };
    fold_in_half(
        group,
        #[inline(always)]
        |a, b| a + b,
    )
    .sum(token)
}

/// The largest of a group of maxima; the order does not change the result.
#[inline(always)]
pub(crate) fn maximum<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    group: [V; G],
) -> f32 {
    fold_in_half(group, V::max).largest(token)
}

/// Folds in half: joins each element of the lower half with its partner in the upper half, until one is left.
#[inline(always)]
pub(crate) fn fold_in_half<const N: usize, T: Copy>(
    mut parts: [T; N],
    join: impl Fn(T, T) -> T,
) -> T {
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
