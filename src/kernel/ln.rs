//! The natural logarithm, and log-sum-exp.
//!
//! ```text
//! x = m · 2^k               m in [√½, √2)
//! f = m − 1                 exact
//! s = f / (2 + f)           ln m = 2 · artanh s = f − f²/2 + s · (f²/2 + R(s²))
//! ln (x · 2^n) = (n + k) · ln 2 + ln m
//! ```
//!
//! 1. The form of `ln m` is the one of fdlibm (Ng, 1993): all but `f` is small, so that
//!    its roundings count little.
//! 2. `ln 2` is in two parts ([`ln2`]); the upper one is added last. Up to |n + k| = 512 its
//!    product is exact.
//! 3. A power of two beside `x` costs nothing and is added to the exponent, a whole
//!    number: in a log-sum-exp near 0, where `n · ln 2` and `ln x` are opposite and large,
//!    nothing is cancelled.
//! 4. The coefficients of `R` minimise the largest relative error of `ln m` over [√½, √2),
//!    2⁻³⁰·²: Remez' exchange, the coefficients rounded one by one, the lowest first and
//!    the others fitted anew, then a search among their neighbours.
//! 5. Exponents are cut from the bits lane by lane: a logarithm is taken once a query.

use super::{Kernel, attention::LogSumExpParts, exp::ln2};
use crate::simd::{Vector, array};

#[cfg(test)]
mod tests;

/// The coefficients of `R(s²)`: of s², s⁴, s⁶.
const R2: f32 = f32::from_bits(0x3f2a_aabd);
const R4: f32 = f32::from_bits(0x3ecc_af6c);
const R6: f32 = f32::from_bits(0x3e98_f01d);

/// The bits of √½, rounded up.
const SQRT_HALF: u32 = 0x3f35_04f4;

/// `ln (x · 2^n)` for a whole `n` of at most 2²² in magnitude; where `x` is 0, for any.
///
/// Where `n` is 0 it is within 0.84 ULP for every normal `x`, in either family
/// (`ln_is_within_two_ulp`); else within 0.7 FMA and 1.5 non-FMA (`nothing_is_cancelled`).
/// Of +∞ it is +∞; of 0 and, as if it were 0, of a positive subnormal −∞; of a negative
/// number NaN; NaN stays.
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
    let none = zero.select_gt(x, constant(f32::NAN), x - infinity);
    let ln = x.select_gt(constant(LARGEST_SUBNORMAL), ln, none);
    x.select_gt(constant(f32::MAX), infinity, ln)
}

const LARGEST_SUBNORMAL: f32 = f32::from_bits(0x007f_ffff);

/// The log-sum-exp of each query: `base + ln (sum · 2^n)`.
///
/// `base` is 0, and the logarithm within 2 ULP, but where a maximum is beyond 2²⁰; there `n` is 0,
/// and the addition of `base` is the largest error. A relative error of the sum
/// is an absolute one here.
pub(crate) struct LogSumExp<'a> {
    pub(crate) parts: LogSumExpParts<'a>,
    pub(crate) out: &'a mut [f32],
}

impl Kernel for LogSumExp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let LogSumExpParts { base, n, sum } = self.parts;
        for first in (0..sum.len()).step_by(L) {
            let [base, n, sum]: [V; 3] = [base, n, sum].map(|floats| lanes(token, floats, first));
            let out = self.out.get_mut(first..).unwrap_or_default();
            (base + ln(token, sum, n)).store_partial(out);
        }
    }
}

/// The floats from `first` on, 0 behind the last.
#[inline(always)]
fn lanes<const L: usize, V: Vector<L>>(token: V::Token, floats: &[f32], first: usize) -> V {
    V::load_partial(token, floats.get(first..).unwrap_or_default(), 0.0)
}
