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
//! 2. `r = (x − n · high) − n · low` with [`ln2`] in two parts, the upper one short enough
//!    for its product with `n` to be exact.
//! 3. The coefficients were found by minimising the largest error in ULP over
//!    `[−ln 2 / 2, ln 2 / 2]` with the two lowest held at 1. FMA, Horner's
//!    rule is the best (0.891 ULP; the form below 1.005); non-FMA
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
//!    +0: 2⁻¹⁸⁹ of the largest and less, FMA 2⁻¹⁸⁸. It is a quarter of ln 2 above
//!    the least `x` of that exponent, so that no rounding mode gives −1, whose bits
//!    are those of −∞. A NaN stays one.
//! 4. Where `|m| > 256`, `n` might leave the exact range of `LN2_HIGH`: then
//!    `x − m` is taken after all, which is exact where the weight is not 0,
//!    and `N` is 0.

use crate::simd::{Vector, array};

pub(super) mod near;
#[cfg(test)]
mod tests;

/// How far from 0 a maximum may be before it is subtracted after all.
const fn limit(wide: bool) -> f32 {
    if wide { 1_048_576.0 } else { 256.0 }
}

/// log2 e.
const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);
/// ln 2 in two parts, whose sum is exact to 2⁻⁴⁵ and better. Narrow: 15 bits, so that
/// `n` times the upper part is exact below 512. Wide: FMA, all 24 bits, for the
/// product is exact anyway; non-FMA, 12 bits, exact below 4096.
pub(super) const fn ln2(wide: bool, fma: bool) -> [f32; 2] {
    let [high, low] = match (wide, fma) {
        (false, _) => [0x3f31_7200, 0x35bf_be8e],
        (true, true) => [0x3f31_7218, 0xb102_e308],
        (true, false) => [0x3f31_7000, 0x3805_fdf4],
    };
    [f32::from_bits(high), f32::from_bits(low)]
}

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

/// The exponent field of a weight's factor: [`WEIGHT_BIAS`], or 1 where wide; less what
/// [`times`] adds.
const fn bias(wide: bool, fma: bool) -> f32 {
    let field = if wide { 127.0 } else { 190.0 };
    if fma { field - 1.0 } else { field }
}

/// What the polynomial gives is `e^r` times this, which changes no other bit. Twice `e^r`, above √2, makes a
/// normal weight of every exponent but 0: a subnormal one takes 150 cycles of an Intel core. Non-FMA it would
/// be an addition more.
pub(super) const fn times(fma: bool) -> f32 {
    if fma { 2.0 } else { 1.0 }
}

/// `e^r · 2^k` for `x = n · ln 2 + r`, where `t` is `x · log2 e + magic` and
/// has `k` and the [`bias`] of wide weights in its lowest bits; several vectors side by side.
#[inline(always)]
fn exps_of<const WIDE: bool, const L: usize, const N: usize, V: Vector<L>>(
    token: V::Token,
    x: [V; N],
    t: [V; N],
    magic: V,
) -> [V; N] {
    let p = e_to_r::<WIDE, L, N, V>(token, x, array!(|i| t[i] - magic));
    array!(|i| p[i] * t[i].low_bits_to_exponent())
}

/// `e^r`, [`times`] a constant, for `x = n · ln 2 + r`, several vectors side by side.
#[inline(always)]
fn e_to_r<const WIDE: bool, const L: usize, const N: usize, V: Vector<L>>(
    token: V::Token,
    x: [V; N],
    n: [V; N],
) -> [V; N] {
    let constant = |c| V::splat(token, c);
    let [ln2_high, ln2_low] = const { ln2(WIDE, V::FMA) };
    let coefficient = |c: f32| constant(const { times(V::FMA) } * c);
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

/// `e^x` for `x` in [−87, 88], as exact as the weights below; a NaN stays one.
#[inline(always)]
pub(super) fn exp<const L: usize, V: Vector<L>>(token: V::Token, x: V) -> V {
    let magic = V::splat(token, MAGIC + const { bias(true, V::FMA) });
    let t = x.mul_add(V::splat(token, LOG2_E), magic);
    let [w] = exps_of::<false, L, 1, V>(token, [x], [t], magic);
    w
}

/// What a maximum `m` makes of the softmax's shift, in each lane.
#[derive(Clone, Copy)]
pub(crate) struct Shift<V, const WIDE: bool = false> {
    /// Taken off before all else: 0, or `m` where it is large.
    base: V,
    /// Below this the weight is +0.
    lowest: V,
    /// `MAGIC + (bias − N)`.
    magic: V,
}

impl<V: Copy, const WIDE: bool> Shift<V, WIDE> {
    /// The shift for the maximum `m` in each lane, which is finite. Under `f32::MIN`, which stands for −∞,
    /// the weight of −∞ is +0 and so is every factor to another shift.
    #[inline(always)]
    pub(crate) fn new<const L: usize>(token: V::Token, m: V) -> Self
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let zero = constant(0.0);
        let negative = constant(const { -limit(WIDE) }).select_gt(m, m, zero);
        let base = m.select_gt(constant(const { limit(WIDE) }), m, negative);
        Self { base, ..Self::near(token, m - base) }
    }

    /// The shift for a maximum `m` that is at most 256 from 0.
    #[inline(always)]
    pub(crate) fn near<const L: usize>(token: V::Token, m: V) -> Self
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let half = m.mul_add(constant(LOG2_E / 2.0), constant(MAGIC)) - constant(MAGIC);
        let n = half + half - constant(const { bias(WIDE, V::FMA) });
        let lowest = (n + constant(0.25)) * constant(LN2);
        Self { base: constant(0.0), lowest, magic: constant(MAGIC) - n }
    }

    /// Below this the weight is +0.
    #[inline(always)]
    pub(crate) fn lowest(self) -> V {
        self.lowest
    }

    /// This shift with another float of the same value for [`lowest`](Self::lowest).
    #[inline(always)]
    pub(crate) fn with_lowest(self, lowest: V) -> Self {
        Self { lowest, ..self }
    }

    /// The weight of `x`, times 2 to the power of the bias.
    #[inline(always)]
    pub(crate) fn weight<const L: usize>(self, token: V::Token, x: V) -> V
    where
        V: Vector<L>,
    {
        let [w] = self.weights(token, [x]);
        w
    }

    /// Likewise, several vectors side by side.
    #[inline(always)]
    fn weights<const L: usize, const N: usize>(self, token: V::Token, x: [V; N]) -> [V; N]
    where
        V: Vector<L>,
    {
        let x: [V; N] = array!(|i| self.lowest.max(x[i] - self.base));
        let t: [V; N] = array!(|i| x[i].mul_add(V::splat(token, LOG2_E), self.magic));
        exps_of::<WIDE, L, N, V>(token, x, t, self.magic)
    }
}

/// What an online softmax does with shifts.
impl<V: Copy> Shift<V, true> {
    /// What the weights under `self` are to be multiplied by to be weights under
    /// `other`, whose maximum is not smaller: a power of two unless a maximum was
    /// taken off, and +0 below 2⁻¹²⁶, FMA 2⁻¹²⁵.
    #[inline(always)]
    pub(crate) fn factor_to<const L: usize>(self, token: V::Token, other: Self) -> V
    where
        V: Vector<L>,
    {
        let (shift, x) = Self::to(token, self.base_and_magic(), other);
        shift.weight(token, x)
    }

    /// What is kept of a shift, for [`to`](Self::to) and [`base_and_n`](Self::base_and_n).
    #[inline(always)]
    pub(crate) fn base_and_magic(self) -> [V; 2] {
        [self.base, self.magic]
    }

    /// The factor of [`factor_to`](Self::factor_to) as a weight: its shift, and what it is the weight of.
    #[inline(always)]
    pub(crate) fn to<const L: usize>(
        token: V::Token,
        [base, magic]: [V; 2],
        other: Self,
    ) -> (Self, V)
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        // The exponent field of 2^(N − N of other).
        let k = other.magic - magic + constant(const { bias(true, V::FMA) });
        let lowest = (constant(0.25) - k) * constant(LN2);
        (Self { base: other.base, lowest, magic: constant(MAGIC) + k }, base)
    }

    /// The shift of lane `lane` in each lane.
    #[inline(always)]
    pub(crate) fn lane<const L: usize>(self, token: V::Token, lane: usize) -> Self
    where
        V: Vector<L>,
    {
        let splat = |x: V| V::splat(token, x.to_array().get(lane).copied().unwrap_or(0.0));
        Self { base: splat(self.base), lowest: splat(self.lowest), magic: splat(self.magic) }
    }

    /// The logarithm of a weight is `x − base − n · ln 2`: gives `base` and `n`.
    #[inline(always)]
    pub(crate) fn base_and_n<const L: usize>(token: V::Token, [base, magic]: [V; 2]) -> [V; 2]
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        [base, constant(MAGIC) - magic + constant(const { bias(true, V::FMA) })]
    }
}
