//! Elements widened from words of memory: on a microcontroller one load, or two, has four elements.

#[cfg(not(converts_f16))]
use super::array;
#[cfg(not(converts_f16))]
use crate::number::F16;

#[cfg(converts_f16)]
#[inline(always)]
pub(super) fn f16([a, b]: [u32; 2]) -> [f32; 4] {
    // By way of core registers: rustc takes those of an FPU without doubles as clobbers only.
    // SAFETY: reads and writes registers. `build.rs` sets the cfg where every FPU has these instructions.
    unsafe {
        let w: u32;
        let x: u32;
        let y: u32;
        let z: u32;
        core::arch::asm!(
            "vmov s12, s13, {a}, {b}",
            "vcvtt.f32.f16 s15, s13",
            "vcvtb.f32.f16 s14, s13",
            "vcvtt.f32.f16 s13, s12",
            "vcvtb.f32.f16 s12, s12",
            "vmov {w}, {x}, s12, s13",
            "vmov {y}, {z}, s14, s15",
            a = in(reg) a, b = in(reg) b,
            w = lateout(reg) w, x = lateout(reg) x, y = lateout(reg) y, z = lateout(reg) z,
            out("s12") _, out("s13") _, out("s14") _, out("s15") _,
            options(pure, nomem, nostack, preserves_flags),
        );
        [w, x, y, z].map(f32::from_bits)
    }
}

/// A number of 16 bits whose fields are moved to those of `f32` becomes that float by a power of two, subnormals too.
/// Only ∞ and NaN do not.
#[cfg(not(converts_f16))]
#[inline(always)]
pub(super) fn f16(words: [u32; 2]) -> [f32; 4] {
    const FACTOR: f32 = f32::from_bits((127 + 112) << 23);
    const FIELDS: u32 = 0x8fff_e000; // all but the upper three bits of the exponent
    let largest_exponent = |word: u32| ((word & 0x7c00_7c00) + 0x0400_0400) & 0x8000_8000;
    let [a, b] = words;
    if (largest_exponent(a) | largest_exponent(b)) != 0 {
        return any_f16(words);
    }
    let float = |bits: i32| f32::from_bits(bits as u32 & FIELDS) * FACTOR;
    let lower = |word: u32| float(i32::from(word as i16) << 13);
    let upper = |word: u32| float(word as i32 >> 3);
    // Not `map`, which compiled for size is a loop.
    [lower(a), upper(a), lower(b), upper(b)]
}

#[cfg(not(converts_f16))]
#[cold]
#[inline(never)]
fn any_f16(words: [u32; 2]) -> [f32; 4] {
    array!(|i| F16::from_bits((words[i / 2] >> (16 * (i % 2))) as u16).to_f32())
}

#[inline(always)]
pub(super) fn bf16([a, b]: [u32; 2]) -> [f32; 4] {
    const UPPER: u32 = 0xffff_0000;
    [a << 16, a & UPPER, b << 16, b & UPPER].map(f32::from_bits)
}

#[inline(always)]
pub(super) fn i8([word]: [u32; 1]) -> [f32; 4] {
    let byte = |shift: u32| f32::from((word >> shift) as i8);
    [byte(0), byte(8), byte(16), byte(24)]
}
