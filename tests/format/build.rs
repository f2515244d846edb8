//! Linker arguments: the memory of the board, and the linker script of defmt.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=memory.x");
    println!("cargo::rustc-link-search={}", env!("CARGO_MANIFEST_DIR"));
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        println!("cargo::rustc-link-arg-bin=image=-Tlink.x");
        println!("cargo::rustc-link-arg-bin=image=-Tdefmt.x");
    }
}
