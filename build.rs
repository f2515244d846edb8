//! Sets the cfgs that the code cannot find out by itself.
//!
//! * `small`: the crate is compiled for size. The code cannot see its own `opt-level`, and what is short at
//!   `s` is slow at 3.
//! * `microcontroller`: flash, stack and workspace are scarce, and one lane is all that there is.
//! * `portable`: the back end `portable` is there, of vectors by `wide`. Cargo.toml asks for `wide` under the
//!   same condition, and a lint in `src/lib.rs` holds the two equal.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| env::var(name).unwrap_or_default();
    let level = variable("OPT_LEVEL");
    let arch = variable("CARGO_CFG_TARGET_ARCH");
    let features = variable("CARGO_CFG_TARGET_FEATURE");

    let is_small = ["s", "z"].contains(&level.as_str());
    let is_microcontroller = ["arm", "riscv32", "xtensa"].contains(&arch.as_str());
    // Kernels and UEFI have soft floats, for which LLVM has no vectors, whatever the core has; what is older
    // than SSE2 has an x87.
    let is_x86 = ["x86", "x86_64"].contains(&arch.as_str());
    let has_sse2 = features.split(',').any(|feature| feature == "sse2");
    let is_portable = !is_microcontroller && (has_sse2 || !is_x86);

    for (cfg, is_set) in
        [("small", is_small), ("microcontroller", is_microcontroller), ("portable", is_portable)]
    {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        if is_set {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
}
