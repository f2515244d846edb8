//! For the shared library that cargo makes (`cargo cinstall`); make links its own.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let stands_alone = std::env::var_os("CARGO_FEATURE_CAPI").is_some();
    if stands_alone && std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // `core` names this handler for unwinding, in what is dropped from the library.
        println!("cargo::rustc-link-arg-cdylib=-Wl,--defsym=rust_eh_personality=0");
        // Of memcpy and memset.
        println!("cargo::rustc-link-arg-cdylib=-lc");
    }
}
