//! The natural logarithm, and log-sum-exp.
//!
//! ```text
//! x = m · 2^k               m in [√½, √2)
//! f = m − 1                 exact
//! s = f / (2 + f)           ln m = 2 · artanh s = f − f²/2 + s · (f²/2 + R(s²))
//! ln (x · 2^n) = (n + k) · ln 2 + ln m
//! ```
//!
//! 1. The form of `ln m` is that of fdlibm (Ng, 1993): every term but `f` is small, so that its rounding
//!    error matters little.
//! 2. `ln 2` has two parts ([`ln2`]); the product with the upper one is added last. It is exact up to
//!    |n + k| = 512.
//! 3. The factor 2^n costs nothing: `n` is added to the exponent `k`, a whole number. In a log-sum-exp near 0
//!    `n · ln 2` and `ln x` are large and of opposite sign; there is no cancellation, because they are not
//!    added.
//! 4. The coefficients of `R` minimise the largest relative error of `ln m` over [√½, √2), which is 2⁻³⁰·².
//!    They come from the Remez exchange algorithm, were rounded one by one, the lowest first and the others
//!    refitted after each, and then improved by a search among neighbouring floats.
//! 5. Exponents are extracted lane by lane: there is one logarithm per query.

use super::{
    Kernel,
    attention::Sums,
    exp::{Shift, ln2},
};
use crate::simd::{Vector, array};

#[cfg(test)]
mod tests;

/// The coefficients of s², s⁴ and s⁶ in `R(s²)`.
const R2: f32 = f32::from_bits(0x3f2a_aabd);
const R4: f32 = f32::from_bits(0x3ecc_af6c);
const R6: f32 = f32::from_bits(0x3e98_f01d);

/// The bits of √½, rounded up.
const SQRT_HALF: u32 = 0x3f35_04f4;

/// `ln (x · 2^n)` for a whole `n` of at most 2²² in magnitude, or any `n` where `x` is 0.
///
/// The error for normal `x` is at most 0.84 ULP where `n` is 0, in either family (`ln_is_within_two_ulp`);
/// otherwise at most 0.7 ULP (FMA) or 1.5 ULP (non-FMA) (`nothing_is_cancelled`).
///
/// +∞ returns +∞, ±0 and positive subnormals return −∞, negative numbers and NaN return NaN.
#[inline(always)]
pub(super) fn ln<const L: usize, V: Vector<L>>(token: V::Token, x: V, n: V) -> V {
    let constant = |c| V::splat(token, c);
    let (zero, one) = (constant(0.0), constant(1.0));
    let [high, low] = const { ln2(false, V::FMA) };

    let lanes = x.to_array();
    let k: [i32; L] = array!(|i| lanes[i].to_bits().wrapping_sub(SQRT_HALF).cast_signed() >> 23);
    let m: [f32; L] =
        array!(|i| f32::from_bits(lanes[i].to_bits().wrapping_sub(k[i].cast_unsigned() << 23)));
    let k: [f32; L] = array!(|i| k[i] as f32);

    let e = n + V::load(token, &k);
    let f = V::load(token, &m) - one;
    let s = f / (f + constant(2.0));
    let z = s * s;
    let r = constant(R6).mul_add(z, constant(R4)).mul_add(z, constant(R2)) * z;
    let half_square = constant(0.5) * f * f;
    let rest = e.mul_add(constant(low), s * (half_square + r));
    let ln = e.mul_add(constant(high), f - (half_square - rest));

    let infinity = constant(f32::INFINITY);
    // −∞ + NaN is NaN.
    let special = zero.select_gt(x, constant(f32::NAN), x - infinity);
    let ln = x.select_gt(constant(LARGEST_SUBNORMAL), ln, special);
    x.select_gt(constant(f32::MAX), infinity, ln)
}

const LARGEST_SUBNORMAL: f32 = f32::from_bits(0x007f_ffff);

/// The log-sum-exp of each query: `base + ln (sum · 2^n)`, with the `base` and `n` of the shift of its largest
/// score.
///
/// `base` is 0 and the logarithm is within 2 ULP, except where a maximum is beyond ±2²⁰. There `n` is 0, and
/// the addition of `base` has the largest error. A relative error of the sum becomes an absolute error of its
/// logarithm.
pub(crate) struct LogSumExp<'a> {
    pub(crate) sums: Sums<'a>,
    pub(crate) out: &'a mut [f32],
}

impl Kernel for LogSumExp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let constant = |c| V::splat(token, c);
        let largest = constant(f32::MAX);
        for first in (0..self.out.len()).step_by(L) {
            let [m, sum]: [V; 2] =
                [self.sums.max, self.sums.sum].map(|floats| load(token, floats, first));
            let infinite = m.select_gt(largest, m, constant(0.0));
            let finite = m.select_gt(largest, constant(0.0), constant(f32::MIN).max(m));
            let shift: Shift<V, true> = Shift::new(token, finite);
            let [base, n] = Shift::base_and_n(token, shift.base_and_magic());
            let out = self.out.get_mut(first..).unwrap_or_default();
            (base + infinite + ln(token, sum, n)).store_partial(out);
        }
    }
}

/// Loads the floats from `first` on; lanes past the last one are 0.
#[inline(always)]
fn load<const L: usize, V: Vector<L>>(token: V::Token, floats: &[f32], first: usize) -> V {
    V::load_partial(token, floats.get(first..).unwrap_or_default(), 0.0)
}
