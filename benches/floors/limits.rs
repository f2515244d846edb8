//! The limits of this core: how fast it loads two aligned arrays, and how fast it forms
//! multiply-adds in registers. Shares nothing with the library.

#![allow(unsafe_code)] // loops of exact instructions

use std::hint::black_box;

use sdpa::Backend;

use crate::aligned::Aligned;

/// Loads each of two arrays once, and nothing else.
pub(crate) fn load_both(a: &Aligned, b: &Aligned, wide: bool) {
    // SAFETY: the back end that asks was detected, so the machine has its instructions.
    unsafe {
        if wide {
            load_both_avx512(a.floats(), b.floats())
        } else {
            load_both_avx2(a.floats(), b.floats())
        }
    }
}

#[target_feature(enable = "avx2")]
fn load_both_avx2(a: &[f32], b: &[f32]) {
    for (a, b) in a.as_chunks::<64>().0.iter().zip(b.as_chunks::<64>().0) {
        // SAFETY: 64 aligned floats of each are read.
        unsafe {
            core::arch::asm!(
                "vmovaps {t}, [{a} + 0]", "vmovaps {t}, [{b} + 0]",
                "vmovaps {t}, [{a} + 32]", "vmovaps {t}, [{b} + 32]",
                "vmovaps {t}, [{a} + 64]", "vmovaps {t}, [{b} + 64]",
                "vmovaps {t}, [{a} + 96]", "vmovaps {t}, [{b} + 96]",
                "vmovaps {t}, [{a} + 128]", "vmovaps {t}, [{b} + 128]",
                "vmovaps {t}, [{a} + 160]", "vmovaps {t}, [{b} + 160]",
                "vmovaps {t}, [{a} + 192]", "vmovaps {t}, [{b} + 192]",
                "vmovaps {t}, [{a} + 224]", "vmovaps {t}, [{b} + 224]",
                a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), t = out(ymm_reg) _,
                options(nostack, readonly, preserves_flags),
            );
        }
    }
    core::arch::x86_64::_mm256_zeroupper();
}

#[target_feature(enable = "avx512f")]
fn load_both_avx512(a: &[f32], b: &[f32]) {
    for (a, b) in a.as_chunks::<64>().0.iter().zip(b.as_chunks::<64>().0) {
        // SAFETY: 64 aligned floats of each are read.
        unsafe {
            core::arch::asm!(
                "vmovaps {t}, [{a} + 0]", "vmovaps {t}, [{b} + 0]",
                "vmovaps {t}, [{a} + 64]", "vmovaps {t}, [{b} + 64]",
                "vmovaps {t}, [{a} + 128]", "vmovaps {t}, [{b} + 128]",
                "vmovaps {t}, [{a} + 192]", "vmovaps {t}, [{b} + 192]",
                a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), t = out(zmm_reg) _,
                options(nostack, readonly, preserves_flags),
            );
        }
    }
    core::arch::x86_64::_mm256_zeroupper();
}

/// The FLOP of one call of [`peak`]: 1200 multiply-adds of 16 lanes, or 2400 of 8, 4800 of 4, 19200 of 1.
pub(crate) const PEAK_FLOP: f64 = 2.0 * 1200.0 * 16.0;

/// Multiply-adds in registers, with the vectors of a back end: twelve chains, which hide any latency. In the
/// non-FMA family a multiplication, then an addition.
pub(crate) fn peak(backend: Backend) {
    match backend.name() {
        "scalar" => peak_scalar(),
        "portable" => peak_sse2(),
        // SAFETY: `backend` was detected, so the machine has its instructions.
        "avx512" => unsafe { peak_avx512() },
        // SAFETY: as above: the other back ends of x86-64 are those before, and AVX2 with FMA.
        _ => unsafe { peak_avx2() },
    }
}

fn peak_scalar() {
    use core::arch::x86_64::*;
    // SAFETY: every x86-64 has SSE.
    let one = |x| unsafe { _mm_set_ss(x) };
    let (x, y) = (one(black_box(0.5)), one(black_box(0.25)));
    let mut chains = [y; 12].map(black_box);
    for _ in 0..1600 {
        for chain in &mut chains {
            // SAFETY: as above.
            *chain = unsafe { _mm_add_ss(_mm_mul_ss(*chain, x), y) };
        }
    }
    black_box(chains);
}

fn peak_sse2() {
    use core::arch::x86_64::*;
    // SAFETY: every x86-64 has SSE.
    let all = |x| unsafe { _mm_set1_ps(x) };
    let (x, y) = (all(black_box(0.5)), all(black_box(0.25)));
    let mut chains = [y; 12].map(black_box);
    for _ in 0..400 {
        for chain in &mut chains {
            // SAFETY: as above.
            *chain = unsafe { _mm_add_ps(_mm_mul_ps(*chain, x), y) };
        }
    }
    black_box(chains);
}

#[target_feature(enable = "avx2,fma")]
fn peak_avx2() {
    use core::arch::x86_64::*;
    let (x, y) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
    let mut chains = [y; 12];
    for _ in 0..200 {
        for chain in &mut chains {
            *chain = _mm256_fmadd_ps(*chain, x, y);
        }
    }
    black_box(chains);
}

#[target_feature(enable = "avx512f")]
fn peak_avx512() {
    use core::arch::x86_64::*;
    let (x, y) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
    let mut chains = [y; 12];
    for _ in 0..100 {
        for chain in &mut chains {
            *chain = _mm512_fmadd_ps(*chain, x, y);
        }
    }
    black_box(chains);
}
