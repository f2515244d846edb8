//! The built-in head.

use crate::{drawing::Array, npy};

/// A linear layer: weights (inputs × outputs), and a bias per output.
pub(crate) struct Linear {
    pub(crate) weights: Array,
    pub(crate) bias: Vec<f32>,
}

/// A trained head and the embeddings of a sentence.
pub(crate) struct Head {
    pub(crate) title: String,
    pub(crate) words: Vec<String>,
    pub(crate) embeddings: Array,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
}

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../data/minilm-l2h1/", $name, ".npy"))
    };
}

/// Layer 2, head 1 of all-MiniLM-L6-v2; `examples/data/minilm-l2h1` says more.
pub(crate) fn minilm() -> Result<Head, String> {
    const SENTENCE: &str = "a fluffy blue creature roamed the verdant forest";

    let linear = |weights, bias| {
        Ok::<_, String>(Linear { weights: npy::matrix(weights)?, bias: npy::vector(bias)? })
    };
    Ok(Head {
        title: format!("“{SENTENCE}” in layer 2, head 1 of all-MiniLM-L6-v2"),
        words: SENTENCE.split(' ').map(str::to_string).collect(),
        embeddings: npy::matrix(file!("embeddings"))?,
        query: linear(file!("w_query"), file!("b_query"))?,
        key: linear(file!("w_key"), file!("b_key"))?,
        value: linear(file!("w_value"), file!("b_value"))?,
    })
}
