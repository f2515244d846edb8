//! The list of back ends, and the check that required ones are available.

use crate::common::BACK_ENDS;
use sdpa::{Backend, Family};

suite! { is_found_by_its_name, has_its_family }

fn is_found_by_its_name(backend: Backend) {
    assert_eq!(Backend::by_name(backend.name()), Some(backend));
    assert_eq!(format!("{backend:?}"), format!("Backend({})", backend.name()));
}

fn has_its_family(backend: Backend) {
    let non_fma = ["scalar", "portable"].contains(&backend.name());
    assert_eq!(backend.family(), if non_fma { Family::NonFma } else { Family::Fma });
}

/// `SDPA_REQUIRE_BACKENDS="scalar,portable,avx2"` names the back ends that must be available.
#[test]
fn required_back_ends_are_available() {
    let required = std::env::var("SDPA_REQUIRE_BACKENDS").unwrap_or_default();
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        assert!(BACK_ENDS.contains(&name), "no suite is stamped out for back end {name}");
        assert!(Backend::by_name(name).is_some(), "back end {name} is not on this machine");
    }
}

#[test]
fn every_back_end_has_a_suite() {
    for backend in Backend::available() {
        assert!(BACK_ENDS.contains(&backend.name()), "{backend:?} has no suite");
    }
}

#[test]
fn names_are_distinct_and_others_are_unknown() {
    let names: Vec<_> = Backend::available().map(Backend::name).collect();
    for (i, name) in names.iter().enumerate() {
        assert!(!names[..i].contains(name), "two are called {name}");
    }
    for name in ["", "Scalar", "avx", "avx2 ", "none"] {
        assert_eq!(Backend::by_name(name), None);
    }
}

#[test]
fn the_best_is_available() {
    assert!(Backend::available().any(|backend| backend == Backend::best()));
    assert!(Backend::available().any(|backend| backend == Backend::SCALAR));
    assert!(Backend::available().any(|backend| backend == Backend::PORTABLE));
}
