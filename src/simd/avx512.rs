//! `avx512`: sixteen lanes, FMA family, on x86 with AVX-512F and BW; detected at run time.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;
use core::ops::{Add, Div, Mul, Sub};

use super::{
    Vector, array,
    avx2::{Avx2, F32x8, detected_with_f16c},
    outlined::{separate, with_names},
};
use crate::number::{Bf16, F16, I8};

detected_with_f16c!("avx", "avx2", "fma", "avx512f", "avx512bw");

/// Proof that this machine has AVX-512F and AVX-512BW, and what [`Avx2`] proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Avx512(Avx2);

impl Avx512 {
    /// Returns the token if the CPU and the operating system support these instructions.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        // One test of all features: `Backend::best` makes it in every call.
        detected::get().then_some(Self(Avx2(())))
    }

    /// The token of half as many lanes.
    #[inline(always)]
    pub(crate) fn avx2(self) -> Avx2 {
        self.0
    }
}

/// Sixteen lanes. Only a token or another `F32x16` creates one, so that a value is as good a proof as the
/// token.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

macro_rules! operator {
    ($trait:ident, $function:ident, $intrinsic:ident) => {
        impl $trait for F32x16 {
            type Output = Self;
            #[inline(always)]
            fn $function(self, other: Self) -> Self {
                // SAFETY: AVX-512F is available: `self` is the proof.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    };
}

operator!(Add, add, _mm512_add_ps);
operator!(Sub, sub, _mm512_sub_ps);
operator!(Mul, mul, _mm512_mul_ps);
operator!(Div, div, _mm512_div_ps);

/// The lower and the upper eight lanes.
#[inline(always)]
fn halves(F32x16(x): F32x16) -> [F32x8; 2] {
    // SAFETY: AVX-512F and AVX are available: `x` is the proof.
    unsafe {
        let upper = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x));
        [F32x8(_mm512_castps512_ps256(x)), F32x8(_mm256_castpd_ps(upper))]
    }
}

/// The mask of the first `n.min(16)` lanes.
#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

with_names! { separate! { Avx512, F32x16, [target_feature(enable = "avx512f,avx512bw")] } }

impl Vector<16> for F32x16 {
    type Token = Avx512;

    const FMA: bool = true;

    #[inline(always)]
    fn splat(_: Avx512, x: f32) -> Self {
        // SAFETY: AVX-512F is available: the token is the proof.
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    fn load(_: Avx512, from: &[f32; 16]) -> Self {
        // SAFETY: AVX-512F is available: the token is the proof; `from` is 16 floats.
        Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
    }

    #[inline(always)]
    fn load_f16(_: Avx512, from: &[F16; 16]) -> Self {
        // With the other intrinsic the instruction raises no flag, and then it cannot load.
        // SAFETY: AVX-512F is available: the token is the proof; `from` is 32 bytes.
        Self(unsafe {
            let bits = _mm256_loadu_si256(from.as_ptr().cast());
            _mm512_cvt_roundph_ps::<_MM_FROUND_CUR_DIRECTION>(bits)
        })
    }

    #[inline(always)]
    fn load_bf16(_: Avx512, from: &[Bf16; 16]) -> Self {
        // SAFETY: AVX-512F is available: the token is the proof; `from` is 32 bytes.
        Self(unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        })
    }

    /// Even lanes, then odd ones, as on AVX2.
    #[inline(always)]
    fn load_bf16_pair(_: Avx512, from: &[[Bf16; 16]; 2]) -> [Self; 2] {
        // SAFETY: AVX-512F is available: the token is the proof; `from` is 64 bytes.
        unsafe {
            let bits = _mm512_loadu_si512(from.as_ptr().cast());
            let even = _mm512_slli_epi32::<16>(bits);
            let odd = _mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
            [Self(_mm512_castsi512_ps(even)), Self(_mm512_castsi512_ps(odd))]
        }
    }

    #[inline(always)]
    fn in_order([Self(even), Self(odd)]: [Self; 2]) -> [Self; 2] {
        // SAFETY: AVX-512F is available: the vectors are the proof.
        unsafe {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
            array!(|i| Self(_mm512_permutex2var_ps(even, [low, high][i], odd)))
        }
    }

    #[inline(always)]
    fn load_i8(_: Avx512, from: &[I8; 16]) -> Self {
        // SAFETY: AVX-512F is available: the token is the proof; `from` is 16 bytes.
        Self(unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
        })
    }

    #[inline(always)]
    fn load_partial(_: Avx512, from: &[f32], fill: f32) -> Self {
        let mask = first_lanes(from.len());
        // SAFETY: AVX-512F is available: the token is the proof; the mask keeps the load
        // inside `from`.
        Self(unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, from.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 16]) {
        // SAFETY: AVX-512F is available: `self` is the proof; `to` is 16 floats.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        let mask = first_lanes(to.len());
        // SAFETY: AVX-512F is available: `self` is the proof; the mask keeps the
        // store inside `to`.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, self.0) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: AVX-512F is available: `self` is the proof.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    fn select_gt(self, other: Self, then: Self, otherwise: Self) -> Self {
        // SAFETY: AVX-512F is available: `self` is the proof.
        Self(unsafe {
            let greater = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0);
            _mm512_mask_blend_ps(greater, otherwise.0, then.0)
        })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX-512F is available: `self` is the proof.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sum(self, Avx512(token): Avx512) -> f32 {
        let [low, high] = halves(self);
        (low + high).sum(token)
    }

    #[inline(always)]
    fn largest(self, Avx512(token): Avx512) -> f32 {
        let [low, high] = halves(self);
        low.max(high).largest(token)
    }

    #[inline(always)]
    fn times_above(self, factor: Self, floor: Self) -> Self {
        // SAFETY: AVX-512F is available: `self` is the proof.
        Self(unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(self.0, floor.0);
            _mm512_maskz_mul_ps(above, self.0, factor.0)
        })
    }

    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        // SAFETY: AVX-512F is available: `self` is the proof.
        Self(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0))) })
    }

    #[inline(always)]
    fn exponent_above(self, floor: Self) -> Self {
        // SAFETY: AVX-512F and BW are available: `self` is the proof.
        Self(unsafe {
            let (field, floor) = (_mm512_castps_si512(self.0), _mm512_castps_si512(floor.0));
            let field = _mm512_subs_epu16(field, floor);
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(field))
        })
    }

    /// Transposes squares of 4 × 4 lanes, whose rows are 128 bits, then exchanges the squares.
    #[inline(always)]
    fn transpose(mut rows: [Self; 16]) -> [Self; 16] {
        /// Lanes of 128 bits: 0 and 2 of each operand, 1 and 3 of each.
        const EVEN: i32 = 0b10_00_10_00;
        const ODD: i32 = 0b11_01_11_01;
        for i in 0..4 {
            let fours = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
            [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]] =
                transpose_quarters(fours);
        }
        // Vector i + 4 j has lane i + 4 k of the rows 4 j .. 4 j + 4 in its k-th 128 bits.
        for i in 0..4 {
            let [Self(a), Self(b), Self(c), Self(d)] =
                [rows[i], rows[i + 4], rows[i + 8], rows[i + 12]];
            // SAFETY: AVX-512F is available: each row is the proof.
            unsafe {
                let ab_even = _mm512_shuffle_f32x4::<EVEN>(a, b);
                let ab_odd = _mm512_shuffle_f32x4::<ODD>(a, b);
                let cd_even = _mm512_shuffle_f32x4::<EVEN>(c, d);
                let cd_odd = _mm512_shuffle_f32x4::<ODD>(c, d);
                rows[i] = Self(_mm512_shuffle_f32x4::<EVEN>(ab_even, cd_even));
                rows[i + 4] = Self(_mm512_shuffle_f32x4::<EVEN>(ab_odd, cd_odd));
                rows[i + 8] = Self(_mm512_shuffle_f32x4::<ODD>(ab_even, cd_even));
                rows[i + 12] = Self(_mm512_shuffle_f32x4::<ODD>(ab_odd, cd_odd));
            }
        }
        rows
    }

    #[inline(always)]
    fn load_columns(_: Avx512, rows: [&[f32; 4]; 16]) -> [Self; 4] {
        transpose_quarters(array!(|i| {
            // SAFETY: AVX-512F is available: the token is the proof; each row is 4 floats.
            Self(unsafe {
                let quarter = |k: usize| _mm_loadu_ps(rows[i + 4 * k].as_ptr());
                let first = _mm512_castps128_ps512(quarter(0));
                let second = _mm512_insertf32x4::<1>(first, quarter(1));
                let third = _mm512_insertf32x4::<2>(second, quarter(2));
                _mm512_insertf32x4::<3>(third, quarter(3))
            })
        }))
    }
}

/// Transposes the square of 4 × 4 lanes in each 128 bits: pairs of lanes, then pairs of pairs.
#[inline(always)]
fn transpose_quarters([F32x16(a), F32x16(b), F32x16(c), F32x16(d)]: [F32x16; 4]) -> [F32x16; 4] {
    const LOW: i32 = 0b01_00_01_00;
    const HIGH: i32 = 0b11_10_11_10;
    // SAFETY: AVX-512F is available: each row is the proof.
    unsafe {
        let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        [
            F32x16(_mm512_shuffle_ps::<LOW>(ab_low, cd_low)),
            F32x16(_mm512_shuffle_ps::<HIGH>(ab_low, cd_low)),
            F32x16(_mm512_shuffle_ps::<LOW>(ab_high, cd_high)),
            F32x16(_mm512_shuffle_ps::<HIGH>(ab_high, cd_high)),
        ]
    }
}
