//! `scalar`: one lane in plain Rust, non-FMA. For cores without vectors; the other back ends of the non-FMA
//! family are tested against it.

use core::ops::{Add, Div, Mul, Sub};

use super::{
    Vector,
    outlined::{inlined, with_names},
};

/// Every machine has this back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scalar;

/// One lane. Single floats are computed with this type too, because of [`rounded`].
#[derive(Clone, Copy)]
pub(crate) struct F32x1(pub(crate) f32);

/// Returns `x`, on an x87 after rounding it to `f32`.
///
/// An x87 computes with 64 bits of precision and rounds to `f32` only when it stores. Rounding twice gives
/// the bits of rounding once, as 64 ≥ 2 · 24 + 2 (Figueroa, *When is double rounding innocuous?*, 1995).
#[inline(always)]
fn rounded(x: f32) -> f32 {
    #[cfg(x87)]
    let x = {
        let mut bits = x.to_bits();
        // SAFETY: the assembly is empty. The compiler must assume that it changes `bits`, and so stores `x`.
        unsafe {
            core::arch::asm!("/* {0:e} */", inout(reg) bits, options(pure, nomem, nostack, preserves_flags));
        }
        f32::from_bits(bits)
    };
    x
}

/// `a · b + c`, rounded after each.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    F32x1(a).mul_add(F32x1(b), F32x1(c)).0
}

macro_rules! operator {
    ($trait:ident, $function:ident, $op:tt) => {
        impl $trait for F32x1 {
            type Output = Self;
            #[inline(always)]
            fn $function(self, other: Self) -> Self {
                Self(rounded(self.0 $op other.0))
            }
        }
    };
}

operator!(Add, add, +);
operator!(Sub, sub, -);
operator!(Mul, mul, *);
operator!(Div, div, /);

with_names! { inlined! { Scalar, F32x1 } }

impl Vector<1> for F32x1 {
    type Token = Scalar;

    const FMA: bool = false;

    #[inline(always)]
    fn splat(_: Scalar, x: f32) -> Self {
        Self(x)
    }

    #[inline(always)]
    fn load(_: Scalar, &[x]: &[f32; 1]) -> Self {
        Self(x)
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 1]) {
        *to = [self.0];
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        self * factor + addend // rustc never contracts this
    }

    #[inline(always)]
    fn select_gt(self, other: Self, then: Self, otherwise: Self) -> Self {
        if self.0 > other.0 { then } else { otherwise }
    }

    #[inline(always)]
    fn times_above(self, factor: Self, floor: Self) -> Self {
        if self.0 <= floor.0 { Self(0.0) * factor } else { self * factor }
    }

    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        Self(f32::from_bits(self.0.to_bits() << 23))
    }

    #[inline(always)]
    fn exponent_above(self, floor: Self) -> Self {
        Self(f32::from_bits(self.0.to_bits().saturating_sub(floor.0.to_bits()) << 23))
    }

    #[inline(always)]
    fn transpose(rows: [Self; 1]) -> [Self; 1] {
        rows
    }
}
