//! Golden digests: the bits of every operation in a hundred cases, equal for all back ends of a family, on
//! every machine and from one version to the next.
//!
//! `SDPA_BREAK_BITS=1 cargo test --test all digests::` fails.

use std::env;

use crate::common::digest::{Buffers, DIGESTS, FLOATS};
use sdpa::{Backend, Family};

suite! { every_digest }

fn every_digest(backend: Backend) {
    let is_set = |name| env::var_os(name).is_some_and(|set| set == "1");
    let [mut left, mut right, mut out] = [0; 3].map(|_| vec![0.0; FLOATS]);
    let mut buffers = Buffers { left: &mut left, right: &mut right, out: &mut out };
    for (operation, fma, non_fma) in DIGESTS {
        let digest = operation.digest(backend, &mut buffers, is_set("SDPA_BREAK_BITS"));
        let digest = digest.expect("sizes agree");
        if is_set("SDPA_PRINT_DIGESTS") {
            println!("{:?}: {operation:?}: {digest:#018x}", backend.family());
        } else {
            let want = if backend.family() == Family::Fma { fma } else { non_fma };
            let name = backend.name();
            assert!(
                digest == want,
                "{name}: {operation:?} has the digest {digest:#018x}, not {want:#018x}"
            );
        }
    }
}
