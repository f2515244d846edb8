//! Runs every file of `fuzz/regressions/` through the body of its fuzz target: earlier finds of
//! fuzzing, and hand-made seeds.

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::{fs, panic, path::Path};

#[test]
fn every_file_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    for (name, target) in targets::ALL {
        let entries = fs::read_dir(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        assert!(!files.is_empty(), "fuzz/regressions/{name} has no file");
        for file in files {
            let bytes = fs::read(&file).expect("a file");
            if let Err(reason) = panic::catch_unwind(|| target(&bytes)) {
                eprintln!("failed: {}", file.display());
                panic::resume_unwind(reason);
            }
        }
    }
}

/// Empty input is valid.
#[test]
fn empty_input_passes() {
    targets::ALL.iter().for_each(|(_, target)| target(&[]));
}

/// Fails for a target without files, or a folder without a target.
#[test]
fn folders_are_targets() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |of: &str| {
        let entries = fs::read_dir(folder.join(of)).expect(of);
        let names = entries.map(|entry| entry.expect("an entry").path());
        let mut names: Vec<_> =
            names.map(|path| path.file_stem().expect("a name").to_owned()).collect();
        names.retain(|name| name != "capi"); // capi/tests/regressions.rs runs it
        names.sort();
        names
    };
    let mut targets = targets::ALL.map(|(name, _)| name);
    targets.sort_unstable();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("regressions"), targets);
}
