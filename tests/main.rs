//! The integration tests: one program, with one module per subject.
//!
//! ```text
//! cargo test --test all                   # all of them
//! cargo test --test all attention_bits::  # one subject
//! cargo test --test all ::avx2::          # one back end
//! ```

#[macro_use]
mod common;

mod accuracy;
mod attention_accuracy;
mod attention_bits;
mod attention_cache;
mod attention_errors;
mod attention_pattern;
mod attention_positions;
mod attention_semantics;
mod backends;
mod bits;
mod digests;
mod elements;
mod examples;
mod flags;
mod hidden_blocks;
mod hot_loop;
mod include;
mod layers;
mod matrix;
mod memory;
mod merge;
mod onnx;
mod onnx_attention;
mod onnx_rotary;
mod packed;
mod ranges;
mod regressions;
mod rotate;
mod semantics;
mod slopes;
mod spans;
mod threads;

use std::{fs, path::Path};

/// A file that is not declared as a module above would never run.
#[test]
fn every_file_is_a_module() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
            let line = format!("\nmod {name};\n");
            assert!(include_str!("main.rs").contains(&line), "{} is not run", path.display());
        }
    }
}
