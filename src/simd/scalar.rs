//! `scalar`: one lane, plain Rust, unfused. For cores without vectors, and
//! the text that the other back ends of the unfused family are held against.

use core::ops::{Add, Div, Mul, Sub};

use super::Vector;

/// Every machine has this back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scalar;

/// One lane.
#[derive(Clone, Copy)]
pub(crate) struct F32x1(pub(crate) f32);

macro_rules! operator {
    ($trait:ident, $function:ident, $op:tt) => {
        impl $trait for F32x1 {
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

impl Vector<1> for F32x1 {
    type Token = Scalar;

    const FUSED: bool = false;

    // A kernel of one lane has one such part: alone it would only have a frame of its own.
    #[inline(always)]
    fn apart<T, O>(_: Scalar, operands: T, f: impl FnOnce(T) -> O) -> O {
        f(operands)
    }

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
        Self(self.0 * factor.0 + addend.0) // rustc never contracts this
    }

    #[inline(always)]
    fn select_gt(self, other: Self, then: Self, otherwise: Self) -> Self {
        if self.0 > other.0 { then } else { otherwise }
    }

    #[inline(always)]
    fn times_above(self, factor: Self, floor: Self) -> Self {
        Self(if self.0 <= floor.0 { 0.0 } else { self.0 } * factor.0)
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
