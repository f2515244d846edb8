//! The bodies of the fuzz targets, with the oracle, the bounds and the reference of
//! the integration tests.

// One text for both: `tests/regressions.rs` includes `targets/` in turn.
#[allow(unused_macros)]
#[path = "../../tests/common/mod.rs"]
mod common;
mod targets;

/// `Backend::dot`.
pub fn dot(bytes: &[u8]) {
    targets::dot::check(bytes);
}

/// `Backend::project`.
pub fn project(bytes: &[u8]) {
    targets::product::project(bytes);
}

/// `Backend::scores`.
pub fn scores(bytes: &[u8]) {
    targets::product::scores(bytes);
}

/// `Backend::weighted_sum`.
pub fn weighted_sum(bytes: &[u8]) {
    targets::product::weighted_sum(bytes);
}

/// Every softmax of `Backend`.
pub fn softmax(bytes: &[u8]) {
    targets::softmax::check(bytes);
}

/// `Attention`, from arrays and from a cache, and `Backend::merge`.
pub fn attention(bytes: &[u8]) {
    targets::attention::check(bytes);
}
