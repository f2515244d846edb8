#!/usr/bin/env bash
# From a fit in Python to a board and back: fit.py fits and exports a classifier, which runs in Rust (src/) and in
# C (c/) on a Cortex-M4F in QEMU; fails unless every bit of every output is Python's. $PYTHON is a Python with sdpa.
#
#   run.sh
#   run.sh --break weight   a run that must fail: one bit of one weight differs on the board
#
# Installs nothing.
set -euo pipefail
cd "$(dirname "$0")"

broken=()
case "$#$*" in
    0) ;;
    "2--break weight") broken=(--break) ;;
    *) echo "no such call: $*" && exit 2 ;;
esac

triple=thumbv7em-none-eabihf
missing() { echo "missing: $1 ($2)" && exit 2; }
command -v qemu-system-arm >/dev/null || missing qemu-system-arm "apt-get install qemu-system-arm"
command -v arm-none-eabi-gcc >/dev/null ||
    missing arm-none-eabi-gcc "apt-get install gcc-arm-none-eabi"
rustup target list --installed 2>/dev/null | grep -qx $triple ||
    missing $triple "rustup target add $triple"

python=${PYTHON:-python3}
target=${CARGO_TARGET_DIR:-$PWD/target}
board=../../../examples/firmware/c
KEYWORD_FOLDER=$target/keyword
export KEYWORD_FOLDER
"$python" fit.py "$KEYWORD_FOLDER" "${broken[@]}"

cargo build --quiet --locked --release --target $triple --target-dir "$target"
make -s -C ../../../capi TARGET=$triple
arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 \
    -std=c11 -Os -Wall -Wextra -Wpedantic -Werror -ffreestanding -ffunction-sections -fdata-sections \
    -I../../../capi/include -I$board -I"$KEYWORD_FOLDER" \
    c/keyword.c $board/board.c ../../../capi/build/$triple/libsdpa-attention.a \
    -nostdlib -static -T $board/board.ld -Wl,--gc-sections,-z,noexecstack,--fatal-warnings \
    -o "$KEYWORD_FOLDER/keyword-in-c"

run() {
    timeout 60 qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none \
        -semihosting-config enable=on,target=native -kernel "$1" </dev/null >"$2" || {
        echo "$1: exit status $?, and its last words: $(tail -n 1 "$2")"
        exit 1
    }
}
run "$target/$triple/release/keyword" "$KEYWORD_FOLDER/rust.txt"
run "$KEYWORD_FOLDER/keyword-in-c" "$KEYWORD_FOLDER/c.txt"
"$python" fit.py "$KEYWORD_FOLDER" --check "$KEYWORD_FOLDER/rust.txt" "$KEYWORD_FOLDER/c.txt"
