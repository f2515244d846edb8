//! The floating-point exception flags invalid and divide-by-zero.
//!
//! What a masked key holds is multiplied like any other, and its products are thrown away: where
//! they are infinite or NaN they raise a flag that tells of nothing in the result. And the
//! compiler forms vectors of what is written for one lane, whose other lanes hold anything. Calls
//! that may meet either take those flags back.

/// The flags as they were, and all other bits set.
#[derive(Clone, Copy)]
pub(crate) struct Flags(usize);

impl Flags {
    /// Those of now.
    #[inline(always)]
    pub(crate) fn read() -> Self {
        Self(machine::read() | !machine::RAISED)
    }

    /// Takes back what has been raised since.
    #[inline(always)]
    pub(crate) fn restore(self) {
        let now = machine::read();
        let before = now & self.0;
        // A comparison costs a microcontroller more than to write them.
        if cfg!(microcontroller) || now != before {
            machine::write(before);
        }
    }
}

// A register that rounding modes share is written as it was read, but for the flags.

#[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse", not(miri)))]
mod machine {
    use core::arch::asm;

    /// MXCSR: invalid, divide-by-zero.
    pub(super) const RAISED: usize = 1 | 1 << 2;

    #[inline(always)]
    pub(super) fn read() -> usize {
        let mut control = 0u32;
        // SAFETY: the build has SSE; four bytes are written, of a variable of that size.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack, preserves_flags))
        };
        control as usize
    }

    #[inline(always)]
    pub(super) fn write(control: usize) {
        let control = control as u32;
        // SAFETY: the build has SSE; four bytes are read, of a variable of that size.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack)) };
    }
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon", not(miri)))]
mod machine {
    use core::arch::asm;

    /// FPSR: invalid, divide-by-zero.
    pub(super) const RAISED: usize = 1 | 1 << 1;

    #[inline(always)]
    pub(super) fn read() -> usize {
        let status;
        // SAFETY: the build has floating point; nothing else is touched.
        unsafe { asm!("mrs {}, fpsr", out(reg) status, options(nostack, preserves_flags)) };
        status
    }

    #[inline(always)]
    pub(super) fn write(status: usize) {
        // SAFETY: the build has floating point; nothing but the flags is written.
        unsafe { asm!("msr fpsr, {}", in(reg) status, options(nostack)) };
    }
}

#[cfg(all(target_arch = "arm", target_abi = "eabihf", not(miri)))]
mod machine {
    use core::arch::asm;

    /// FPSCR: invalid, divide-by-zero.
    pub(super) const RAISED: usize = 1 | 1 << 1;

    #[inline(always)]
    pub(super) fn read() -> usize {
        let status;
        // SAFETY: the build has floating point; nothing else is touched.
        unsafe {
            asm!("vmrs {}, fpscr", out(reg) status, options(nomem, nostack, preserves_flags))
        };
        status
    }

    #[inline(always)]
    pub(super) fn write(status: usize) {
        // SAFETY: the build has floating point; nothing but the flags is written.
        unsafe { asm!("vmsr fpscr, {}", in(reg) status, options(nomem, nostack)) };
    }
}

#[cfg(all(any(target_arch = "riscv32", target_arch = "riscv64"), target_feature = "f", not(miri)))]
mod machine {
    use core::arch::asm;

    /// fflags: invalid, divide-by-zero.
    pub(super) const RAISED: usize = 1 << 4 | 1 << 3;

    #[inline(always)]
    pub(super) fn read() -> usize {
        let status;
        // SAFETY: the build has floating point; nothing else is touched.
        unsafe { asm!("frflags {}", out(reg) status, options(nostack, preserves_flags)) };
        status
    }

    #[inline(always)]
    pub(super) fn write(status: usize) {
        // SAFETY: the build has floating point; nothing but the flags is written.
        unsafe { asm!("fsflags {}", in(reg) status, options(nostack)) };
    }
}

/// Elsewhere there are none: floats in software, wasm, Miri.
#[cfg(any(
    miri,
    not(any(
        all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse"),
        all(target_arch = "aarch64", target_feature = "neon"),
        all(target_arch = "arm", target_abi = "eabihf"),
        all(any(target_arch = "riscv32", target_arch = "riscv64"), target_feature = "f"),
    ))
))]
mod machine {
    pub(super) const RAISED: usize = 0;

    #[inline(always)]
    pub(super) fn read() -> usize {
        0
    }

    #[inline(always)]
    pub(super) fn write(_: usize) {}
}

#[cfg(test)]
mod tests;
