//! The floating-point exception flags invalid and divide-by-zero.
//!
//! Kernels multiply masked keys and values too, and discard the products: an infinite or NaN product raises a
//! flag although nothing in the result is invalid. And the compiler vectorises one-lane code, with arbitrary
//! numbers in unused lanes. Calls where either can happen save the flags before and restore them after.

/// The flags at the time of the read. All other bits are set, so that [`restore`](Self::restore) keeps them.
#[derive(Clone, Copy)]
pub(crate) struct Flags(usize);

impl Flags {
    /// Reads the flags.
    #[inline(always)]
    pub(crate) fn read() -> Self {
        Self(machine::read() | !machine::MASK)
    }

    /// Clears the flags that were raised since the read.
    #[inline(always)]
    pub(crate) fn restore(self) {
        let now = machine::read();
        let before = now & self.0;
        // On a microcontroller a comparison costs more than the write.
        if cfg!(microcontroller) || now != before {
            machine::write(before);
        }
    }
}

// The register may also hold the rounding mode; a write changes only the flags.

#[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse", not(miri)))]
pub(crate) mod machine {
    use core::arch::asm;

    /// The flags invalid and divide-by-zero of MXCSR.
    pub(crate) const MASK: usize = 1 | 1 << 2;

    #[inline(always)]
    pub(crate) fn read() -> usize {
        let mut control = 0u32;
        // SAFETY: the build has SSE; four bytes are written, of a variable of that size.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack, preserves_flags))
        };
        control as usize
    }

    #[inline(always)]
    pub(crate) fn write(control: usize) {
        let control = control as u32;
        // SAFETY: the build has SSE; four bytes are read, of a variable of that size.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack)) };
    }
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon", not(miri)))]
pub(crate) mod machine {
    use core::arch::asm;

    /// The flags invalid and divide-by-zero of FPSR.
    pub(crate) const MASK: usize = 1 | 1 << 1;

    #[inline(always)]
    pub(crate) fn read() -> usize {
        let status;
        // SAFETY: the build has floating point; nothing else is touched.
        unsafe { asm!("mrs {}, fpsr", out(reg) status, options(nostack, preserves_flags)) };
        status
    }

    #[inline(always)]
    pub(crate) fn write(status: usize) {
        // SAFETY: the build has floating point; nothing but the flags is written.
        unsafe { asm!("msr fpsr, {}", in(reg) status, options(nostack)) };
    }
}

#[cfg(all(target_arch = "arm", target_abi = "eabihf", not(miri)))]
pub(crate) mod machine {
    use core::arch::asm;

    /// The flags invalid and divide-by-zero of FPSCR.
    pub(crate) const MASK: usize = 1 | 1 << 1;

    #[inline(always)]
    pub(crate) fn read() -> usize {
        let status;
        // SAFETY: the build has floating point; nothing else is touched.
        unsafe {
            asm!("vmrs {}, fpscr", out(reg) status, options(nomem, nostack, preserves_flags))
        };
        status
    }

    #[inline(always)]
    pub(crate) fn write(status: usize) {
        // SAFETY: the build has floating point; nothing but the flags is written.
        unsafe { asm!("vmsr fpscr, {}", in(reg) status, options(nomem, nostack)) };
    }
}

#[cfg(all(any(target_arch = "riscv32", target_arch = "riscv64"), target_feature = "f", not(miri)))]
pub(crate) mod machine {
    use core::arch::asm;

    /// The flags invalid and divide-by-zero of fflags.
    pub(crate) const MASK: usize = 1 << 4 | 1 << 3;

    #[inline(always)]
    pub(crate) fn read() -> usize {
        let status;
        // SAFETY: the build has floating point; nothing else is touched.
        unsafe { asm!("frflags {}", out(reg) status, options(nostack, preserves_flags)) };
        status
    }

    #[inline(always)]
    pub(crate) fn write(status: usize) {
        // SAFETY: the build has floating point; nothing but the flags is written.
        unsafe { asm!("fsflags {}", in(reg) status, options(nostack)) };
    }
}

/// Targets without flags: soft floats, wasm, Miri.
#[cfg(any(
    miri,
    not(any(
        all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse"),
        all(target_arch = "aarch64", target_feature = "neon"),
        all(target_arch = "arm", target_abi = "eabihf"),
        all(any(target_arch = "riscv32", target_arch = "riscv64"), target_feature = "f"),
    ))
))]
pub(crate) mod machine {
    pub(crate) const MASK: usize = 0;

    #[inline(always)]
    pub(crate) fn read() -> usize {
        0
    }

    #[inline(always)]
    pub(crate) fn write(_: usize) {}
}
