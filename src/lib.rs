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
//! # What the numbers mean
//!
//! | case | result |
//! | --- | --- |
//! | score −∞ | weight exactly +0 |
//! | every score of a column or slice −∞; no keys | weights, and then the output, exactly +0 (never NaN) |
//! | score +∞ | the limit: the +∞ share the weight equally, others are 0 |
//! | NaN in a column or slice | NaN in all of it, in no other |
//! | NaN in a value | NaN in that column of every output, in no other column |
//! | ±∞ in a value | that column of every output is not finite (∞ or NaN) |
//! | scale | left out: `1 / √dim`; any finite value, `Some(0.0)` is a real zero |
//! | 0 queries | nothing written, `Ok` |
//! | dim 0, value width 0, sizes that disagree | [`Error::Shape`], nothing written |
//! | a view that leaves its buffer; an output that overlaps itself | [`Error::Stride`]; [`Error::Alias`] when the view is made |
//! | a scale that is not finite | [`Error::Option`], nothing written |
//!
//! [`Attention`], which runs over the same numbers:
//!
//! | case | result |
//! | --- | --- |
//! | masked key | weight exactly +0; what its key, value and bias hold, NaN and ±∞ included, never reaches the output |
//! | every key of a query masked; no keys | output exactly +0; log-sum-exp −∞, or the sink |
//! | bias −∞ | a mask, like keep = 0, whatever the score |
//! | score or bias +∞ | its keys share the weight equally, the others and the sink are 0; log-sum-exp +∞ |
//! | NaN in a visible score | NaN in that query's whole output and log-sum-exp, in no other query's |
//! | NaN in a visible value | NaN in that column of the queries that see it, whatever its weight |
//! | ±∞ in a visible value | that column of those queries is not finite (∞ or NaN) |
//! | softcap `c` | before bias and masks, `c · tanh(s / c)`; of ±∞ it is ±`c`; 0 is none |
//! | causal | by position: query `i` sits at `i + query_offset`, and key `j` is visible when `j ≤` that |
//! | from a cache | query `i` sits at `appended − queries + i + query_offset`: 0 is for the newest tokens |
//! | window | keys from `position − left` to `position + right`: `left` of 4 shows five; `usize::MAX` is no limit |
//! | positions | whole numbers without end: a cache counts in `u64` on every target, and every `query_offset` is exact |
//! | sink | one more logit of the denominator, without a value; −∞ is none; one for all heads or one a query head |
//! | log-sum-exp | natural logarithm, of the scores after scale, cap, bias and masks, and of the sink |
//! | a softcap that is negative or not finite; a sink that is NaN or +∞ | [`Error::Option`], nothing written |
//! | a workspace that is too short; a cache that is full | [`Error::Workspace`]; [`Error::Capacity`], nothing written |
//! | keys taken back that a cache does not hold; position `u64::MAX` and behind | [`Error::Position`], nothing written |
//! | a cache that slides to more keys than it holds | holds them all |
//!
//! [`merge`](merge()) of two partial states, whose sink belongs to one of them:
//!
//! | log-sum-exps | result |
//! | --- | --- |
//! | −∞ and any other | every bit of the other; the output beside −∞ is not read |
//! | −∞ and −∞ | output +0, log-sum-exp −∞ |
//! | +∞ and finite | the first; a value of the second that is not finite still shows as NaN |
//! | +∞ and +∞ | NaN throughout: their shares are unknown |
//! | NaN and any but −∞ | NaN throughout |
//!
//! No call leaves a floating-point exception flag (invalid, divide-by-zero) raised where the keys and values
//! that are visible give finite products and sums: scores and masks of −∞, masked keys and values of any
//! content, empty states included. Where an infinity makes a NaN it may be raised. Traps are left alone.
//!
//! An output cannot overlap an input: the borrow checker sees to it. The
//! functions whose names end in `_in_place` write over what they read.
//!
//! # How exact
//!
//! * `e^x` is within 1 ULP wherever the result is normal, for every f32, and exactly
//!   +0 where it would be subnormal; a weight of an [`Attention`] of the FMA family may be +0 below 2⁻¹²⁵.
//! * Weights of at least 2⁻¹²⁵ are within **6 ULP** of the true value for inputs in
//!   [−80, 80] and up to 1024 of them, smaller ones within 2⁻¹²⁵. The usual way, which
//!   subtracts the maximum first, is off by 35 ULP and more.
//! * `tanh` is within 1.4 ULP and `ln` within 0.85, for every f32.
//! * A merged output is within `6 · 2⁻²⁴ · (w · |a| + v · |b|)` of the mean of `a` and `b` under
//!   their shares `w` and `v`, for the log-sum-exps as they are given; their rounding, `2⁻²⁴` of
//!   each, is as much of its share. The log-sum-exp is within `3 · 2⁻²⁴ · (1 + |log-sum-exp|)`. So the
//!   result is the same in any order and grouping but for the sum of these.
//! * The log-sum-exp of an attention is within 2 ULP of the logarithm of the sum of weights as it was
//!   formed, near 0 too; a relative error of that sum is an absolute one of the logarithm.
//! * A score, a projection or an output is one chain of multiply-adds: within
//!   `(n + 1) · 2⁻²³ · Σ |a·b|` for `n` terms, and half of that where they are FMA.
//! * The output of a query that sees one key is within 1 ULP of that key's value.
//!
//! Where these hold, and what comes beyond:
//!
//! | range | beyond it |
//! | --- | --- |
//! | `\|scale · query\|` and every `Σ \|scale · query · key\|` below 2¹²⁸ | a score may be ±∞ or NaN that is finite in exact arithmetic: the query is multiplied by the scale first |
//! | `2 · Σ \|value\|` of a column's visible keys below 2¹²⁸ | an output may be ±∞ or NaN: four keys of 3·10³⁸ give +∞ |
//! | [`merge`](merge()): log-sum-exps that hold the logarithm of a count of keys | it is lost where their ULP is larger: at scores of 10⁸ one key and three weigh the same |
//! | rounding to nearest | in another mode softmax was measured within 300 ULP, its weights in \[0, 1.0001\]: tested, not promised |
//! | subnormals kept | nothing is promised where the machine flushes them |
//!
//! The notebook that this crate began with works out softmax of
//! (0.7, −0.93, −0.24, −5) as (0.02, 0.92, 0.89, 0), which sums to 1.83 and is no softmax.
//! It is (0.628969, 0.123234, 0.245693, 0.002105).
//!
//! # One answer
//!
//! | family | arithmetic | back ends |
//! | --- | --- | --- |
//! | [`Fma`](Family::Fma) | a multiply-add rounds once | `avx512`, `avx2`, `neon` |
//! | [`NonFma`](Family::NonFma) | a multiplication, then an addition | `portable`, `scalar` |
//!
//! Inside a family the same input gives the same bits, whatever the machine, the
//! strides and the number of queries in the call. The non-FMA family runs everywhere
//! and can be asked for by name ([`Backend`]), so that what a microcontroller
//! computes can be reproduced on a desktop bit for bit. The sign and payload of a NaN
//! are free, and so is everything for a caller that makes the machine flush subnormals or round otherwise than
//! to nearest.
//! Until version 1 the bits may change from one version to the next.
//!
//! # How to read the source
//!
//! Public operations, one a file, check every size and make one call into
//! `dispatch.rs`, which enters a back end. `kernel/` has each kernel once, written over
//! the `Vector` trait of `simd/`, whose other files are the back ends.
//! `kernel/order.rs` defines the order of every sum.

#![no_std]
// Cargo.toml asks for `wide` where build.rs sets the cfg `portable`: this holds the two conditions equal.
#![cfg_attr(not(test), deny(unused_crate_dependencies))]

mod attention;
mod cache;
mod dispatch;
mod dot;
mod error;
mod kernel;
mod matrix;
mod merge;
mod project;
mod score_mod;
mod scores;
mod simd;
mod softmax;
mod weighted_sum;

pub use attention::Attention;
pub use cache::{CachePositions, KEY_BLOCK, KvCache, KvCacheMut, KvCacheRef};
pub use dispatch::{Backend, Family};
pub use dot::dot;
pub use error::Error;
pub use matrix::{HeadsMut, HeadsRef, Matrix, MatrixMut, MatrixRef};
pub use merge::merge;
pub use project::project;
pub use scores::scores;
pub use softmax::{
    softmax, softmax_columns, softmax_columns_in_place, softmax_in_place, softmax_rows,
    softmax_rows_in_place,
};
pub use weighted_sum::weighted_sum;

/// The example of the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
