//! The memory of the board that `FIRMWARE_BOARD` names, for the linker; and the cfg `sole` with that of
//! the operation that `FIRMWARE_OPERATION` names, for an image that has no other.

use std::{env, error::Error, fs, path::Path};

/// Where flash and RAM begin, and their length; for RISC-V all of it is RAM.
fn memory(board: &str) -> &'static str {
    match board {
        "cortex-m33" => {
            "MEMORY { FLASH : ORIGIN = 0x10000000, LENGTH = 512K
                      RAM : ORIGIN = 0x38000000, LENGTH = 512K }"
        }
        "mps2-large" => {
            "MEMORY { FLASH : ORIGIN = 0, LENGTH = 4M
                      RAM : ORIGIN = 0x20000000, LENGTH = 4M }"
        }
        "riscv32" => {
            "MEMORY { RAM : ORIGIN = 0x80000000, LENGTH = 16M }
             REGION_ALIAS(REGION_TEXT, RAM);
             REGION_ALIAS(REGION_RODATA, RAM);
             REGION_ALIAS(REGION_DATA, RAM);
             REGION_ALIAS(REGION_BSS, RAM);
             REGION_ALIAS(REGION_HEAP, RAM);
             REGION_ALIAS(REGION_STACK, RAM);"
        }
        _ => {
            "MEMORY { FLASH : ORIGIN = 0, LENGTH = 512K
                      RAM : ORIGIN = 0x20000000, LENGTH = 512K }"
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=FIRMWARE_BOARD");
    println!("cargo::rerun-if-env-changed=FIRMWARE_OPERATION");
    println!("cargo::rustc-check-cfg=cfg(sole, level_0)");
    if env::var("OPT_LEVEL").is_ok_and(|level| level == "0") {
        println!("cargo::rustc-cfg=level_0");
    }
    if let Ok(operation) = env::var("FIRMWARE_OPERATION") {
        println!("cargo::rustc-cfg=sole\ncargo::rustc-cfg={operation}");
    }
    let board = env::var("FIRMWARE_BOARD").unwrap_or_default();
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("memory.x"), memory(&board))?;
    println!("cargo::rustc-link-search={out}");
    if env::var("CARGO_CFG_TARGET_OS")? == "none" {
        if board == "riscv32" {
            println!("cargo::rustc-link-arg-bin=board=-Tmemory.x");
        }
        println!("cargo::rustc-link-arg-bins=-Tlink.x");
    }
    Ok(())
}
