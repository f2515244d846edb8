//! Shifts under which the weights need not wait for the maximum, which is near 0.
//!
//! Every step of [`Shift::weight`] waits for the shift, and that for the maximum, which along a row is
//! folded first: some 60 cycles in which a core that looks ahead could be at the polynomials. The weights are
//! those of `Shift`, bit for bit, along a row but for a power of two.
//!
//! 1. [`NearShift`], of a column: `t = x · log2 e + MAGIC` knows nothing of the shift, which comes in with
//!    the very last step, as `t − floor` in the exponent. And a column keeps one vector of its own in a
//!    register, not two.
//! 2. [`RowShift`], of a row: the shift is one of a few, which a core guesses. That is a step less for each
//!    weight.
//!
//! `|m|` is at most [`NEAR`]: what is further out is brought there first, by a pass of its own.

use super::{LN2, LOG2_E, MAGIC, Shift, bias, e_to_r};
use crate::simd::Vector;

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
        Self { floor: half + half - constant(const { 2.0 * MAGIC - MIDDLE + bias(false, V::FMA) }) }
    }

    /// The weight of `x`, times [`WEIGHT_BIAS`](super::WEIGHT_BIAS).
    ///
    /// `x` is raised to [`LOWEST`], which is below all that matters under any shift; what is
    /// below under this one saturates to the exponent 0, and so to the weight +0.
    #[inline(always)]
    pub(crate) fn weight<const L: usize>(self, token: V::Token, x: V) -> V
    where
        V: Vector<L>,
    {
        let middle = V::splat(token, MIDDLE);
        let x = V::splat(token, LOWEST).max(x);
        let t = x.mul_add(V::splat(token, LOG2_E), middle);
        let [p] = e_to_r::<false, L, 1, V>(token, [x], [t - middle]);
        p * t.exponent_above(self.floor)
    }
}

/// The shift of a row, taken from a grid: its whole number is up to [`STEP`] above the `N` of the maximum,
/// and so the weights are those of [`Shift`] times 2^−`STEP` to 2^2.
///
/// All that is made of them is as many times as large, in the same bits: they stay between 2⁻¹²⁶ and
/// 2⁶⁶, and a sum of 2⁶⁰ of them below 2¹²⁸. The least are +0 here, where `Shift` keeps some: those are
/// below 2⁻¹³⁰ of the largest, too small to change a sum that has one in it, and +0 once they are divided by it.
#[derive(Clone, Copy)]
pub(crate) struct RowShift<V> {
    shift: Shift<V>,
    /// `MAGIC + 126`, less half of the whole number: it is even, and rounds as `MAGIC`.
    middle: V,
}

/// From one whole number of the grid to the next: even as `N`, and so is its half.
const STEP: f32 = 56.0;

/// How far from 0 a maximum may lie for the first shift of the grid.
pub(crate) const WITHIN: f32 = STEP / 2.0 * LN2;

impl<V: Copy> RowShift<V> {
    /// The shift for a maximum at most [`WITHIN`] from 0. Where that is NaN a weight may be anything.
    #[inline(always)]
    pub(crate) fn new<const L: usize>(token: V::Token) -> Self
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let first = const { STEP / 2.0 - bias(false, V::FMA) };
        let (lowest, magic) = (constant((first + 0.25) * LN2), constant(MAGIC - first));
        Self {
            shift: Shift { base: constant(0.0), lowest, magic },
            middle: constant(MAGIC + 126.0 - STEP / 4.0),
        }
    }

    /// The shift for the maximum `m`. Comparisons find it, which a core predicts: no weight waits for `m`.
    #[inline(always)]
    pub(crate) fn of<const L: usize>(token: V::Token, m: f32) -> Self
    where
        V: Vector<L>,
    {
        let (mut n, half) = (0.0, STEP / 2.0);
        while m > (n + half) * LN2 && n < NEAR / LN2 {
            n += STEP;
        }
        while m < (n - half) * LN2 && n > -NEAR / LN2 {
            n -= STEP;
        }
        let Self { shift, middle } = Self::new(token);
        let n = V::splat(token, n);
        let lowest = n.mul_add(V::splat(token, LN2), shift.lowest);
        let shift = Shift { lowest, magic: shift.magic - n, ..shift };
        Self { shift, middle: n.mul_add(V::splat(token, -0.5), middle) }
    }

    /// What is to these weights as `c` is to those of [`Shift`] under the maximum `m`.
    #[inline(always)]
    pub(crate) fn scaled<const L: usize>(self, token: V::Token, m: f32, c: f32) -> V
    where
        V: Vector<L>,
    {
        let constant = |c| V::splat(token, c);
        let t = constant(m).mul_add(constant(LOG2_E / 2.0), self.middle);
        // 2^((N − the whole number) / 2 − 1).
        let root = t.low_bits_to_exponent();
        root * (root * constant(4.0 * c))
    }

    /// The weight of each `x`, several vectors side by side.
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
