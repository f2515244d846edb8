//! `portable`: four lanes of `wide`, non-FMA family. SSE2, simd128 or NEON where the
//! build has them, plain Rust elsewhere.

use core::ops::{Add, Div, Mul, Sub};

use wide::{f32x4, u16x8, u32x4};

use super::{
    Vector, array,
    outlined::{separate, with_names},
};
use crate::number::{Bf16, F16};

/// Every machine has this back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Portable;

/// Four lanes.
#[derive(Clone, Copy)]
pub(crate) struct F32x4(f32x4);

macro_rules! operator {
    ($trait:ident, $function:ident, $op:tt) => {
        impl $trait for F32x4 {
            type Output = Self;
            #[inline(always)]
            fn $function(self, other: Self) -> Self {
                Self(self.0 $op other.0)
            }
        }
    };
}

operator!(Add, add, +);
operator!(Sub, sub, -);
operator!(Mul, mul, *);
operator!(Div, div, /);

with_names! { separate! { Portable, F32x4, [doc = "With the instructions of the build."] } }

impl Vector<4> for F32x4 {
    type Token = Portable;

    const FMA: bool = false;

    #[inline(always)]
    fn splat(_: Portable, x: f32) -> Self {
        Self(f32x4::splat(x))
    }

    #[inline(always)]
    fn load(_: Portable, from: &[f32; 4]) -> Self {
        Self(f32x4::new(*from))
    }

    /// The exponent is corrected by an addition, and that of subnormals, whose sum is in [2⁻¹⁴, 2⁻¹³), by a
    /// subtraction of 2⁻¹⁴.
    #[inline(always)]
    fn load_f16(_: Portable, from: &[F16; 4]) -> Self {
        let splat = u32x4::splat;
        let bits = u32x4::new(array!(|i| u32::from(from[i].to_bits())));
        let sign = bits & splat(0x8000);
        let magnitude = (bits ^ sign) << 13u32;
        let (rebias, least) = (splat(112 << 23), splat(113 << 23));
        let is_special = magnitude.simd_gt(splat((31 << 23) - 1));
        let normal = magnitude + rebias + (is_special & rebias);
        // SAFETY: both types are 16 bytes, and any bits are a value of either.
        let [sum, excess]: [f32x4; 2] = unsafe { core::mem::transmute([magnitude + least, least]) };
        // SAFETY: as above.
        let subnormal: u32x4 = unsafe { core::mem::transmute(sum - excess) };
        let is_subnormal = splat(1 << 23).simd_gt(magnitude);
        let magnitude = is_subnormal.select(subnormal, normal);
        // SAFETY: as above.
        Self(unsafe { core::mem::transmute::<u32x4, f32x4>(magnitude | (sign << 16u32)) })
    }

    #[inline(always)]
    fn load_bf16(_: Portable, from: &[Bf16; 4]) -> Self {
        let bits = u32x4::new(array!(|i| u32::from(from[i].to_bits())));
        // SAFETY: both types are 16 bytes, and any bits are a value of either.
        Self(unsafe { core::mem::transmute::<u32x4, f32x4>(bits << 16u32) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 4]) {
        *to = self.0.to_array();
    }

    /// `wide`'s own `mul_add` is not used: whether it rounds once depends on the build.
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(self.0 * factor.0 + addend.0)
    }

    #[inline(always)]
    fn select_gt(self, other: Self, then: Self, otherwise: Self) -> Self {
        Self(self.0.simd_gt(other.0).select(then.0, otherwise.0))
    }

    /// `wide`'s `fast_max` is `maxps` on x86 alone; elsewhere it treats a NaN differently.
    #[cfg(target_feature = "sse")]
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(self.0.fast_max(other.0))
    }

    #[inline(always)]
    fn times_above(self, factor: Self, floor: Self) -> Self {
        Self((self.0 & !self.0.simd_le(floor.0)) * factor.0)
    }

    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        // SAFETY: both types are 16 bytes, and any bits are a value of either.
        let bits: u32x4 = unsafe { core::mem::transmute(self.0) };
        // SAFETY: as above.
        Self(unsafe { core::mem::transmute::<u32x4, f32x4>(bits << 23u32) })
    }

    #[inline(always)]
    fn exponent_above(self, floor: Self) -> Self {
        // SAFETY: both types are 16 bytes, and any bits are a value of either.
        let [bits, floor]: [u16x8; 2] = unsafe { core::mem::transmute([self.0, floor.0]) };
        // SAFETY: as above.
        let field: u32x4 = unsafe { core::mem::transmute(bits.saturating_sub(floor)) };
        // SAFETY: as above.
        Self(unsafe { core::mem::transmute::<u32x4, f32x4>(field << 23u32) })
    }

    #[inline(always)]
    fn transpose(rows: [Self; 4]) -> [Self; 4] {
        let [Self(a), Self(b), Self(c), Self(d)] = rows;
        let [a, b, c, d] = f32x4::transpose([a, b, c, d]);
        [Self(a), Self(b), Self(c), Self(d)]
    }

    #[inline(always)]
    fn load_columns(token: Portable, rows: [&[f32; 4]; 4]) -> [Self; 4] {
        Self::transpose(array!(|i| Self::load(token, rows[i])))
    }
}
