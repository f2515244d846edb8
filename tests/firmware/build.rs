//! Writes the linker's memory map of the board `FIRMWARE_BOARD`. If `FIRMWARE_OPERATION` names an operation,
//! sets the cfg `standalone` and a cfg of that name: the image contains no other operation. If it is one of the C
//! library, sets `c_operation` and links the archive `FIRMWARE_ARCHIVE`.

use std::{env, error::Error, fs, path::Path};

/// The origin and length of flash and RAM; on RISC-V everything is RAM.
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
    println!("cargo::rerun-if-env-changed=FIRMWARE_ARCHIVE");
    println!("cargo::rustc-check-cfg=cfg(standalone, level_0, c_operation)");
    if env::var("OPT_LEVEL").is_ok_and(|level| level == "0") {
        println!("cargo::rustc-cfg=level_0");
    }
    if let Ok(operation) = env::var("FIRMWARE_OPERATION") {
        println!("cargo::rustc-cfg=standalone\ncargo::rustc-cfg={operation}");
        if operation.starts_with("sdpa_") {
            let archive = env::var("FIRMWARE_ARCHIVE")?;
            println!("cargo::rustc-cfg=c_operation\ncargo::rustc-link-arg-bin=board={archive}");
            println!("cargo::rerun-if-changed={archive}");
        }
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
