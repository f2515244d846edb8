//! The bodies of the fuzz targets. They use the oracle, bounds and reference of the integration tests.

// Shared with `tests/regressions.rs`, which includes `targets/`.
#[allow(unused_macros)]
#[path = "../../tests/common/mod.rs"]
mod common;
mod targets;

/// Fuzzes `Backend::dot`.
pub fn dot(bytes: &[u8]) {
    targets::dot::check(bytes);
}

/// Fuzzes `Backend::project`.
pub fn project(bytes: &[u8]) {
    targets::product::project(bytes);
}

/// Fuzzes `Backend::scores`.
pub fn scores(bytes: &[u8]) {
    targets::product::scores(bytes);
}

/// Fuzzes `Backend::weighted_sum`.
pub fn weighted_sum(bytes: &[u8]) {
    targets::product::weighted_sum(bytes);
}

/// Fuzzes every softmax of `Backend`.
pub fn softmax(bytes: &[u8]) {
    targets::softmax::check(bytes);
}

/// Fuzzes `RotaryTable`, `Backend::rotate` and `Backend::rotate_in_place`.
pub fn rotate(bytes: &[u8]) {
    targets::rotate::check(bytes);
}

/// Fuzzes `Attention` over matrices, over a cache and in spans, and `Backend::merge`.
pub fn attention(bytes: &[u8]) {
    targets::attention::check(bytes);
}
