//! The square root of one float.

use libm as _; // unused on targets with a square-root instruction

/// `√x`, correctly rounded, by one instruction; `libm` takes 55.
#[cfg(all(target_arch = "x86_64", target_feature = "sse"))]
pub(crate) fn sqrt(x: f32) -> f32 {
    use core::arch::x86_64::{_mm_cvtss_f32, _mm_set_ss, _mm_sqrt_ss};
    // SAFETY: the build has SSE.
    unsafe { _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))) }
}

#[cfg(not(any(all(target_arch = "x86_64", target_feature = "sse"), microcontroller)))]
pub(crate) use libm::sqrtf as sqrt;

/// `√x`, correctly rounded, by the instruction of a core with the hard-float ABI. rustc 1.95 does not accept
/// a float operand there, so that `x` goes through an integer register.
#[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
#[inline(always)]
pub(crate) fn sqrt(x: f32) -> f32 {
    let mut bits = x.to_bits();
    // SAFETY: the build has these instructions; they change only the registers named.
    unsafe {
        core::arch::asm!(
            "vmov s0, {bits}",
            "vsqrt.f32 s0, s0",
            "vmov {bits}, s0",
            bits = inout(reg) bits,
            out("s0") _,
            options(pure, nomem, nostack),
        );
    }
    f32::from_bits(bits)
}

/// `√x` for a finite `x` of at least 1, correctly rounded.
///
/// Computed bit by bit: 200 instructions and 100 bytes of flash. `libm` uses a table and takes 480 bytes.
/// `every_root_is_that_of_libm` tests every whole `x` up to 2²⁴.
#[cfg(any(test, all(microcontroller, not(target_abi = "eabihf"))))]
pub(crate) fn sqrt_by_bits(x: f32) -> f32 {
    let bits = x.to_bits();
    // x = rest · 4^k, where `rest` is in [1, 4) and has 24 fractional bits.
    let mut rest = ((bits & 0x7f_ffff) | 0x80_0000) << (2 - ((bits >> 23) & 1));
    let (mut root, mut twice, mut bit) = (0, 0, 1 << 24);
    // The remainder of a perfect square is 0 early.
    while bit > 0 && rest > 0 {
        if twice + bit <= rest {
            rest -= twice + bit;
            twice += 2 * bit;
            root += bit;
        }
        rest *= 2;
        bit /= 2;
    }
    // The last bit of `root` is the rounding bit. A square root is never a tie.
    let exponent = (bits >> 23).div_ceil(2) + 62; // the leading bit of the root adds 1
    f32::from_bits(root.div_ceil(2) + (exponent << 23))
}

#[cfg(all(microcontroller, not(target_abi = "eabihf")))]
pub(crate) use sqrt_by_bits as sqrt;

#[cfg(test)]
mod tests {
    use super::{sqrt, sqrt_by_bits};

    #[test]
    fn every_root_is_that_of_libm() {
        let whole = (1..=1 << 24).map(|x: u32| x as f32);
        let any = (1f32.to_bits()..f32::INFINITY.to_bits()).step_by(1009).map(f32::from_bits);
        for x in whole.chain(any) {
            let root = libm::sqrtf(x).to_bits();
            assert_eq!([sqrt(x), sqrt_by_bits(x)].map(f32::to_bits), [root; 2], "{x}");
        }
    }
}
