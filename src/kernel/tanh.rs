//! The hyperbolic tangent.

use crate::simd::Vector;

/// `tanh x`.
#[inline(always)]
pub(crate) fn tanh<const L: usize, V: Vector<L>>(token: V::Token, x: V) -> V {
    let mut lanes = x.to_array();
    for x in &mut lanes {
        *x = libm::tanhf(*x);
    }
    V::load(token, &lanes)
}
