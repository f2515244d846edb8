//! `tanh x`: a polynomial near 0, the exponential elsewhere.
//!
//! ```text
//! |x| <= 5/8      x · (1 + x² · P(x²))           P of degree 4
//! |x| >  5/8      ±(1 − 2 / (e^(2·|x|) + 1))     1 from |x| = 9.02 on
//! ```
//!
//! 1. Near 0 the factor `1 + x² · P(x²)` is 1, and the product keeps the sign of a zero and every bit of a
//!    subnormal. `x + x³ · P` would turn −0 into +0.
//! 2. Above 5/8 the result is above ½, so that an error of 1 ULP of the quotient is at most half an ULP of
//!    the result. `e^(2·|x|)` is [`exp`]; the doubling is exact.
//! 3. `|x|` is clamped to 10, where the result is already 1 and the exponential is far from overflow.
//! 4. The coefficients minimise the largest relative error over [0, 5/8], which is 2⁻²⁷·⁷. They come from the
//!    Remez exchange algorithm, were rounded one by one, the lowest first and the others refitted after each,
//!    and then improved by a search among neighbouring floats.
//!
//! The largest error over every f32 is 1.363 ULP (FMA) or 1.333 ULP (non-FMA), and `tanh(−x)` has the bits of
//! `−tanh x`: `tanh_is_within_two_ulp`. ±0 and subnormals return themselves, ±∞ returns ±1, NaN returns NaN.

use super::exp::exp;
use crate::simd::Vector;

#[cfg(test)]
mod tests;

/// Up to this magnitude, 5/8, the polynomial is used.
const SMALL: f32 = 0.625;

/// The coefficients of x², x⁴, …, x¹⁰ in `1 + x² · P(x²)`.
const C2: f32 = f32::from_bits(0xbeaa_aa99);
const C4: f32 = f32::from_bits(0x3e08_837b);
const C6: f32 = f32::from_bits(0xbd5c_1ad2);
const C8: f32 = f32::from_bits(0x3ca8_fc67);
const C10: f32 = f32::from_bits(0xbbba_8671);

/// `tanh x`, within 2 ULP.
// Not inlined on a microcontroller: there the compiler would unroll the loop over scores around it, 800
// bytes.
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
