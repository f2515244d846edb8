//! Sets the cfg `small` where the crate is compiled for size: the code cannot see its own `opt-level`,
//! and what is short at `s` is slow at 3.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(small)");
    if env::var("OPT_LEVEL").is_ok_and(|level| level == "s" || level == "z") {
        println!("cargo::rustc-cfg=small");
    }
}
