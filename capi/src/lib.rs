//! The C library: `extern "C"` functions over the public API of `sdpa`, and nothing else.
//!
//! Each function asks where its arguments lie ([`region`]) and whether an output shares memory with
//! anything else, makes views of them ([`views`]) and calls the crate, which checks the
//! rest. The doc comments of what is public are the text of `include/sdpa.h`, and the order of
//! the modules is its order.
//!
//! # Safety
//!
//! Of every function: a pointer is NULL, not aligned for its type, or points to as much memory of that type as
//! its comment says; for the time of the call nobody writes what it reads, nobody uses
//! what it writes. An `sdpa_cache` has what `sdpa_cache_init` wrote, or zeros.

#![no_std]
#![expect(
    clippy::missing_safety_doc,
    reason = "the comments are the header's: what they leave to the caller stands above"
)]

mod region;

mod status;

mod views;

mod library;

mod operations;

mod options;

mod attention;

mod cache;

pub use attention::*;
pub use cache::*;
pub use library::*;
pub use operations::*;
pub use options::*;
pub use status::*;
pub use views::{sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut};

/// The panic handler of a library that stands alone.
#[cfg(feature = "capi")]
extern crate panic_halt;
