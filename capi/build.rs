//! Sets the cfg `microcontroller`, as `../build.rs` does, and the linker arguments of the shared library that
//! `cargo cinstall` builds; make links its own.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(microcontroller)");
    let is_microcontroller = |arch: String| ["arm", "riscv32", "xtensa"].contains(&arch.as_str());
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(is_microcontroller) {
        println!("cargo::rustc-cfg=microcontroller");
    }
    let is_standalone = std::env::var_os("CARGO_FEATURE_CAPI").is_some();
    if is_standalone && std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // `core` refers to this unwinding handler, in code that the linker drops.
        println!("cargo::rustc-link-arg-cdylib=-Wl,--defsym=rust_eh_personality=0");
        // For memcpy and memset.
        println!("cargo::rustc-link-arg-cdylib=-lc");
    }
}
