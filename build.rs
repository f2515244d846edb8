//! Sets the cfgs that the code cannot derive itself.
//!
//! * `unoptimised`: each value of each inlined function has a place of its own on the stack, so the parts of a kernel
//!   are not inlined: it would take megabytes.
//! * `small`: the crate is compiled for size. Code cannot see its own `opt-level`, and the shortest loops are slow
//!   at `opt-level` 3.
//! * `microcontroller`: flash, stack and workspace are scarce, and vectors have one lane.
//! * `kept_keys`: calls and caches may keep their first keys: everywhere but on a microcontroller without the feature
//!   `keep-first`.
//! * `converts_f16`: a microcontroller's FPU widens floats of 16 bits.
//! * `shifting_cache`: a KV cache takes blocks of 16 keys, and moves the keys that are left where it drops a block,
//!   instead of using its storage as a ring. Set on microcontrollers, and by tests in `RUSTFLAGS`.
//! * `portable`: the target has the back end `portable`, made of `wide`'s vectors. Cargo.toml depends on `wide`
//!   under the same condition; a lint in `src/lib.rs` checks that the two agree.
//! * `x87`: floats are computed by an x87, which rounds to more bits than they have.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| env::var(name).unwrap_or_default();
    let level = variable("OPT_LEVEL");
    let arch = variable("CARGO_CFG_TARGET_ARCH");
    let features = variable("CARGO_CFG_TARGET_FEATURE");

    let is_unoptimised = level == "0";
    let is_small = ["s", "z"].contains(&level.as_str());
    let is_microcontroller = ["arm", "riscv32", "xtensa"].contains(&arch.as_str());
    let has_keep_first = env::var_os("CARGO_FEATURE_KEEP_FIRST").is_some();
    // Kernel and UEFI targets use soft floats, for which LLVM has no vectors, whatever the core has. x86 before
    // SSE2 has an x87.
    let is_x86 = ["x86", "x86_64"].contains(&arch.as_str());
    let has_sse2 = features.split(',').any(|feature| feature == "sse2");
    let is_portable = !is_microcontroller && (has_sse2 || !is_x86);
    let has_x87 = arch == "x86" && !has_sse2;

    // Every FPU of these cores does; rustc does not tell the features of one.
    let (target, abi) = (variable("TARGET"), variable("CARGO_CFG_TARGET_ABI"));
    let is_mainline = ["thumbv7em-", "thumbv8m.main-"].iter().any(|core| target.starts_with(core));
    let converts_f16 = is_mainline && abi == "eabihf";

    for (cfg, is_set) in [
        ("unoptimised", is_unoptimised),
        ("small", is_small),
        ("microcontroller", is_microcontroller),
        ("kept_keys", !is_microcontroller || has_keep_first),
        ("converts_f16", converts_f16),
        ("shifting_cache", is_microcontroller),
        ("portable", is_portable),
        ("x87", has_x87),
    ] {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        if is_set {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
}
