//! What is run on every board and on the host: the same code, from `core` alone.

#![cfg_attr(not(test), no_std)]
#![allow(unexpected_cfgs, reason = "a sole operation has a cfg of its name, see build.rs")]

pub mod answers;
#[allow(dead_code)]
#[path = "../../common/cases.rs"]
mod cases;
pub mod digest;
#[cfg(target_os = "none")]
pub mod machine;
pub mod operations;
#[cfg(target_arch = "arm")]
pub mod preempt;

/// How many floats a buffer has: 64 KiB, four of which the smallest board holds.
pub const FLOATS: usize = 16 * 1024;

/// All memory that the tests use besides the stack.
pub struct Arena {
    pub inputs: [[f32; FLOATS]; 3],
    pub output: [f32; FLOATS],
}

impl Arena {
    pub const NEW: Self = Self { inputs: [[0.0; FLOATS]; 3], output: [0.0; FLOATS] };
}

/// Never reached: the images that show the size of an operation link no panic.
#[cfg(all(target_os = "none", feature = "flash"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
