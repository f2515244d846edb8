//! `avx2`: eight lanes, FMA family, on x86 with AVX2 and FMA; detected at run time.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;
use core::ops::{Add, Div, Mul, Sub};

use super::{
    Vector, array,
    outlined::{separate, with_names},
};
use crate::number::{Bf16, F16, I8};

/// Makes a module `detected` as `cpufeatures::new!` does, for these features and F16C, which that macro does not know.
macro_rules! detected_with_f16c {
    ($($feature:tt),+) => {
        mod detected {
            use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

            cpufeatures::new!(others, $($feature),+);

            const UNKNOWN: u8 = 2;
            static FOUND: AtomicU8 = AtomicU8::new(UNKNOWN);

            #[inline]
            pub(super) fn get() -> bool {
                if cfg!(all($(target_feature = $feature),+, target_feature = "f16c")) {
                    return true;
                }
                match FOUND.load(Relaxed) {
                    UNKNOWN => find(),
                    found => found == 1,
                }
            }

            #[cold]
            fn find() -> bool {
                let found = others::get() && $crate::simd::avx2::has_f16c();
                FOUND.store(found.into(), Relaxed);
                found
            }
        }
    };
}
pub(super) use detected_with_f16c;

/// Whether the CPU has F16C. It works on the registers of AVX: the operating system is asked for those.
#[allow(unused_unsafe, reason = "safe in later versions of Rust")]
pub(super) fn has_f16c() -> bool {
    if cfg!(miri) {
        return cfg!(target_feature = "f16c");
    }
    // SAFETY: a CPU with SSE2, without which this module is not compiled, has `cpuid`.
    let features = unsafe { __cpuid(1) };
    features.ecx >> 29 & 1 == 1
}

detected_with_f16c!("avx", "avx2", "fma");

/// Proof that this machine has AVX, AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Avx2(pub(super) ());

impl Avx2 {
    /// Returns the token if the CPU and the operating system support these instructions.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        detected::get().then_some(Self(()))
    }
}

/// Eight lanes. Only a token, another `F32x8` or half an `F32x16` creates one, so that a value is as good a
/// proof as the token.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(pub(super) __m256);

macro_rules! operator {
    ($trait:ident, $function:ident, $intrinsic:ident) => {
        impl $trait for F32x8 {
            type Output = Self;
            #[inline(always)]
            fn $function(self, other: Self) -> Self {
                // SAFETY: AVX is available: `self` is the proof.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    };
}

operator!(Add, add, _mm256_add_ps);
operator!(Sub, sub, _mm256_sub_ps);
operator!(Mul, mul, _mm256_mul_ps);
operator!(Div, div, _mm256_div_ps);

/// The lower and the upper four lanes.
#[inline(always)]
fn halves(x: F32x8) -> [__m128; 2] {
    // SAFETY: AVX is available: `x` is the proof.
    unsafe { [_mm256_castps256_ps128(x.0), _mm256_extractf128_ps::<1>(x.0)] }
}

/// Eight lanes of ones, then eight of zeros. The eight integers from `8 - n` on are the mask of the first `n`
/// lanes.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The mask of the first `n.min(8)` lanes.
#[inline(always)]
fn first_lanes(_: Avx2, n: usize) -> __m256i {
    let begin = MASKS.as_ptr().wrapping_add(8 - n.min(8));
    // SAFETY: AVX is available: the token is the proof; eight of the sixteen integers are read, as the first
    // is at most number 8.
    unsafe { _mm256_loadu_si256(begin.cast()) }
}

with_names! { separate! { Avx2, F32x8, [target_feature(enable = "avx,avx2,fma,f16c")] } }

impl Vector<8> for F32x8 {
    type Token = Avx2;

    const FMA: bool = true;

    #[inline(always)]
    fn splat(_: Avx2, x: f32) -> Self {
        // SAFETY: AVX is available: the token is the proof.
        Self(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    fn load(_: Avx2, from: &[f32; 8]) -> Self {
        // SAFETY: AVX is available: the token is the proof; `from` is 8 floats.
        Self(unsafe { _mm256_loadu_ps(from.as_ptr()) })
    }

    #[inline(always)]
    fn load_f16(_: Avx2, from: &[F16; 8]) -> Self {
        // SAFETY: F16C is available: the token is the proof; `from` is 16 bytes.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_bf16(_: Avx2, from: &[Bf16; 8]) -> Self {
        // SAFETY: AVX2 is available: the token is the proof; `from` is 16 bytes.
        Self(unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        })
    }

    /// Even lanes, then odd ones. Widened in order, each vector takes a `vpmovzxwd`, for which Intel cores have one port.
    #[inline(always)]
    fn load_bf16_pair(_: Avx2, from: &[[Bf16; 8]; 2]) -> [Self; 2] {
        // SAFETY: AVX2 is available: the token is the proof; `from` is 32 bytes.
        unsafe {
            let bits = _mm256_loadu_si256(from.as_ptr().cast());
            let even = _mm256_slli_epi32::<16>(bits);
            let odd = _mm256_and_si256(bits, _mm256_set1_epi32(0xffff_0000_u32.cast_signed()));
            [Self(_mm256_castsi256_ps(even)), Self(_mm256_castsi256_ps(odd))]
        }
    }

    #[inline(always)]
    fn in_order([Self(even), Self(odd)]: [Self; 2]) -> [Self; 2] {
        // SAFETY: AVX is available: the vectors are the proof.
        unsafe {
            let (low, high) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
            [
                Self(_mm256_permute2f128_ps::<0x20>(low, high)),
                Self(_mm256_permute2f128_ps::<0x31>(low, high)),
            ]
        }
    }

    #[inline(always)]
    fn load_i8(_: Avx2, from: &[I8; 8]) -> Self {
        // SAFETY: AVX2 is available: the token is the proof; `from` is 8 bytes.
        Self(unsafe {
            let bytes = _mm_loadl_epi64(from.as_ptr().cast());
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
        })
    }

    #[inline(always)]
    fn load_partial(token: Avx2, from: &[f32], fill: f32) -> Self {
        let mask = first_lanes(token, from.len());
        // SAFETY: AVX and AVX2 are available: the token is the proof; the mask
        // keeps the load inside `from`.
        Self(unsafe {
            let lanes = _mm256_maskload_ps(from.as_ptr(), mask);
            _mm256_blendv_ps(_mm256_set1_ps(fill), lanes, _mm256_castsi256_ps(mask))
        })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 8]) {
        // SAFETY: AVX is available: `self` is the proof; `to` is 8 floats.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        let mask = first_lanes(Avx2(()), to.len()); // `self` is the proof
        // SAFETY: AVX is available: `self` is the proof; the mask keeps the store
        // inside `to`.
        unsafe { _mm256_maskstore_ps(to.as_mut_ptr(), mask, self.0) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: FMA is available: `self` is the proof.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    fn select_gt(self, other: Self, then: Self, otherwise: Self) -> Self {
        // SAFETY: AVX is available: `self` is the proof.
        Self(unsafe {
            let greater = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0);
            _mm256_blendv_ps(otherwise.0, then.0, greater)
        })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX is available: `self` is the proof.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sum(self, _: Avx2) -> f32 {
        // SAFETY: AVX is available: `self` is the proof.
        unsafe {
            let [low, high] = halves(self);
            let fours = _mm_add_ps(low, high);
            let twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
            _mm_cvtss_f32(_mm_add_ss(twos, _mm_movehdup_ps(twos)))
        }
    }

    #[inline(always)]
    fn largest(self, _: Avx2) -> f32 {
        // SAFETY: AVX is available: `self` is the proof.
        unsafe {
            let [low, high] = halves(self);
            let fours = _mm_max_ps(low, high);
            let twos = _mm_max_ps(fours, _mm_movehl_ps(fours, fours));
            _mm_cvtss_f32(_mm_max_ss(twos, _mm_movehdup_ps(twos)))
        }
    }

    #[inline(always)]
    fn times_above(self, factor: Self, floor: Self) -> Self {
        // SAFETY: AVX is available: `self` is the proof.
        Self(unsafe {
            let above = _mm256_cmp_ps::<_CMP_NLE_UQ>(self.0, floor.0);
            _mm256_mul_ps(_mm256_and_ps(self.0, above), factor.0)
        })
    }

    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        // SAFETY: AVX2 is available: `self` is the proof.
        Self(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.0))) })
    }

    #[inline(always)]
    fn exponent_above(self, floor: Self) -> Self {
        // SAFETY: AVX2 is available: `self` is the proof.
        Self(unsafe {
            let field =
                _mm256_subs_epu16(_mm256_castps_si256(self.0), _mm256_castps_si256(floor.0));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(field))
        })
    }

    /// Transposes squares of 4 × 4 lanes, then exchanges halves.
    #[inline(always)]
    fn transpose([a, b, c, d, e, f, g, h]: [Self; 8]) -> [Self; 8] {
        // Lanes i and i + 4 of four rows.
        let upper = transpose_halves([a, b, c, d]);
        let lower = transpose_halves([e, f, g, h]);
        // SAFETY: AVX is available: each row is the proof.
        let low =
            |i: usize| Self(unsafe { _mm256_permute2f128_ps::<0x20>(upper[i].0, lower[i].0) });
        // SAFETY: as above.
        let high =
            |i: usize| Self(unsafe { _mm256_permute2f128_ps::<0x31>(upper[i].0, lower[i].0) });
        [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3)]
    }

    #[inline(always)]
    fn load_columns(_: Avx2, rows: [&[f32; 4]; 8]) -> [Self; 4] {
        transpose_halves(array!(|i| {
            // SAFETY: AVX is available: the token is the proof; each row is 4 floats.
            Self(unsafe {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(rows[i].as_ptr()));
                _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(rows[i + 4].as_ptr()))
            })
        }))
    }
}

/// Transposes the square of 4 × 4 lanes in each half: even and odd lanes of pairs of rows, then of both pairs.
///
/// Intel cores since Ice Lake have two ports for `vshufps`, and one for `vunpck*`, to which LLVM turns other orders.
#[inline(always)]
fn transpose_halves([F32x8(a), F32x8(b), F32x8(c), F32x8(d)]: [F32x8; 4]) -> [F32x8; 4] {
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    // SAFETY: AVX is available: each row is the proof.
    unsafe {
        let (ab_even, ab_odd) = (_mm256_shuffle_ps::<EVEN>(a, b), _mm256_shuffle_ps::<ODD>(a, b));
        let (cd_even, cd_odd) = (_mm256_shuffle_ps::<EVEN>(c, d), _mm256_shuffle_ps::<ODD>(c, d));
        [
            F32x8(_mm256_shuffle_ps::<EVEN>(ab_even, cd_even)),
            F32x8(_mm256_shuffle_ps::<EVEN>(ab_odd, cd_odd)),
            F32x8(_mm256_shuffle_ps::<ODD>(ab_even, cd_even)),
            F32x8(_mm256_shuffle_ps::<ODD>(ab_odd, cd_odd)),
        ]
    }
}
