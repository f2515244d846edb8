//! Replays the files of `fuzz/regressions/capi`, and random bytes of a few seeds, through the body of that
//! fuzz target.

#[expect(unused_macros, reason = "those of tests of each back end")]
#[path = "../../tests/common/mod.rs"]
mod common;
mod hostile;

use std::{fs, panic, path::Path};

fn replay(what: &str, bytes: &[u8]) {
    if let Err(reason) = panic::catch_unwind(|| hostile::check(bytes)) {
        eprintln!("failed: {what}: {bytes:?}");
        panic::resume_unwind(reason);
    }
}

#[test]
fn every_file_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/regressions/capi");
    let files: Vec<_> = fs::read_dir(folder).expect("a folder").collect();
    assert!(!files.is_empty());
    for file in files {
        let path = file.expect("an entry").path();
        replay(&path.display().to_string(), &fs::read(&path).expect("a file"));
    }
    replay("nothing", &[]);
}

#[test]
fn random_bytes_pass() {
    let mut rng = common::cases::Rng::new(505);
    for seed in 0..5000 {
        let bytes: Vec<u8> = (0..rng.below(300)).map(|_| rng.bits() as u8).collect();
        replay(&format!("seed {seed}"), &bytes);
    }
}
