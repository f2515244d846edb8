//! Vectors of `f32`: what a back end must give, and the back ends.
//!
//! A back end is a **token**, a small `Copy` type made only where the machine
//! has the instructions, and a vector type that can only be made from the
//! token. Who holds either may use the instructions; so every operation below
//! is safe to call.

#![expect(unsafe_code, reason = "pointers into strided memory, and instructions")]

use core::mem::MaybeUninit;
use core::ops::{Add, Div, Mul, Sub};

#[cfg(target_feature = "sse2")]
pub(crate) mod avx2;
#[cfg(target_feature = "sse2")]
pub(crate) mod avx512;
pub(crate) mod broadcast;
pub(crate) mod flags;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
pub(crate) mod neon;
#[cfg(portable)]
pub(crate) mod portable;
pub(crate) mod prefetch;
pub(crate) mod root;
pub(crate) mod scalar;
pub(crate) mod scalar_row;
pub(crate) mod strip;

#[cfg(test)]
mod contract;

/// `array!(|i| …)`: the array of what that is for 0, 1, …, always inlined.
///
/// What is not inlined into the function that `dispatch` switched the
/// instructions on in cannot use them, and `core::array::from_fn` and closures may
/// be left out of it; `array!`, and a closure marked `#[inline(always)]`, may not.
macro_rules! array {
    (|$i:ident| $element:expr) => {
        $crate::simd::array_of(
            #[inline(always)]
            |$i| $element,
        )
    };
}
pub(crate) use array;

/// What [`array!`] calls.
#[inline(always)]
pub(crate) fn array_of<const N: usize, T: Copy>(mut f: impl FnMut(usize) -> T) -> [T; N] {
    let mut array = [const { MaybeUninit::uninit() }; N];
    each::<N>(
        #[inline(always)]
        |i| array[i] = MaybeUninit::new(f(i)),
    );
    // SAFETY: `each` has set every element, and `MaybeUninit<T>` lies as `T` does.
    unsafe { (&raw const array).cast::<[T; N]>().read() }
}

/// Calls `f` with 0, 1, … below `N`: a loop that is written out at every opt-level.
///
/// `s` leaves the loops over the registers of a group or a tile as they are, and with them
/// the registers in memory.
#[inline(always)]
pub(crate) fn each<const N: usize>(mut f: impl FnMut(usize)) {
    macro_rules! calls {
        ($($i:literal)+) => {
            const { assert!(N <= [$($i),+].len()) };
            $(if $i < N {
                f($i);
            })+
        };
    }
    calls!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

/// `L` lanes of `f32`.
///
/// `+ - * /` round each lane to nearest, ties to even, and keep subnormals.
/// The sign and payload of a NaN are free. `contract.rs` tests each law.
pub(crate) trait Vector<const L: usize>:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// Proof that this machine has the instructions.
    type Token: Copy;

    /// Whether [`mul_add`](Self::mul_add) rounds once.
    const FMA: bool;

    /// `f(operands)` as a function of its own, which may use the instructions; `f` is a closure marked
    /// `#[inline(always)]`.
    ///
    /// For what is called seldom: the compiler takes a time that grows faster than a function does, and
    /// all that lies in one shares its registers.
    #[inline(never)]
    fn outlined<T, O>(_token: Self::Token, operands: T, f: impl FnOnce(T) -> O) -> O {
        f(operands)
    }

    /// `x` in each lane.
    fn splat(token: Self::Token, x: f32) -> Self;

    /// All lanes, from memory.
    fn load(token: Self::Token, from: &[f32; L]) -> Self;

    /// The lanes that `from` has, `fill` in the others.
    ///
    /// `fill` is what leaves the result alone: 0 for a sum, −∞ for a maximum.
    #[inline(always)]
    fn load_partial(token: Self::Token, from: &[f32], fill: f32) -> Self {
        // Lane by lane: a copy of run-time length would be a call.
        Self::load(token, &array!(|i| if i < from.len() { from[i] } else { fill }))
    }

    /// All lanes, to memory.
    fn store(self, to: &mut [f32; L]);

    /// The lanes that `to` has room for.
    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        let lanes = self.to_array();
        for (i, &lane) in lanes.iter().enumerate() {
            if i < to.len() {
                to[i] = lane;
            }
        }
    }

    /// All lanes, by value.
    #[inline(always)]
    fn to_array(self) -> [f32; L] {
        let mut lanes = [0.0; L];
        self.store(&mut lanes);
        lanes
    }

    /// `self * factor + addend`: rounded once where [`FMA`](Self::FMA),
    /// else once after each.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// `then` in the lanes where `self > other`, `otherwise` in the others,
    /// those with a NaN included.
    fn select_gt(self, other: Self, then: Self, otherwise: Self) -> Self;

    /// `self * factor`, but +0 in the lanes where `self <= floor`, which take no part in the
    /// multiplication. `factor` is positive and finite there.
    fn times_above(self, factor: Self, floor: Self) -> Self;

    /// `self` in the lanes where `self > other`, else `other`: of a NaN in
    /// `self` the other side comes out, and a NaN in `other` stays.
    ///
    /// This order of operands is x86's `maxps`, which gives its second operand
    /// when either is NaN.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.select_gt(other, self, other)
    }

    /// The sum of the lanes, folded in half until one is left: lane `i` with lane
    /// `i + L / 2` for `i < L / 2`, and so on.
    #[inline(always)]
    fn sum(self, token: Self::Token) -> f32 {
        fold(
            token,
            self,
            #[inline(always)]
            |a, b| a + b,
        )
    }

    /// The largest lane; any of them where one is NaN.
    #[inline(always)]
    fn largest(self, token: Self::Token) -> f32 {
        fold(token, self, Self::max)
    }

    /// The float whose bits are those of `self`, shifted left by 23: what makes
    /// an exponent of an integer in the lowest bits.
    fn low_bits_to_exponent(self) -> Self;

    /// The float whose exponent field is `self − floor`, and +0 where that is negative.
    ///
    /// Both are whole numbers between 2²³ and 2²⁴ whose bits differ in the lower 16 alone, so
    /// that the subtraction may be one of integers of 16 bits that saturates.
    fn exponent_above(self, floor: Self) -> Self;

    /// Lane `j` of vector `i` becomes lane `i` of vector `j`.
    fn transpose(rows: [Self; L]) -> [Self; L];
}

/// Folds each lane with its partner in the other half, until all are the same.
#[inline(always)]
fn fold<const L: usize, V: Vector<L>>(token: V::Token, mut x: V, f: impl Fn(V, V) -> V) -> f32 {
    let mut half = L / 2;
    while half > 0 {
        let lanes = x.to_array();
        x = f(x, V::load(token, &array!(|i| lanes[i ^ half])));
        half /= 2;
    }
    x.to_array()[0]
}
