//! The bodies that the fuzz targets and `tests/regressions.rs` run on an input of bytes.
//!
//! ```text
//! bytes ─▶ shapes, layouts, values
//! every back end: result == the family's scalar reference, bit for bit
//! each family:    within its bound of the f64 oracle; NaN or ∞ where the oracle has it
//! ```
//!
//! Back ends that equal the reference equal each other, so that one back end per family is compared with the
//! oracle. Two crates include this file; each has `tests/common` as `crate::common`.

pub(crate) mod attention;
pub(crate) mod dot;
pub(crate) mod input;
pub(crate) mod product;
pub(crate) mod rotate;
pub(crate) mod softmax;

use sdpa::{Backend, Family};

use crate::common::{
    assert_same_bits,
    bounds::{Bound, Case, Worst},
    grid::Grid,
    oracle::Sum,
    reference::Reference,
};

/// A target: its name and its body.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
#[allow(dead_code)] // the fuzz package names them one by one
pub(crate) const ALL: [Target; 7] = [
    ("dot", dot::check),
    ("project", product::project),
    ("scores", product::scores),
    ("weighted_sum", product::weighted_sum),
    ("softmax", softmax::check),
    ("attention", attention::check),
    ("rotate", rotate::check),
];

/// Runs every back end, checks its bits against the reference of its family, and returns one result per
/// family.
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

/// Checks a sum of `n` products against `bound`. If an intermediate may overflow in f32 nothing is checked;
/// if inputs are not finite the result must not be finite either.
fn check_sum(bound: &'static Bound, family: Family, n: usize, got: f32, truth: Sum) {
    if truth.value.is_nan() {
        assert!(got.is_nan(), "{}: {got:e}, not NaN", bound.name);
    } else if truth.value.is_infinite() {
        // NaN if finite products overflow to the opposite infinity, or a scaled query underflows to 0.
        let limit = truth.value as f32;
        assert!(got.is_nan() || got == limit, "{}: {got:e}, not {limit}", bound.name);
    } else if truth.magnitude < 0.99 * f64::from(f32::MAX) {
        // Errors of underflow are rounded too, fewer than 2⁷ times: 1 + 2⁷·u.
        let underflow = truth.underflow * (1.0 + 1.0 / 131_072.0);
        let truth = Sum { underflow, ..truth };
        Worst::new(bound)
            .check(got, Case { fma: family == Family::Fma, n, truth, propagated: 0.0 });
    }
}
