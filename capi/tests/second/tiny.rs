//! A second Rust library in one program, with a panic handler and a panic of its own.

#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The element `i` of an array of three.
#[unsafe(no_mangle)]
extern "C" fn second(i: usize) -> usize {
    [3, 30, 300][i]
}
