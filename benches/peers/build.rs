//! Finds the peers that are not from crates.io, and links them where they are installed.

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(openblas, onednn)");
    openblas();
    onednn();
    let rustc = env::var("RUSTC").expect("cargo sets it");
    let version = Command::new(rustc).arg("--version").output().expect("rustc runs").stdout;
    println!("cargo:rustc-env=PEERS_RUSTC={}", String::from_utf8_lossy(&version).trim());
}

fn openblas() {
    let Ok(library) = pkg_config::Config::new().cargo_metadata(false).probe("openblas") else {
        return;
    };
    for path in library.link_paths {
        // Debian installs builds with and without threads beside each other; the one without takes no locks.
        let serial = path.with_file_name("openblas-serial");
        link_from(if serial.join("libopenblas.so").exists() { &serial } else { &path });
    }
    println!("cargo:rustc-link-lib=openblas\ncargo:rustc-cfg=openblas");
}

/// The CMake project compiles a C++ file against oneDNN, and writes where it found the library.
fn onednn() {
    println!("cargo:rerun-if-changed=onednn");
    if Command::new("cmake").arg("--version").output().is_err() {
        return;
    }
    let built = cmake::Config::new("onednn").profile("Release").build();
    let libraries = fs::read_to_string(built.join("libraries.txt")).expect("CMake wrote it");
    if libraries.is_empty() {
        return;
    }
    println!("cargo:rustc-link-search=native={}", built.display());
    println!("cargo:rustc-link-lib=static=peer-onednn");
    for library in libraries.lines() {
        link_from(Path::new(library).parent().expect("an absolute path"));
        println!("cargo:rustc-link-arg={library}");
    }
    println!("cargo:rustc-link-lib=stdc++\ncargo:rustc-cfg=onednn");
}

/// At run time too: the dynamic linker may know another build of the same name.
fn link_from(folder: &Path) {
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
}
