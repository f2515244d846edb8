//! Adds the folder of memory.x, which is that of examples/firmware, to the linker's search path.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-search={}/../../../examples/firmware", env!("CARGO_MANIFEST_DIR"));
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
