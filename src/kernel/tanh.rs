//! `tanh x`: a polynomial near 0, the exponential elsewhere.
//!
//! ```text
//! |x| <= 5/8      x · (1 + x² · P(x²))           P of degree 4
//! |x| >  5/8      ±(1 − 2 / (e^(2·|x|) + 1))     1 from |x| = 9.02 on
//! ```
//!
//! 1. The products keep the sign of a zero and every bit of a subnormal: there the
//!    parenthesis is 1. With `x + x³ · P` a −0 would become +0.
//! 2. Above 5/8 the result is more than ½, so that the error of the quotient counts half of
//!    its ULP and less; `e^(2·|x|)` is [`exp`], and the doubling is exact.
//! 3. `|x|` is lowered to 10, where the result is 1 already and the power is far from overflow.
//! 4. The coefficients minimise the largest relative error over [0, 5/8], 2⁻²⁷·⁷: Remez'
//!    exchange, the coefficients rounded one by one, the lowest first and the others fitted
//!    anew, then a search among their neighbours.
//!
//! Over every f32 it is off by at most 1.363 ULP FMA, 1.333 non-FMA, and it is odd in every
//! bit: `tanh_is_within_two_ulp`. Of ±0 and of a subnormal it is the same, of ±∞ ±1, of NaN NaN.

use super::exp::exp;
use crate::simd::Vector;

#[cfg(test)]
mod tests;

/// Up to here the polynomial: 5/8.
const SMALL: f32 = 0.625;

/// The coefficients of x², x⁴ … x¹⁰ in the parenthesis.
const C2: f32 = f32::from_bits(0xbeaa_aa99);
const C4: f32 = f32::from_bits(0x3e08_837b);
const C6: f32 = f32::from_bits(0xbd5c_1ad2);
const C8: f32 = f32::from_bits(0x3ca8_fc67);
const C10: f32 = f32::from_bits(0xbbba_8671);

/// `tanh x`, within 2 ULP.
// A microcontroller calls it: inlined, the loop over scores would be unrolled, 800 bytes.
#[cfg_attr(not(microcontroller), inline(always))]
#[cfg_attr(microcontroller, inline(never))]
pub(crate) fn tanh<const L: usize, V: Vector<L>>(token: V::Token, x: V) -> V {
    let constant = |c| V::splat(token, c);
    let (zero, one) = (constant(0.0), constant(1.0));

    let square = x * x;
    let p = constant(C10).mul_add(square, constant(C8));
    let p = p.mul_add(square, constant(C6));
    let p = p.mul_add(square, constant(C4));
    let p = p.mul_add(square, constant(C2));
    let small = x * p.mul_add(square, one);

    let magnitude = (zero - x).max(x);
    let ten = constant(10.0);
    let y = magnitude.select_gt(ten, ten, magnitude);
    let large = one - constant(2.0) / (exp(token, y + y) + one);
    let large = zero.select_gt(x, zero - large, large);

    magnitude.select_gt(constant(SMALL), large, small)
}
