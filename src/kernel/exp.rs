//! `e^x` by a power of two and a polynomial, and the weights of a softmax,
//! whose shift goes into that power.
//!
//! ```text
//! n = round(x · log2 e)           x = n · ln 2 + r,  |r| <= ln 2 / 2
//! p = e^r                         a polynomial of degree 6
//! e^x = p · 2^n
//! ```
//!
//! 1. `n` is found by adding and subtracting 1.5 · 2²³, where floats are whole
//!    numbers: the sum `t` has `n` in its lowest bits, whence it goes into an
//!    exponent by one shift ([`Vector::low_bits_to_exponent`]).
//! 2. `r = (x − n · LN2_HIGH) − n · LN2_LOW`. `LN2_HIGH` has 15 significant
//!    bits, so that its product is exact for `|n| < 512`, fused or not.
//! 3. The coefficients were found by minimising the largest error in ULP over
//!    `[−ln 2 / 2, ln 2 / 2]` with the two lowest held at 1. Fused, Horner's
//!    rule is the best (0.891 ULP; the form below 1.005); unfused
//!    `1 + (r + r² · q)` is (0.989 ULP; Horner's rule 1.167). Hence two texts of the
//!    last two steps; `e_to_the_x_is_within_one_ulp` tries every f32.
//!
//! # The weights of a softmax
//!
//! `e^(x − m)` would round `x − m`, which costs up to 40 ULP. Instead `m` gives
//! a whole number `N` near `m · log2 e`, and a weight is `p · 2^(n − N)`: the
//! integer that lands in the exponent is shifted before it is formed, by
//! `magic = 1.5 · 2²³ + (BIAS − N)`. Nothing is rounded by that, and every sum and
//! ratio of weights stays the same. Then:
//!
//! 1. `N` is even, so that ties of the rounding to `n` fall alike whatever `N`.
//! 2. The weights carry a factor of 2⁶³ ([`WEIGHT_BIAS`]), which keeps all that
//!    matter in the normal range, and the sum below 2¹²⁸ for any length.
//! 3. `x` is raised to `lowest`, which gives the exponent 0 and so the weight
//!    +0: 2⁻¹⁸⁹ of the largest and less. A NaN stays one.
//! 4. Where `|m| > 256`, `n` might leave the exact range of `LN2_HIGH`: then
//!    `x − m` is taken after all, which is exact where the weight is not 0,
//!    and `N` is 0.

use crate::simd::{Vector, array};

pub(super) mod near;
#[cfg(test)]
mod tests;

/// log2 e.
const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);
/// ln 2, its upper 15 bits, and what is left.
const LN2_HIGH: f32 = f32::from_bits(0x3f31_7200);
const LN2_LOW: f32 = f32::from_bits(0x35bf_be8e);
/// ln 2, rounded.
const LN2: f32 = core::f32::consts::LN_2;
/// 1.5 · 2²³: added to a float below 2²² it leaves the nearest whole number in the lowest bits.
const MAGIC: f32 = 12_582_912.0;

/// The coefficients of r² … r⁶; those of 1 and r are 1.
const C2: f32 = f32::from_bits(0x3eff_fffe);
const C3: f32 = f32::from_bits(0x3e2a_aa46);
const C4: f32 = f32::from_bits(0x3d2a_ac2c);
const C5: f32 = f32::from_bits(0x3c09_1ef0);
const C6: f32 = f32::from_bits(0x3ab5_63a7);

/// The factor that weights carry: 2⁶³.
pub(crate) const WEIGHT_BIAS: f32 = f32::from_bits((127 + 63) << 23);

/// The exponent field of [`WEIGHT_BIAS`].
const BIAS: f32 = 190.0;

/// `e^r · 2^k` for `x = n · ln 2 + r`, where `t` is `x · log2 e + magic` and
/// has `k + 127` in its lowest bits.
#[inline(always)]
fn exp_of<const L: usize, V: Vector<L>>(token: V::Token, x: V, t: V, magic: V) -> V {
    let [p] = e_to_r(token, [x], [t - magic]);
    p * t.low_bits_to_exponent()
}

/// `e^r` for `x = n · ln 2 + r`, several vectors side by side.
#[inline(always)]
fn e_to_r<const L: usize, const N: usize, V: Vector<L>>(
    token: V::Token,
    x: [V; N],
    n: [V; N],
) -> [V; N] {
    let constant = |c| V::splat(token, c);
    let one = constant(1.0);
    let r: [V; N] = array!(|i| n[i].mul_add(constant(-LN2_HIGH), x[i]));
    let r: [V; N] = array!(|i| n[i].mul_add(constant(-LN2_LOW), r[i]));
    let q: [V; N] = array!(|i| constant(C6).mul_add(r[i], constant(C5)));
    let q: [V; N] = array!(|i| q[i].mul_add(r[i], constant(C4)));
    let q: [V; N] = array!(|i| q[i].mul_add(r[i], constant(C3)));
    let q: [V; N] = array!(|i| q[i].mul_add(r[i], constant(C2)));
    if V::FUSED {
        let q: [V; N] = array!(|i| q[i].mul_add(r[i], one));
        array!(|i| q[i].mul_add(r[i], one))
    } else {
        array!(|i| one + (r[i] * r[i]).mul_add(q[i], r[i]))
    }
}

/// What a maximum `m` makes of the softmax's shift, in each lane.
#[derive(Clone, Copy)]
pub(crate) struct Shift<V> {
    /// Taken off before all else: 0, or `m` where it is large.
    base: V,
    /// Below this the weight is +0.
    lowest: V,
    /// `MAGIC + (BIAS − N)`.
    magic: V,
}

impl<V> Shift<V> {
    /// The shift for the maximum `m` in each lane, which is neither NaN nor +∞.
    #[inline(always)]
    pub(crate) fn new<const L: usize>(token: V::Token, m: V) -> Self
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let zero = constant(0.0);
        // −∞, where every weight is +0, serves like any other.
        let m = m.select_gt(constant(f32::NEG_INFINITY), m, zero);
        let negative = constant(-256.0).select_gt(m, m, zero);
        let base = m.select_gt(constant(256.0), m, negative);
        let half = (m - base).mul_add(constant(LOG2_E / 2.0), constant(MAGIC)) - constant(MAGIC);
        let n = half + half - constant(BIAS);
        Self { base, lowest: n * constant(LN2), magic: constant(MAGIC) - n }
    }

    /// The weight of `x`, times [`WEIGHT_BIAS`].
    #[inline(always)]
    pub(crate) fn weight<const L: usize>(self, token: V::Token, x: V) -> V
    where
        V: Vector<L>,
    {
        let x = self.lowest.max(x - self.base);
        let t = x.mul_add(V::splat(token, LOG2_E), self.magic);
        exp_of(token, x, t, self.magic)
    }
}
