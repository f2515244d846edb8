//! Arithmetic of `f64` that rounds to 53 bits on every machine. An x87 rounds to 64, unless its control word asks for 53.

/// Calls `f`, whose arithmetic rounds to 53 bits.
#[cfg(x87)]
pub(crate) fn rounded<T>(f: impl FnOnce() -> T) -> T {
    use core::arch::asm;

    /// The field of the control word that says the precision, and its value for 53 bits.
    const PRECISION: u16 = 0x300;
    const DOUBLE: u16 = 0x200;

    /// Not inlined, as the compiler could move inlined arithmetic to where the control word is another.
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

/// Calls `f`, whose arithmetic rounds to 53 bits.
#[cfg(not(x87))]
#[inline(always)]
pub(crate) fn rounded<T>(f: impl FnOnce() -> T) -> T {
    f()
}
