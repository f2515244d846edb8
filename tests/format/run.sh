#!/usr/bin/env bash
# Logs a value of each public type through defmt from a Cortex-M4F in QEMU, decodes the log, and compares.
# Arguments go to cargo: `--features wrong` and `--features missing` must fail.
set -euo pipefail
cd "$(dirname "$0")"
triple=thumbv7em-none-eabihf
image=${CARGO_TARGET_DIR:-target}/$triple/release/image
cargo build --quiet --locked --release --bin image --target $triple "$@"
timeout 60 qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none \
    -semihosting-config enable=on,target=native -kernel "$image" </dev/null >"$image.log"
cargo run --quiet --locked --bin decode -- "$image" "$image.log" ../../src/lib.rs
