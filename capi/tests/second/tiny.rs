//! A second Rust library for the same program, with its own panic handler and a reachable panic.

#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Returns element `i` of an array of three, or panics.
#[unsafe(no_mangle)]
extern "C" fn second(i: usize) -> usize {
    [3, 30, 300][i]
}
