//! The code that runs on every board and on the host, over `core` alone.

#![cfg_attr(not(test), no_std)]
#![allow(unexpected_cfgs, reason = "build.rs sets a cfg named after a standalone operation")]

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

/// The length of a buffer: 64 KiB, of which the smallest board holds four; of the host more, as a workspace over elements
/// takes more there.
pub const FLOATS: usize = if cfg!(target_os = "none") { 16 * 1024 } else { 64 * 1024 };

/// All memory of the tests except the stack.
pub struct Arena {
    pub inputs: [[f32; FLOATS]; 3],
    pub output: [f32; FLOATS],
    pub caches: operations::Caches,
}

impl Arena {
    pub const NEW: Self =
        Self { inputs: [[0.0; FLOATS]; 3], output: [0.0; FLOATS], caches: operations::Caches::NEW };
}

/// Unreachable: run.sh checks that these images link no panic.
#[cfg(all(target_os = "none", feature = "flash"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
