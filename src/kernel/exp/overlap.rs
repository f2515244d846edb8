//! Shifts that let the weights overlap with the search for the maximum.
//!
//! Every step of [`Shift::weight`] depends on the shift, and the shift on the maximum. Along a row the
//! maximum is folded first: some 60 cycles in which an out-of-order core could evaluate polynomials. The
//! weights are those of `Shift`, bit for bit; along a row they differ by a power of two.
//!
//! 1. [`DeferredShift`], of a column: `t = x · log2 e + RAISED_MAGIC` does not depend on the shift. The last
//!    step applies it to the exponent, as `t − floor`. A column also needs one register for its shift instead
//!    of two.
//! 2. [`RowShift`], of a row: the shift is one of a few, which the core predicts. This takes one step less
//!    per weight than `DeferredShift`.
//!
//! `|m|` is at most [`LARGE_MAXIMUM`]: the callers subtract a larger maximum in a pass of its own.

use super::{LN2, LOG2_E, MAGIC, Shift, bias, e_to_r};
use crate::simd::Vector;

/// A maximum beyond ± this is large and has to be subtracted. Up to it `n` is in the exact range of
/// [`ln2`](super::ln2).
pub(crate) const LARGE_MAXIMUM: f32 = 256.0;

/// The weight of this and of any smaller `x` is +0, for every maximum of at least −256.
const LOWEST: f32 = -400.0;

/// Rounds as `MAGIC` does. It is so much larger that the bits of `t` and `floor` differ only in their lower
/// half: see [`Vector::exponent_above`].
const RAISED_MAGIC: f32 = MAGIC + 1024.0;

/// The shift for a maximum that is not large, in each lane; applied in the last step.
#[derive(Clone, Copy)]
pub(crate) struct DeferredShift<V> {
    /// `RAISED_MAGIC + (N − bias)`.
    floor: V,
}

impl<V> DeferredShift<V> {
    /// The shift for the maximum `m` in each lane, at most [`LARGE_MAXIMUM`] in magnitude. Where `m` is NaN
    /// the weights are unspecified.
    #[inline(always)]
    pub(crate) fn new<const L: usize>(token: V::Token, m: V) -> Self
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let half = m.mul_add(constant(LOG2_E / 2.0), constant(MAGIC));
        // 2 · half is 2 · MAGIC + N, and the difference is exact.
        Self {
            floor: half + half
                - constant(const { 2.0 * MAGIC - RAISED_MAGIC + bias(false, V::FMA) }),
        }
    }

    /// The weight of `x`, times [`WEIGHT_BIAS`](super::WEIGHT_BIAS).
    ///
    /// `x` is raised to [`LOWEST`], whose weight is +0 under any shift. Under this shift other small `x` too
    /// saturate to the exponent field 0, and so to the weight +0.
    #[inline(always)]
    pub(crate) fn weight<const L: usize>(self, token: V::Token, x: V) -> V
    where
        V: Vector<L>,
    {
        let magic = V::splat(token, RAISED_MAGIC);
        let x = V::splat(token, LOWEST).max(x);
        let t = x.mul_add(V::splat(token, LOG2_E), magic);
        let [p] = e_to_r::<false, L, 1, V>(token, [x], [t - magic]);
        p * t.exponent_above(self.floor)
    }
}

/// The shift of a row. Its whole number is a point of a grid, up to [`STEP`] above the `N` of the maximum, so
/// that the weights are those of [`Shift`] times 2^−`STEP` to 2^2.
///
/// Every number computed from the weights is scaled by the same power of two and keeps its other bits: the
/// weights stay between 2⁻¹²⁶ and 2⁶⁶, and a sum of 2⁶⁰ of them below 2¹²⁸. Some of the smallest weights are
/// +0 here and not with `Shift`. They are below 2⁻¹³⁰ of the largest weight: too small to change a sum that
/// contains it, and +0 after the division by that sum.
#[derive(Clone, Copy)]
pub(crate) struct RowShift<V> {
    shift: Shift<V>,
    /// `MAGIC + 126` minus half of the whole number. It is even, and so breaks ties as `MAGIC` does.
    half_magic: V,
}

/// The distance between two whole numbers of the grid. It is even as `N` is, and so is its half.
const STEP: f32 = 56.0;

/// The largest magnitude of a maximum that takes the central shift of the grid.
pub(crate) const CENTRAL_MAXIMUM: f32 = STEP / 2.0 * LN2;

impl<V: Copy> RowShift<V> {
    /// The central shift, for a maximum of at most [`CENTRAL_MAXIMUM`] in magnitude. Where the maximum is NaN
    /// the weights are unspecified.
    #[inline(always)]
    pub(crate) fn central<const L: usize>(token: V::Token) -> Self
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let first = const { STEP / 2.0 - bias(false, V::FMA) };
        let (lowest, magic) = (constant((first + 0.25) * LN2), constant(MAGIC - first));
        Self {
            shift: Shift { base: constant(0.0), lowest, magic },
            half_magic: constant(MAGIC + 126.0 - STEP / 4.0),
        }
    }

    /// The shift for the maximum `m`. Branches choose it, which the core predicts: no weight waits for `m`.
    #[inline(always)]
    pub(crate) fn for_maximum<const L: usize>(token: V::Token, m: f32) -> Self
    where
        V: Vector<L>,
    {
        let (mut n, half) = (0.0, STEP / 2.0);
        while m > (n + half) * LN2 && n < LARGE_MAXIMUM / LN2 {
            n += STEP;
        }
        while m < (n - half) * LN2 && n > -LARGE_MAXIMUM / LN2 {
            n -= STEP;
        }
        let Self { shift, half_magic } = Self::central(token);
        let n = V::splat(token, n);
        let lowest = n.mul_add(V::splat(token, LN2), shift.lowest);
        let shift = Shift { lowest, magic: shift.magic - n, ..shift };
        Self { shift, half_magic: n.mul_add(V::splat(token, -0.5), half_magic) }
    }

    /// Converts `c` from the scale of the weights of [`Shift`] under the maximum `m` to the scale of these
    /// weights.
    #[inline(always)]
    pub(crate) fn rescaled<const L: usize>(self, token: V::Token, m: f32, c: f32) -> V
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let t = constant(m).mul_add(constant(LOG2_E / 2.0), self.half_magic);
        // 2^((N − whole number) / 2 − 1).
        let root = t.low_bits_to_exponent();
        root * (root * constant(4.0 * c))
    }

    /// The weights of `N` vectors.
    #[inline(always)]
    pub(crate) fn weights<const L: usize, const N: usize>(
        self,
        token: V::Token,
        x: [V; N],
    ) -> [V; N]
    where
        V: Vector<L>,
    {
        self.shift.weights(token, x)
    }
}
