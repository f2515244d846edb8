//! What the fuzz targets and `tests/regressions.rs` run on some bytes.
//!
//! ```text
//! bytes ─▶ shapes, layouts, values
//! every back end: result == the family's scalar reference, bit for bit
//! a family's result: within its bound of the f64 oracle, or what the oracle's NaN or ∞ asks for
//! ```
//!
//! Two back ends of a family that both equal the reference equal each other, and
//! one back end of a family is enough for the oracle. The file stands in two
//! crates, each of which has `tests/common` as `crate::common`.

pub(crate) mod attention;
pub(crate) mod dot;
pub(crate) mod input;
pub(crate) mod product;
pub(crate) mod softmax;

use sdpa::{Backend, Family};

use crate::common::{
    assert_same_bits,
    bounds::{Bound, Case, Worst},
    grid::Grid,
    oracle::Sum,
    reference::Reference,
};

/// One target: its name, and its body.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
#[allow(dead_code)] // the fuzz package names them one by one
pub(crate) const ALL: [Target; 6] = [
    ("dot", dot::check),
    ("project", product::project),
    ("scores", product::scores),
    ("weighted_sum", product::weighted_sum),
    ("softmax", softmax::check),
    ("attention", attention::check),
];

/// Runs every back end, holds each to the bits of its family's reference, and
/// gives these a family.
fn on_all(
    what: &str,
    reference: impl Fn(Reference) -> Grid,
    mut run: impl FnMut(Backend) -> Grid,
) -> Vec<(Family, Grid)> {
    let mut families: Vec<(Family, Grid)> = Vec::new();
    for backend in Backend::available() {
        let family = backend.family();
        if families.iter().all(|(known, _)| *known != family) {
            families.push((family, reference(Reference::of(family))));
        }
        let (_, want) = families.iter().find(|(known, _)| *known == family).expect("just put in");
        assert_same_bits(&format!("{backend:?}: {what}"), &run(backend).data, &want.data);
    }
    families
}

/// Holds a sum of `n` products to `bound`; where f32 may overflow on the way nothing
/// is said of it, and where inputs are not finite the result is not either.
fn check_sum(bound: &'static Bound, family: Family, n: usize, got: f32, truth: Sum) {
    if truth.value.is_nan() {
        assert!(got.is_nan(), "{}: {got:e}, not NaN", bound.name);
    } else if truth.value.is_infinite() {
        // NaN where the finite products overflow to the other side, or a scaled
        // query underflows to 0.
        let limit = truth.value as f32;
        assert!(got.is_nan() || got == limit, "{}: {got:e}, not {limit}", bound.name);
    } else if truth.magnitude < 0.99 * f64::from(f32::MAX) {
        // What underflow leaves is rounded too, fewer than 2⁷ times: 1 + 2⁷·u.
        let underflow = truth.underflow * (1.0 + 1.0 / 131_072.0);
        let truth = Sum { underflow, ..truth };
        Worst::new(bound)
            .check(got, Case { fma: family == Family::Fma, n, truth, propagated: 0.0 });
    }
}
