//! The C library: `extern "C"` functions over the public API of `sdpa`, and nothing else.
//!
//! Each function computes the memory regions of its arguments and checks that no output overlaps another
//! argument ([`region`]), makes views of the arguments ([`views`]) and calls the crate, which checks shapes
//! and option values. The doc comments of public items are the text of `include/sdpa.h`; the modules are in
//! the order of the header.
//!
//! # Safety
//!
//! The caller of each function guarantees that every pointer is NULL, or misaligned for its type, or points
//! to as much memory of that type as its comment says. During the call nobody else writes what it reads, and
//! nobody else uses what it writes. An `sdpa_cache` holds what the cache functions wrote, or zeros.

#![no_std]
#![expect(
    clippy::missing_safety_doc,
    reason = "the comments are the text of the header; the module docs list the safety conditions"
)]
#![cfg_attr(
    any(feature = "plain", feature = "plain-heads"),
    allow(dead_code, unused_imports, unused_macros, reason = "one or two functions alone")
)]

mod region;

mod status;

mod views;

mod library;

#[cfg(not(feature = "plain"))]
mod operations;

mod options;

#[cfg(not(feature = "plain"))]
mod attention;

#[cfg(not(feature = "plain-heads"))]
mod plain;

#[cfg(not(feature = "plain"))]
mod plain_heads;

#[cfg(not(feature = "plain"))]
mod rotary;

#[cfg(not(feature = "plain"))]
mod states;

#[cfg(not(feature = "plain"))]
mod elements;

#[cfg(not(feature = "plain"))]
mod cache;

#[cfg(not(feature = "plain"))]
pub use attention::*;
#[cfg(not(feature = "plain"))]
pub use cache::*;
#[cfg(not(feature = "plain"))]
pub use elements::*;
pub use library::*;
#[cfg(not(feature = "plain"))]
pub use operations::*;
pub use options::*;
#[cfg(not(feature = "plain-heads"))]
pub use plain::*;
#[cfg(not(feature = "plain"))]
pub use plain_heads::*;
#[cfg(not(feature = "plain"))]
pub use rotary::*;
#[cfg(not(feature = "plain"))]
pub use states::*;
pub use status::*;
pub use views::{sdpa_heads, sdpa_heads_mut, sdpa_matrix, sdpa_matrix_mut};

/// The panic handler that a standalone library needs.
#[cfg(feature = "capi")]
extern crate panic_halt;
