//! Draws attention patterns, in the terminal and as SVG pictures. `examples/models` shares this folder.

#![allow(dead_code, reason = "each of the two uses a part")]

mod array;
pub(crate) mod heat_map;
pub(crate) mod labels;
mod paper;
pub(crate) mod picture;
pub(crate) mod save;
pub(crate) mod terminal;

pub(crate) use array::Array;
use labels::Labels;

/// The results that the terminal and the picture show.
pub(crate) struct Shown {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) key_labels: Labels,
    pub(crate) query_labels: Labels,
    /// A row per key, a column per query.
    pub(crate) scores: Array,
    /// A row per key, a column per query.
    pub(crate) pattern: Array,
    /// A row per query.
    pub(crate) output: Array,
}
