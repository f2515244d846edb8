//! Arithmetic of `f64`, which rounds to 53 bits on every machine.

/// Calls `f`. On an x87, which rounds doubles to 64 bits only, its control word asks for 53 meanwhile.
#[cfg(all(target_arch = "x86", not(portable)))]
pub(crate) fn rounded<T>(f: impl FnOnce() -> T) -> T {
    use core::arch::asm;

    /// The precision of the control word, and its value for `f64`.
    const PRECISION: u16 = 0x300;
    const DOUBLE: u16 = 0x200;

    /// The compiler could move arithmetic out of code that is inlined.
    #[inline(never)]
    fn apart<T>(f: impl FnOnce() -> T) -> T {
        f()
    }

    let mut before = 0u16;
    // SAFETY: every x87 has this instruction; two bytes are written, of a variable of that size.
    unsafe {
        asm!("fnstcw word ptr [{}]", in(reg) &raw mut before, options(nostack, preserves_flags))
    };
    let set = |control: u16| {
        // SAFETY: two bytes are read, of a variable of that size. The rounding mode and the masks of exceptions stay.
        unsafe { asm!("fldcw word ptr [{}]", in(reg) &raw const control, options(nostack)) };
    };
    set(before & !PRECISION | DOUBLE);
    let result = apart(f);
    set(before);
    result
}

/// Calls `f`.
#[cfg(not(all(target_arch = "x86", not(portable))))]
#[inline(always)]
pub(crate) fn rounded<T>(f: impl FnOnce() -> T) -> T {
    f()
}
