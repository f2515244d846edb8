//! Vectors of `f32`: the trait [`Vector`], and a file per back end that implements it.
//!
//! A back end has a **token**, a small `Copy` type that only detection creates, and a vector type that only
//! the token (or another vector) creates. Holding either proves that the CPU has the instructions, so that
//! every operation below is safe to call.

#![expect(unsafe_code, reason = "pointers into strided memory, and instructions")]

use core::mem::MaybeUninit;
use core::ops::{Add, Div, Mul, Sub};

#[cfg(target_feature = "sse2")]
pub(crate) mod avx2;
#[cfg(target_feature = "sse2")]
pub(crate) mod avx512;
pub(crate) mod broadcast;
pub(crate) mod double;
pub(crate) mod flags;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
pub(crate) mod neon;
pub(crate) mod outlined;
pub(crate) mod pairs;
#[cfg(portable)]
pub(crate) mod portable;
pub(crate) mod prefetch;
pub(crate) mod root;
pub(crate) mod scalar;
pub(crate) mod scalar_row;
pub(crate) mod strip;
#[cfg(all(microcontroller, target_endian = "little"))]
mod words;

#[cfg(test)]
mod contract;

use crate::number::{Bf16, F16, I8};
use outlined::Outlined;

/// `array!(|i| …)`: the array of the values at 0, 1, …; always inlined.
///
/// Code can use an instruction set only where it is inlined into the function for which `dispatch` enabled
/// it. The compiler may choose not to inline `core::array::from_fn` and plain closures; it always inlines
/// `array!` and closures marked `#[inline(always)]`.
macro_rules! array {
    (|$i:ident| $element:expr) => {
        $crate::simd::array_of(
            #[inline(always)]
            |$i| $element,
        )
    };
}
pub(crate) use array;

/// The function behind [`array!`].
#[inline(always)]
pub(crate) fn array_of<const N: usize, T: Copy>(mut f: impl FnMut(usize) -> T) -> [T; N] {
    let mut array = [const { MaybeUninit::uninit() }; N];
    each::<N>(
        #[inline(always)]
        |i| array[i] = MaybeUninit::new(f(i)),
    );
    // SAFETY: `each` has set every element, and `MaybeUninit<T>` has the layout of `T`.
    unsafe { (&raw const array).cast::<[T; N]>().read() }
}

/// Calls `f` with 0, 1, … below `N`: a loop that is unrolled at every opt-level.
///
/// At `opt-level` `s` the compiler does not unroll loops over the registers of a group or tile, which then
/// live in memory.
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
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Outlined<Self::Token>
{
    /// Proof that the CPU has the instructions.
    type Token: Copy;

    /// Whether [`mul_add`](Self::mul_add) rounds once.
    const FMA: bool;

    /// `x` in each lane.
    fn splat(token: Self::Token, x: f32) -> Self;

    /// Loads all lanes.
    fn load(token: Self::Token, from: &[f32; L]) -> Self;

    /// Loads the lanes that `from` has, and `fill` into the others: the tail of a row.
    ///
    /// `fill` is the neutral element: 0 for a sum, −∞ for a maximum.
    #[inline(always)]
    fn load_partial(token: Self::Token, from: &[f32], fill: f32) -> Self {
        // Lane by lane: a copy of variable length would be a call of memcpy.
        Self::load(token, &array!(|i| if i < from.len() { from[i] } else { fill }))
    }

    /// Loads and widens all lanes, exactly.
    #[inline(always)]
    fn load_f16(token: Self::Token, from: &[F16; L]) -> Self {
        Self::load(token, &array!(|i| from[i].to_f32()))
    }

    /// Loads and widens all lanes, exactly.
    #[inline(always)]
    fn load_bf16(token: Self::Token, from: &[Bf16; L]) -> Self {
        Self::load(token, &array!(|i| from[i].to_f32()))
    }

    /// Loads and widens the lanes of two vectors, exactly, in the order that takes the fewest instructions:
    /// [`in_order`](Self::in_order) restores theirs.
    #[inline(always)]
    fn load_bf16_pair(token: Self::Token, from: &[[Bf16; L]; 2]) -> [Self; 2] {
        array!(|i| Self::load_bf16(token, &from[i]))
    }

    /// The lanes of [`load_bf16_pair`](Self::load_bf16_pair) in the order of memory.
    #[inline(always)]
    fn in_order(pair: [Self; 2]) -> [Self; 2] {
        pair
    }

    /// Loads and widens all lanes, exactly.
    #[inline(always)]
    fn load_i8(token: Self::Token, from: &[I8; L]) -> Self {
        Self::load(token, &array!(|i| from[i].to_f32()))
    }

    /// Stores all lanes.
    fn store(self, to: &mut [f32; L]);

    /// Stores the lanes that `to` has room for: the tail of a row.
    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        let lanes = self.to_array();
        for (i, &lane) in lanes.iter().enumerate() {
            if i < to.len() {
                to[i] = lane;
            }
        }
    }

    /// The lanes as an array.
    #[inline(always)]
    fn to_array(self) -> [f32; L] {
        let mut lanes = [0.0; L];
        self.store(&mut lanes);
        lanes
    }

    /// `self * factor + addend`, rounded once where [`FMA`](Self::FMA), else after the multiplication and
    /// after the addition.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// `then` in the lanes where `self > other`, `otherwise` in the others,
    /// those with a NaN included.
    fn select_gt(self, other: Self, then: Self, otherwise: Self) -> Self;

    /// `self * factor`, and +0 in the lanes where `self <= floor`; those lanes are set to 0 before the
    /// multiplication. `factor` is positive and finite in them.
    fn times_above(self, factor: Self, floor: Self) -> Self;

    /// `self` in the lanes where `self > other`, else `other`. So a NaN in `self` is dropped, and a NaN in
    /// `other` stays.
    ///
    /// x86's `maxps` has these semantics: it returns its second operand when either is NaN.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.select_gt(other, self, other)
    }

    /// The sum of the lanes, folded in half until one is left: lane `i` plus lane
    /// `i + L / 2` for `i < L / 2`, then the same with half as many lanes.
    #[inline(always)]
    fn sum(self, token: Self::Token) -> f32 {
        fold(
            token,
            self,
            #[inline(always)]
            |a, b| a + b,
        )
    }

    /// The largest lane; an arbitrary lane if one is NaN.
    #[inline(always)]
    fn largest(self, token: Self::Token) -> f32 {
        fold(token, self, Self::max)
    }

    /// The bits of `self` shifted left by 23: turns an integer in the lowest bits into an exponent field.
    fn low_bits_to_exponent(self) -> Self;

    /// The float whose exponent field is `self − floor`, and +0 where that is negative.
    ///
    /// Both are whole numbers between 2²³ and 2²⁴ whose bits differ only in the lower 16, so that a
    /// saturating subtraction of 16-bit integers computes the field.
    fn exponent_above(self, floor: Self) -> Self;

    /// Lane `j` of vector `i` becomes lane `i` of vector `j`.
    fn transpose(rows: [Self; L]) -> [Self; L];

    /// Four columns of `L` rows: element `j` of row `i` becomes lane `i` of vector `j`.
    ///
    /// On wide vectors this takes a third of the shuffles of [`transpose`](Self::transpose): the loads bring rows
    /// to their 128 bits.
    #[inline(always)]
    fn load_columns(token: Self::Token, rows: [&[f32; 4]; L]) -> [Self; 4] {
        array!(|j| Self::load(token, &array!(|i| rows[i][j])))
    }
}

/// An element that vectors load: a float, or one that is widened.
pub(crate) trait Load: Copy {
    /// The same number as a float.
    fn widen(self) -> f32;

    /// Four elements as floats.
    #[inline(always)]
    fn widen_four(four: [Self; 4]) -> [f32; 4] {
        array!(|i| four[i].widen())
    }

    /// [`widen_four`](Self::widen_four) of adjacent elements, in fewer instructions of a microcontroller.
    ///
    /// # Safety
    ///
    /// There are four elements at `at`, which is aligned for `u32`.
    #[inline(always)]
    unsafe fn widen_words(at: *const Self) -> [f32; 4] {
        // SAFETY: four elements are there.
        Self::widen_four(unsafe { *at.cast() })
    }

    /// Loads all lanes.
    fn load<const L: usize, V: Vector<L>>(token: V::Token, from: &[Self; L]) -> V;

    /// Loads the lanes of two vectors in any order: [`in_order`](Self::in_order) restores theirs.
    #[inline(always)]
    fn load_pair<const L: usize, V: Vector<L>>(token: V::Token, from: &[[Self; L]; 2]) -> [V; 2] {
        array!(|i| Self::load(token, &from[i]))
    }

    /// The lanes of [`load_pair`](Self::load_pair) in the order of memory.
    #[inline(always)]
    fn in_order<const L: usize, V: Vector<L>>(pair: [V; 2]) -> [V; 2] {
        pair
    }

    /// Loads the lanes that `from` has, and `fill` into the others.
    #[inline(always)]
    fn load_partial<const L: usize, V: Vector<L>>(token: V::Token, from: &[Self], fill: f32) -> V {
        V::load(token, &array!(|i| if i < from.len() { from[i].widen() } else { fill }))
    }
}

impl Load for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn load<const L: usize, V: Vector<L>>(token: V::Token, from: &[f32; L]) -> V {
        V::load(token, from)
    }

    #[inline(always)]
    fn load_partial<const L: usize, V: Vector<L>>(token: V::Token, from: &[f32], fill: f32) -> V {
        V::load_partial(token, from, fill)
    }
}

macro_rules! load {
    ($($element:ident $function:ident $words:ident { $($pairs:item)* })+) => {
        $(impl Load for $element {
            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }

            #[inline(always)]
            fn load<const L: usize, V: Vector<L>>(token: V::Token, from: &[Self; L]) -> V {
                V::$function(token, from)
            }

            #[cfg(all(microcontroller, target_endian = "little"))]
            #[inline(always)]
            unsafe fn widen_words(at: *const Self) -> [f32; 4] {
                // SAFETY: these words are there, and aligned.
                words::$words(unsafe { *at.cast() })
            }

            $($pairs)*
        })+
    };
}
load! {
    F16 load_f16 f16 {}
    Bf16 load_bf16 bf16 {
        #[inline(always)]
        fn load_pair<const L: usize, V: Vector<L>>(
            token: V::Token,
            from: &[[Self; L]; 2],
        ) -> [V; 2] {
            V::load_bf16_pair(token, from)
        }

        #[inline(always)]
        fn in_order<const L: usize, V: Vector<L>>(pair: [V; 2]) -> [V; 2] {
            V::in_order(pair)
        }
    }
    I8 load_i8 i8 {}
}

/// Combines each lane with its partner in the other half, until all lanes are equal.
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
