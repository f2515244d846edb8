//! Scaled dot-product attention kernels for machines with and without an
//! operating system: `no_std`, no allocator, no panics, and the same bits on
//! every machine of a [family](Family).
//!
//! ```text
//! embeddings E ──W_Q──▶ queries Q ┐
//!              ──W_K──▶ keys    K ┴─▶ scores S[key][query] = scale · K·Q
//!              ──W_V──▶ values  V          │
//!                                          ▼
//!                    pattern P = softmax of every COLUMN of S
//!                                          ▼
//!                    output[query] = Σ over keys P[key][query] · V[key]
//! ```
//!
//! # Keys are rows, queries are columns
//!
//! The score grid has a **row per key and a column per query**. A column of
//! the pattern lies in `[0, 1]` and sums to 1: it says how much each key matters to
//! that query. Most libraries draw the transpose, a row per query; pass
//! [`t()`](MatrixRef::t) of a view for that, which costs nothing.
//!
//! ```
//! use sdpa::{Matrix, project, scores, softmax_columns, weighted_sum};
//!
//! // Three tokens of width 2, and weights that leave them as they are.
//! let embeddings = Matrix::from([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
//! let identity = Matrix::from([[1.0, 0.0], [0.0, 1.0]]);
//! let [mut queries, mut keys, mut values] = [Matrix::<3, 2>::ZERO; 3];
//! project(embeddings.view(), identity.view(), None, queries.view_mut())?;
//! project(embeddings.view(), identity.view(), None, keys.view_mut())?;
//! project(embeddings.view(), identity.view(), None, values.view_mut())?;
//!
//! let (mut grid, mut pattern) = (Matrix::<3, 3>::ZERO, Matrix::<3, 3>::ZERO);
//! scores(keys.view(), queries.view(), None, grid.view_mut())?;
//! softmax_columns(grid.view(), pattern.view_mut())?;
//!
//! let mut output = Matrix::<3, 2>::ZERO;
//! weighted_sum(pattern.view(), values.view(), output.view_mut())?;
//! # Ok::<(), sdpa::Error>(())
//! ```
//!
//! [`Attention`] computes the output without the grid, under causal masks, windows, boolean masks (`keep`), additive
//! masks (`bias`), softcap and sinks, for one head or many; [`KvCache`] keeps the keys and values of past tokens, in
//! [`f32`], [`F16`], [`Bf16`] or [`I8`]. [`rotate()`] applies a rotary position embedding to queries and keys.
//! [`Attention::run_spans`] computes parts of the keys on other threads or machines, and [`Attention::join`] the output.
//!
//! # Documentation
//!
//! * [`docs::numerics`]: what every call gives for every input, how exact it is and why, which results have equal bits
//! * [`docs::design`]: why keys are rows, why two [families](Family), why positions, why no threads; other names
//! * [`docs::firmware`]: boards, costs, memory
//! * [`docs::c`]: the C library
//! * [`docs::python`]: the Python package
//! * [`docs::from_others`]: what options of PyTorch, JAX, ONNX and others are called here
//! * [`docs::profiling`]: speed, and the benches
//! * [`docs::models`]: two trained models over this crate
//! * [`docs::conformance`]: ONNX, targets
//!
//! # How to read the source
//!
//! Public operations, one per file, check every size and make one call into `dispatch.rs`, which runs a
//! kernel on a back end. `kernel/` has each kernel once, generic over the `Vector` trait of `simd/`, whose other files
//! are the back ends. `kernel/order.rs` defines the order of every sum.

#![no_std]
// Cargo.toml asks for `wide` where build.rs sets the cfg `portable`: this holds the two conditions equal.
#![cfg_attr(not(test), deny(unused_crate_dependencies))]

mod attention;
mod cache;
mod dispatch;
#[cfg(any(doc, doctest))]
pub mod docs;
mod dot;
mod elements;
mod error;
mod include;
mod kernel;
mod matrix;
mod merge;
mod narrow;
mod number;
mod project;
mod rotate;
mod score_mod;
mod scores;
mod simd;
mod softmax;
mod weighted_sum;

pub use attention::{Attention, SPAN};
#[doc(hidden)]
pub use cache::{AnyCacheRef, AnySlice, AnySliceMut, append_any, append_floats, shift};
pub use cache::{CachePositions, KEY_BLOCK, KvCache, KvCacheMut, KvCacheRef};
pub use dispatch::{Backend, Family};
pub use dot::dot;
#[doc(hidden)]
pub use elements::AnyElementsRef;
pub use elements::ElementsRef;
pub use error::Error;
#[doc(hidden)]
pub use include::rows_of_f32;
#[doc(hidden)]
pub use kernel::blocks::AnyRows;
pub use matrix::{HeadsMut, HeadsRef, Matrix, MatrixMut, MatrixRef};
pub use merge::merge;
pub use narrow::{Element, narrow};
pub use number::{Bf16, F16, I8};
pub use project::{project, project_elements};
pub use rotate::{Pairs, RotaryTable, rotate, rotate_in_place};
pub use scores::scores;
pub use softmax::{
    softmax, softmax_columns, softmax_columns_in_place, softmax_in_place, softmax_rows,
    softmax_rows_in_place,
};
pub use weighted_sum::weighted_sum;

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
