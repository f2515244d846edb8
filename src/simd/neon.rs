//! `neon`: four lanes, FMA family, on AArch64, where NEON is part of every build with hard floats.

use core::arch::aarch64::*;
use core::ops::{Add, Div, Mul, Sub};

use super::{
    Vector, array,
    outlined::{separate, with_names},
};

/// This file is compiled only where NEON is part of the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Neon;

/// Four lanes.
#[derive(Clone, Copy)]
pub(crate) struct F32x4(float32x4_t);

macro_rules! operator {
    ($trait:ident, $function:ident, $intrinsic:ident) => {
        impl $trait for F32x4 {
            type Output = Self;
            #[inline(always)]
            fn $function(self, other: Self) -> Self {
                // SAFETY: the build has NEON.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    };
}

operator!(Add, add, vaddq_f32);
operator!(Sub, sub, vsubq_f32);
operator!(Mul, mul, vmulq_f32);
operator!(Div, div, vdivq_f32);

with_names! { separate! { Neon, F32x4, [doc = "With the instructions of the build."] } }

impl Vector<4> for F32x4 {
    type Token = Neon;

    const FMA: bool = true;

    #[inline(always)]
    fn splat(_: Neon, x: f32) -> Self {
        // SAFETY: the build has NEON.
        Self(unsafe { vdupq_n_f32(x) })
    }

    #[inline(always)]
    fn load(_: Neon, from: &[f32; 4]) -> Self {
        // SAFETY: the build has NEON; `from` is 4 floats.
        Self(unsafe { vld1q_f32(from.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 4]) {
        // SAFETY: the build has NEON; `to` is 4 floats.
        unsafe { vst1q_f32(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the build has NEON.
        Self(unsafe { vfmaq_f32(addend.0, self.0, factor.0) })
    }

    /// `max` uses this too: NEON's own maximum returns NaN if either operand is NaN.
    #[inline(always)]
    fn select_gt(self, other: Self, then: Self, otherwise: Self) -> Self {
        // SAFETY: the build has NEON.
        Self(unsafe { vbslq_f32(vcgtq_f32(self.0, other.0), then.0, otherwise.0) })
    }

    #[inline(always)]
    fn times_above(self, factor: Self, floor: Self) -> Self {
        // SAFETY: the build has NEON.
        Self(unsafe {
            let above = vbicq_u32(vreinterpretq_u32_f32(self.0), vcleq_f32(self.0, floor.0));
            vmulq_f32(vreinterpretq_f32_u32(above), factor.0)
        })
    }

    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        // SAFETY: the build has NEON.
        Self(unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(self.0))) })
    }

    #[inline(always)]
    fn exponent_above(self, floor: Self) -> Self {
        // SAFETY: the build has NEON.
        Self(unsafe {
            let field = vqsubq_u32(vreinterpretq_u32_f32(self.0), vreinterpretq_u32_f32(floor.0));
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(field))
        })
    }

    /// Transposes pairs of lanes, then pairs of pairs.
    #[inline(always)]
    fn transpose(rows: [Self; 4]) -> [Self; 4] {
        let [Self(a), Self(b), Self(c), Self(d)] = rows;
        // SAFETY: the build has NEON.
        unsafe {
            let (ab_even, ab_odd) = (vtrn1q_f32(a, b), vtrn2q_f32(a, b));
            let (cd_even, cd_odd) = (vtrn1q_f32(c, d), vtrn2q_f32(c, d));
            let low = |x, y| {
                Self(vreinterpretq_f32_f64(vtrn1q_f64(
                    vreinterpretq_f64_f32(x),
                    vreinterpretq_f64_f32(y),
                )))
            };
            let high = |x, y| {
                Self(vreinterpretq_f32_f64(vtrn2q_f64(
                    vreinterpretq_f64_f32(x),
                    vreinterpretq_f64_f32(y),
                )))
            };
            [
                low(ab_even, cd_even),
                low(ab_odd, cd_odd),
                high(ab_even, cd_even),
                high(ab_odd, cd_odd),
            ]
        }
    }

    #[inline(always)]
    fn load_columns(token: Neon, rows: [&[f32; 4]; 4]) -> [Self; 4] {
        Self::transpose(array!(|i| Self::load(token, rows[i])))
    }
}
