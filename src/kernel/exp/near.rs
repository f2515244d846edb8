//! The weights under a maximum near 0: those of [`Shift`](super::Shift), bit for bit, in another
//! order of steps.
//!
//! The shift waits for the maximum, which along a row is folded first, some 40 cycles; and every
//! step of `Shift::weight` waits for the shift. Here `t = x · log2 e + MAGIC` knows nothing of it, and the
//! shift comes in with the very last step, as `t − floor` in the exponent: until then a core that
//! looks ahead works on the polynomials. And a column keeps one vector of its own in a
//! register, not three.
//!
//! 1. `x` is raised to [`LOWEST`], which is below all that matters under any shift; what is
//!    below under this one saturates to the exponent 0, and so to the weight +0.
//! 2. `|m|` is at most [`NEAR`]: what is further out is brought there first, by a pass of its own.

use super::{LOG2_E, MAGIC, bias, e_to_r};
use crate::simd::{Vector, array};

/// How far from 0 the maximum may lie: there `n` is in the exact range of [`ln2`](super::ln2).
pub(crate) const NEAR: f32 = 256.0;

/// Below this a weight is +0 for every maximum from −256 on.
const LOWEST: f32 = -400.0;

/// As `MAGIC`, and so far above it that `t` and `floor` are whole numbers whose bits
/// differ in the lower half alone: see [`Vector::exponent_above`].
const MIDDLE: f32 = MAGIC + 1024.0;

/// What a maximum near 0 makes of the shift, in each lane.
#[derive(Clone, Copy)]
pub(crate) struct NearShift<V> {
    /// `MIDDLE + (N − bias)`.
    floor: V,
}

impl<V> NearShift<V> {
    /// The shift for the maximum `m` in each lane, which is at most [`NEAR`] from 0. Where that is NaN
    /// a weight may be anything.
    #[inline(always)]
    pub(crate) fn new<const L: usize>(token: V::Token, m: V) -> Self
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let half = m.mul_add(constant(LOG2_E / 2.0), constant(MAGIC));
        // 2 · MAGIC + N, less the rest: exact.
        Self {
            floor: half + half - constant(const { 2.0 * MAGIC - MIDDLE + bias(false, V::FUSED) }),
        }
    }

    /// The weight of each `x`, times [`WEIGHT_BIAS`](super::WEIGHT_BIAS).
    #[inline(always)]
    pub(crate) fn weights<const L: usize, const N: usize>(
        self,
        token: V::Token,
        x: [V; N],
    ) -> [V; N]
    where
        V: Vector<L>,
    {
        let (lowest, middle) = (V::splat(token, LOWEST), V::splat(token, MIDDLE));
        let x: [V; N] = array!(|i| lowest.max(x[i]));
        let t: [V; N] = array!(|i| x[i].mul_add(V::splat(token, LOG2_E), middle));
        let p: [V; N] = e_to_r::<false, L, N, V>(token, x, array!(|i| t[i] - middle));
        array!(|i| p[i] * t[i].exponent_above(self.floor))
    }
}
