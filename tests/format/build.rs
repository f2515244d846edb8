//! Where the linker finds the memory of the board, and what defmt wants of it.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=memory.x");
    println!("cargo::rustc-link-search={}", env!("CARGO_MANIFEST_DIR"));
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        println!("cargo::rustc-link-arg-bin=image=-Tlink.x");
        println!("cargo::rustc-link-arg-bin=image=-Tdefmt.x");
    }
}
