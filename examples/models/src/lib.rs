//! Two trained models over `sdpa`: [`bert`], a sentence encoder, and [`llama`], a decoder.
//!
//! `sdpa` computes every projection, rotation, attention and the KV cache. The rest (norms, activations,
//! embeddings) is plain Rust in [`layers`]. [`weights`] reads the files that `get.sh` brings.

pub mod bert;
pub mod cache;
#[cfg(feature = "candle")]
pub mod candle;
pub mod draw;
pub mod layers;
pub mod llama;
pub mod sampler;
pub mod tokens;
pub mod weights;
