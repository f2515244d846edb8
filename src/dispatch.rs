//! Back ends: detection, selection, and the only functions that enter a kernel with its instructions enabled.

#![allow(unsafe_code, reason = "calls functions with target features that detection has proved")]

use core::fmt;

#[cfg(target_feature = "sse2")]
use crate::simd::{
    avx2::{Avx2, F32x8},
    avx512::{Avx512, F32x16},
};
use crate::{
    kernel::{Kernel, Name, tile::Product},
    simd::{
        flags::Flags,
        scalar::{F32x1, Scalar},
    },
};

#[cfg(portable)]
use crate::simd::portable::{F32x4, Portable};

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
use crate::simd::neon::{F32x4 as NeonF32x4, Neon};

/// How a back end computes `a * b + c`: with one rounding or two.
///
/// Back ends of one family return the same bits for the same input on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Family {
    /// The FMA family: a fused multiply-add, rounded once.
    Fma,
    /// The non-FMA family: a multiplication, then an addition, each rounded. Runs on every machine.
    NonFma,
}

/// A back end: an instruction set that this machine supports.
///
/// Every operation is a free function, which runs on [`best`](Self::best), and a method
/// of the same name on this type.
///
/// ```
/// use sdpa::Backend;
///
/// for backend in Backend::available() {
///     assert_eq!(backend.dot(&[1.0, 2.0], &[3.0, 4.0]), Ok(11.0));
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Backend(Token);

/// The tokens of the back ends: each proves that its instructions are supported.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Token {
    Scalar(Scalar),
    #[cfg(portable)]
    Portable(Portable),
    #[cfg(target_feature = "sse2")]
    Avx2(Avx2),
    #[cfg(target_feature = "sse2")]
    Avx512(Avx512),
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon(Neon),
}

impl Backend {
    /// Scalar Rust code, one lane; non-FMA family.
    pub const SCALAR: Self = Self(Token::Scalar(Scalar));

    /// 4-lane vectors of the `wide` crate, with the SIMD instructions of the build; non-FMA family. Equals
    /// [`SCALAR`](Self::SCALAR) on targets without them: microcontrollers (32-bit Arm and RISC-V, Xtensa),
    /// and x86 without SSE2.
    pub const PORTABLE: Self = {
        #[cfg(portable)]
        let portable = Self(Token::Portable(Portable));
        #[cfg(not(portable))]
        let portable = Self::SCALAR;
        portable
    };

    /// Returns the fastest back end of this machine, which the free functions use.
    #[inline]
    pub fn best() -> Self {
        #[cfg(target_feature = "sse2")]
        if let Some(token) = Avx512::detect() {
            return Self(Token::Avx512(token));
        } else if let Some(token) = Avx2::detect() {
            return Self(Token::Avx2(token));
        }
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        return Self(Token::Neon(Neon));
        #[cfg(not(all(target_arch = "aarch64", target_feature = "neon")))]
        Self::PORTABLE
    }

    /// Returns all back ends of this machine.
    pub fn available() -> impl Iterator<Item = Self> {
        [
            Some(Self::SCALAR),
            #[cfg(portable)]
            Some(Self::PORTABLE),
            #[cfg(target_feature = "sse2")]
            Avx2::detect().map(|token| Self(Token::Avx2(token))),
            #[cfg(target_feature = "sse2")]
            Avx512::detect().map(|token| Self(Token::Avx512(token))),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Some(Self(Token::Neon(Neon))),
        ]
        .into_iter()
        .flatten()
    }

    /// Returns the back end with this [`name`](Self::name), if this machine supports it.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::available().find(|backend| backend.name() == name)
    }

    /// The name: `"scalar"`, `"portable"`, `"avx2"`, `"avx512"`, `"neon"`.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Token::Scalar(_) => "scalar",
            #[cfg(portable)]
            Token::Portable(_) => "portable",
            #[cfg(target_feature = "sse2")]
            Token::Avx2(_) => "avx2",
            #[cfg(target_feature = "sse2")]
            Token::Avx512(_) => "avx512",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Token::Neon(_) => "neon",
        }
    }

    /// The family, which determines the bits of the results.
    pub const fn family(self) -> Family {
        match self.0 {
            Token::Scalar(_) => Family::NonFma,
            #[cfg(portable)]
            Token::Portable(_) => Family::NonFma,
            #[cfg(target_feature = "sse2")]
            Token::Avx2(_) | Token::Avx512(_) => Family::Fma,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Token::Neon(_) => Family::Fma,
        }
    }

    /// Runs the product on this back end.
    ///
    /// Its callers are inlined into their own callers, so that the parts of a view stay in registers until they are
    /// stored here, one by one, as the kernel reads them. Where views are copied, the two halves of a copy are
    /// loaded as one: the load waits until both stores have left the core, and with it all that comes after.
    /// This function is not inlined, or each crate that calls it would compile the kernel again.
    #[cfg_attr(portable, inline(never))]
    #[cfg_attr(not(portable), inline(always))]
    pub(crate) fn run_product(self, product: &mut Product<'_>) {
        self.run(product);
    }

    /// Runs `kernel` on this back end.
    #[inline(always)]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Token::Scalar(token) => one_lane(kernel, token),
            #[cfg(portable)]
            Token::Portable(token) => portable::run(kernel, token),
            #[cfg(target_feature = "sse2")]
            Token::Avx2(token) => avx2::run(kernel, token),
            #[cfg(target_feature = "sse2")]
            // The family is the same, and so are the bits.
            Token::Avx512(token) if kernel.fits_8_lanes() => avx2::run(kernel, token.avx2()),
            #[cfg(target_feature = "sse2")]
            Token::Avx512(token) => avx512::run(kernel, token),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Token::Neon(token) => neon::run(kernel, token),
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.name())
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Backend {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Backend({=str})", self.name());
    }
}

// One function per back end and kernel, which enables the instructions; a profile shows its name. On targets with
// several back ends they are never inlined: their callers stay small enough to be inlined, and operands are written
// to memory once, where the kernel reads them. The const arguments are the lanes, the vectors in a group of partial
// sums, and the rows and vectors of a tile. Each comment counts the registers of a tile: its sums, and its operands
// from `right` and `left`.

/// Makes a module of a back end: its functions, and `run`, which chooses by the kernel's name. Generic functions, as
/// a kernel that is inlined into its caller's crate is compiled there.
macro_rules! functions {
    ($($back_end:tt)+) => {
        functions_of! { { $($back_end)+ }
            Attention attention
            Bias bias
            Dot dot
            Exp exp
            JoinStates join_states
            LogSumExp log_sum_exp
            Merge merge
            Product product
            ProjectElements project_elements
            Rotate rotate
            ScaleRows scale_rows
            Slope slope
            Softcap softcap
            Softmax softmax
            SoftmaxColumns softmax_columns
            SoftmaxPanels softmax_panels
            SoftmaxRows softmax_rows
            Widen widen
        }
    };
}

macro_rules! functions_of {
    ({
        $backend:ident($token:ty) #$attribute:tt
        run::<$l:literal, $g:literal, $r:literal, $c:literal, $vector:ident>
    } $($name:ident $function:ident)+) => {
        mod $backend {
            use super::*;

            $(#$attribute
            fn $function<K: Kernel>(kernel: K, token: $token) -> K::Output {
                kernel.run::<$l, $g, $r, $c, $vector>(token)
            })+

            /// Those of tests.
            #$attribute
            fn other<K: Kernel>(kernel: K, token: $token) -> K::Output {
                kernel.run::<$l, $g, $r, $c, $vector>(token)
            }

            #[inline(always)]
            #[allow(unused_unsafe, reason = "safe without features")]
            pub(super) fn run<K: Kernel>(kernel: K, token: $token) -> K::Output {
                // SAFETY: the token proves that the instructions of the attribute are supported.
                unsafe {
                    $(if const { matches!(K::NAME, Name::$name) } {
                        return $function(kernel, token);
                    })+
                    other(kernel, token)
                }
            }
        }
    };
}

/// Runs `kernel` on one lane, and restores the flags that it may not raise.
#[cfg_attr(portable, inline(never))]
#[cfg_attr(not(portable), inline(always))]
fn one_lane<K: Kernel>(kernel: K, token: Scalar) -> K::Output {
    // On other targets the compiler vectorises this code, and lanes without an element may raise flags.
    let flags = (!cfg!(microcontroller)).then(Flags::read);
    // A function of its own: in one that reads the flags LLVM forms vectors half as long for `dot`.
    let output = scalar::run(kernel, token);
    if let Some(flags) = flags {
        flags.restore();
    }
    output
}

// 4 × 4 sums, 4 of `right` and 1 of `left`: 21 of a Cortex-M4F's 32 registers.
#[cfg(portable)]
functions! { scalar(Scalar) #[inline(never)] run::<1, 4, 4, 4, F32x1> }
#[cfg(not(portable))]
functions! { scalar(Scalar) #[inline(always)] run::<1, 4, 4, 4, F32x1> }

// 4 × 2 sums, 2 of `right`, 1 of `left` and 1 product: 12 of SSE2's 16 registers.
#[cfg(portable)]
functions! { portable(Portable) #[inline(never)] run::<4, 1, 4, 2, F32x4> }

// 6 × 2 sums, 2 of `right` and 1 of `left`: 15 of 16 registers. 12 sums hide
// 4 cycles of latency on 2 ports; 8 loads per `k` stay under 2 per cycle.
#[cfg(target_feature = "sse2")]
functions! { avx2(Avx2) #[target_feature(enable = "avx,avx2,fma,f16c")] run::<8, 2, 6, 2, F32x8> }

// 8 × 2 sums, 2 of `right` and 1 of `left`: 19 of 32 registers. 16 sums hide 4
// cycles of latency on 2 ports twice over. More rows or more vectors would leave more of the tile unused on
// small matrices.
#[cfg(target_feature = "sse2")]
functions! { avx512(Avx512) #[target_feature(enable = "avx512f,avx512bw")] run::<16, 1, 8, 2, F32x16> }

// 8 × 2 sums, 2 of `right` and 1 of `left`: 19 of 32 registers. 16 sums hide 4
// cycles of latency on 4 ports.
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
functions! { neon(Neon) #[inline(never)] run::<4, 4, 8, 2, NeonF32x4> }
