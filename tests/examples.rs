//! The examples as programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Builds an example and returns its path. `cargo test --test all` builds no examples, and the target
/// directory may be anywhere: cargo builds the current version and reports the path.
pub(crate) fn build(name: &str) -> PathBuf {
    // Read at run time: `env!` would compile the tests again for each path of cargo.
    let mut build = Command::new(std::env::var_os("CARGO").expect("set by cargo"));
    build.args(["build", "--example", name, "--message-format=json"]);
    build.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    build.arg("--target-dir").arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join(".."));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8(built.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap()
}
