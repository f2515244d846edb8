//! `e^x` as a power of two times a polynomial, and softmax weights, whose shift is added to that power.
//!
//! ```text
//! n = round(x · log2 e)           x = n · ln 2 + r,  |r| <= ln 2 / 2
//! p = e^r                         a polynomial of degree 6
//! e^x = p · 2^n
//! ```
//!
//! 1. Adding and subtracting 1.5 · 2²³ rounds to the whole number `n`, because floats of that size are whole
//!    numbers. The lowest bits of the sum `t` hold `n`; one shift turns them into an exponent
//!    ([`Vector::low_bits_to_exponent`]).
//! 2. `r = (x − n · high) − n · low`: [`ln2`] has two parts, the upper one short enough for its product with
//!    `n` to be exact.
//! 3. The coefficients minimise the largest error in ULP over `[−ln 2 / 2, ln 2 / 2]`, with the two lowest
//!    held at 1. In the FMA family Horner's rule has the smallest error (0.891 ULP; the other form 1.005). In
//!    the non-FMA family `1 + (r + r² · q)` has (0.989 ULP; Horner's rule 1.167). Hence each family has its
//!    own last two steps. `e_to_the_x_is_within_one_ulp_for_every_f32` tests that.
//!
//! # The weights of a softmax
//!
//! `e^(x − m)` would round `x − m`, which costs up to 40 ULP. Instead a whole number `N` near `m · log2 e` is
//! computed from the maximum `m`, and a weight is `p · 2^(n − N)`. `N` is part of the constant that rounds to
//! `n`, `magic = 1.5 · 2²³ + (BIAS − N)`, so that the lowest bits of `t` are the shifted exponent at once.
//! The shift rounds nothing, and keeps every sum and ratio of weights.
//!
//! 1. `N` is even, so that ties of the rounding to `n` do not depend on `N`.
//! 2. The weights carry a factor of 2⁶³ ([`WEIGHT_BIAS`]), which keeps all weights that
//!    matter in the normal range, and the sum below 2¹²⁸ for any length.
//! 3. `x` is raised to `lowest`, whose exponent field is 0 and whose weight is therefore +0. Such weights are
//!    at most 2⁻¹⁸⁹ of the largest weight (FMA: 2⁻¹⁸⁸). `lowest` is a quarter of ln 2 above the multiple of
//!    ln 2 that belongs to this field, so that no rounding mode yields the field −1, whose bits are those of
//!    −∞. A NaN stays NaN.
//! 4. Where `|m| > 256`, `n` might leave the range in which its product with the upper part of ln 2 is exact.
//!    There `m` is the `base`, which is subtracted first; this is exact where the weight is not 0, and `N` is
//!    0.
//!
//! # Attention
//!
//! An online softmax ([attention](super::attention), [merge](super::merge)) uses `ONLINE` shifts: a maximum
//! is subtracted only beyond ±2²⁰, [`ln2`] is split accordingly, and the weights carry no factor. So the
//! rescale is an exact power of two for a wider range of maxima.

use crate::simd::{Vector, array};

pub(super) mod overlap;
#[cfg(test)]
mod tests;

/// The largest magnitude of a maximum that is not subtracted.
const fn limit(online: bool) -> f32 {
    if online { 1_048_576.0 } else { 256.0 }
}

/// log2 e.
const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);
/// ln 2 in two parts, whose sum is exact to 2⁻⁴⁵ or better.
///
/// The upper part has 15 bits, so that its product with `n` is exact below 512. In an online softmax it has
/// all 24 bits in the FMA family, which never rounds that product, and 12 bits in the non-FMA family, exact
/// below 4096.
pub(super) const fn ln2(online: bool, fma: bool) -> [f32; 2] {
    let [high, low] = match (online, fma) {
        (false, _) => [0x3f31_7200, 0x35bf_be8e],
        (true, true) => [0x3f31_7218, 0xb102_e308],
        (true, false) => [0x3f31_7000, 0x3805_fdf4],
    };
    [f32::from_bits(high), f32::from_bits(low)]
}

/// ln 2, rounded.
const LN2: f32 = core::f32::consts::LN_2;
/// 1.5 · 2²³: the lowest bits of its sum with a float below 2²² are the nearest whole number.
const MAGIC: f32 = 12_582_912.0;

/// The coefficients of r², …, r⁶; those of 1 and r are 1.
const C2: f32 = f32::from_bits(0x3eff_fffe);
const C3: f32 = f32::from_bits(0x3e2a_aa46);
const C4: f32 = f32::from_bits(0x3d2a_ac2c);
const C5: f32 = f32::from_bits(0x3c09_1ef0);
const C6: f32 = f32::from_bits(0x3ab5_63a7);

/// The factor that weights carry: 2⁶³.
pub(crate) const WEIGHT_BIAS: f32 = f32::from_bits((127 + 63) << 23);

/// The exponent field of the factor that weights carry, [`WEIGHT_BIAS`] or 1 in an online softmax, minus the
/// exponent of [`poly_scale`].
const fn bias(online: bool, fma: bool) -> f32 {
    let field = if online { 127.0 } else { 190.0 };
    if fma { field - 1.0 } else { field }
}

/// The polynomial returns `e^r` times this power of two, which changes no bit but the exponent's.
///
/// FMA: 2 · `e^r` is above √2, so that every exponent field but 0 makes a normal weight; a subnormal result
/// takes 150 cycles on an Intel core. Non-FMA: a factor of 2 would cost one more addition.
pub(super) const fn poly_scale(fma: bool) -> f32 {
    if fma { 2.0 } else { 1.0 }
}

/// `e^r · 2^k` of `N` vectors, for `x = n · ln 2 + r` and `t = x · log2 e + magic`. The lowest bits of `t`
/// hold `k` plus the [`bias`] of an online softmax.
#[inline(always)]
fn exps_of<const ONLINE: bool, const L: usize, const N: usize, V: Vector<L>>(
    token: V::Token,
    x: [V; N],
    t: [V; N],
    magic: V,
) -> [V; N] {
    let p = e_to_r::<ONLINE, L, N, V>(token, x, array!(|i| t[i] - magic));
    array!(|i| p[i] * t[i].low_bits_to_exponent())
}

/// `e^r · poly_scale` of `N` vectors, for `x = n · ln 2 + r`.
#[cfg_attr(not(unoptimised), inline(always))]
fn e_to_r<const ONLINE: bool, const L: usize, const N: usize, V: Vector<L>>(
    token: V::Token,
    x: [V; N],
    n: [V; N],
) -> [V; N] {
    let constant = |c| V::splat(token, c);
    let [ln2_high, ln2_low] = const { ln2(ONLINE, V::FMA) };
    let coefficient = |c: f32| constant(const { poly_scale(V::FMA) } * c);
    let one = coefficient(1.0);
    let r: [V; N] = array!(|i| n[i].mul_add(constant(-ln2_high), x[i]));
    let r: [V; N] = array!(|i| n[i].mul_add(constant(-ln2_low), r[i]));
    let q: [V; N] = array!(|i| coefficient(C6).mul_add(r[i], coefficient(C5)));
    let q: [V; N] = array!(|i| q[i].mul_add(r[i], coefficient(C4)));
    let q: [V; N] = array!(|i| q[i].mul_add(r[i], coefficient(C3)));
    let q: [V; N] = array!(|i| q[i].mul_add(r[i], coefficient(C2)));
    if V::FMA {
        let q: [V; N] = array!(|i| q[i].mul_add(r[i], one));
        array!(|i| q[i].mul_add(r[i], one))
    } else {
        array!(|i| one + (r[i] * r[i]).mul_add(q[i], r[i]))
    }
}

/// `e^x` for `x` in [−87, 88], as exact as the weights below. A NaN stays NaN.
#[inline(always)]
pub(super) fn exp<const L: usize, V: Vector<L>>(token: V::Token, x: V) -> V {
    let magic = V::splat(token, MAGIC + const { bias(true, V::FMA) });
    let t = x.mul_add(V::splat(token, LOG2_E), magic);
    let [w] = exps_of::<false, L, 1, V>(token, [x], [t], magic);
    w
}

/// The shift of a softmax for the maximum `m`, in each lane.
#[derive(Clone, Copy)]
pub(crate) struct Shift<V, const ONLINE: bool = false> {
    /// Subtracted first: `m` where it is large, 0 otherwise.
    base: V,
    /// `x` is raised to this; its weight is +0.
    lowest: V,
    /// `MAGIC + (bias − N)`.
    magic: V,
}

impl<V: Copy, const ONLINE: bool> Shift<V, ONLINE> {
    /// The shift for the finite maximum `m` in each lane. `f32::MIN` stands for −∞: under it the weight of −∞
    /// is +0, and so is the factor to any other shift.
    #[inline(always)]
    pub(crate) fn new<const L: usize>(token: V::Token, m: V) -> Self
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let zero = constant(0.0);
        let negative = constant(const { -limit(ONLINE) }).select_gt(m, m, zero);
        let base = m.select_gt(constant(const { limit(ONLINE) }), m, negative);
        Self { base, ..Self::without_base(token, m - base) }
    }

    /// The shift for a maximum `m` between −256 and 256, which is not subtracted.
    #[inline(always)]
    pub(crate) fn without_base<const L: usize>(token: V::Token, m: V) -> Self
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let half = m.mul_add(constant(LOG2_E / 2.0), constant(MAGIC)) - constant(MAGIC);
        let n = half + half - constant(const { bias(ONLINE, V::FMA) });
        let lowest = (n + constant(0.25)) * constant(LN2);
        Self { base: constant(0.0), lowest, magic: constant(MAGIC) - n }
    }

    /// `x` is raised to this; its weight is +0.
    #[inline(always)]
    pub(crate) fn lowest(self) -> V {
        self.lowest
    }

    /// This shift with another float of the same value for [`lowest`](Self::lowest).
    #[inline(always)]
    pub(crate) fn with_lowest(self, lowest: V) -> Self {
        Self { lowest, ..self }
    }

    /// The weight of `x`, times the factor that weights carry.
    #[inline(always)]
    pub(crate) fn weight<const L: usize>(self, token: V::Token, x: V) -> V
    where
        V: Vector<L>,
    {
        let [w] = self.weights(token, [x]);
        w
    }

    /// [`weight`](Self::weight) of `N` vectors.
    #[inline(always)]
    fn weights<const L: usize, const N: usize>(self, token: V::Token, x: [V; N]) -> [V; N]
    where
        V: Vector<L>,
    {
        let x: [V; N] = array!(|i| self.lowest.max(x[i] - self.base));
        let t: [V; N] = array!(|i| x[i].mul_add(V::splat(token, LOG2_E), self.magic));
        exps_of::<ONLINE, L, N, V>(token, x, t, self.magic)
    }
}

/// The shift of an online softmax.
impl<V: Copy> Shift<V, true> {
    /// The rescale: the factor that turns weights under `self` into weights under `other`, whose maximum is
    /// not smaller. It is a power of two unless a maximum was subtracted, and +0 below 2⁻¹²⁶ (FMA: 2⁻¹²⁵).
    #[inline(always)]
    pub(crate) fn factor_to<const L: usize>(self, token: V::Token, other: Self) -> V
    where
        V: Vector<L>,
    {
        let (shift, x) = Self::factor_as_weight(token, self.base_and_magic(), other);
        shift.weight(token, x)
    }

    /// The two numbers that [`factor_as_weight`](Self::factor_as_weight) and [`base_and_n`](Self::base_and_n)
    /// need.
    #[inline(always)]
    pub(crate) fn base_and_magic(self) -> [V; 2] {
        [self.base, self.magic]
    }

    /// Returns a shift and an `x` whose weight is the factor of [`factor_to`](Self::factor_to).
    #[inline(always)]
    pub(crate) fn factor_as_weight<const L: usize>(
        token: V::Token,
        [base, magic]: [V; 2],
        other: Self,
    ) -> (Self, V)
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        // The exponent field of 2^(N − N of `other`).
        let k = other.magic - magic + constant(const { bias(true, V::FMA) });
        let lowest = (constant(0.25) - k) * constant(LN2);
        (Self { base: other.base, lowest, magic: constant(MAGIC) + k }, base)
    }

    /// The shift whose floats `select` returns, of those of `a` and `b`.
    #[inline(always)]
    pub(crate) fn select(select: impl Fn(V, V) -> V, a: Self, b: Self) -> Self {
        Self {
            base: select(a.base, b.base),
            lowest: select(a.lowest, b.lowest),
            magic: select(a.magic, b.magic),
        }
    }

    /// Broadcasts the shift of lane `lane`.
    #[inline(always)]
    pub(crate) fn lane<const L: usize>(self, token: V::Token, lane: usize) -> Self
    where
        V: Vector<L>,
    {
        let splat = |x: V| V::splat(token, x.to_array().get(lane).copied().unwrap_or(0.0));
        Self { base: splat(self.base), lowest: splat(self.lowest), magic: splat(self.magic) }
    }

    /// Returns `base` and `n`: the logarithm of the weight of `x` is `x − base − n · ln 2`.
    #[inline(always)]
    pub(crate) fn base_and_n<const L: usize>(token: V::Token, [base, magic]: [V; 2]) -> [V; 2]
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        [base, constant(MAGIC) - magic + constant(const { bias(true, V::FMA) })]
    }
}
