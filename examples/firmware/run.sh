#!/usr/bin/env bash
# Builds the listener in Rust (src/) and in C (c/), runs both on a Cortex-M4F in QEMU, and prints
# the output. Fails unless every frame passes its checks and both print the same.
#
#   run.sh
#   run.sh --break WAY   a build that must fail: wrong (one bit of one output differs) or contracted
#                        (the C compiler contracts multiplications and additions to FMA)
#
# Installs nothing.
set -euo pipefail
cd "$(dirname "$0")"

features=() contract=off
case "$#$*" in
    0) ;;
    "2--break wrong") features=(--features wrong) ;;
    "2--break contracted") contract=fast ;;
    *) echo "no such call: $*" && exit 2 ;;
esac

triple=thumbv7em-none-eabihf
missing() { echo "missing: $1 ($2)" && exit 2; }
command -v qemu-system-arm >/dev/null || missing qemu-system-arm "apt-get install qemu-system-arm"
command -v arm-none-eabi-gcc >/dev/null ||
    missing arm-none-eabi-gcc "apt-get install gcc-arm-none-eabi"
rustup target list --installed 2>/dev/null | grep -qx $triple ||
    missing $triple "rustup target add $triple"

target=${CARGO_TARGET_DIR:-target}
in_rust=$target/$triple/release/listener
in_c=$target/$triple/release/listener-in-c

cargo build --quiet --locked --release --target $triple "${features[@]}"
make -s -C ../../capi TARGET=$triple
# --gc-sections keeps only the code that the program reaches, so that nothing else is in flash.
arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 \
    -std=c11 -Os -ffp-contract=$contract -Wall -Wextra -Wpedantic -Werror \
    -ffreestanding -ffunction-sections -fdata-sections -I../../capi/include \
    c/listener.c c/board.c ../../capi/build/$triple/libsdpa-attention.a \
    -nostdlib -static -T c/board.ld -Wl,--gc-sections,-z,noexecstack,--fatal-warnings -o "$in_c"

run() {
    timeout 60 qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none \
        -semihosting-config enable=on,target=native -kernel "$1" </dev/null >"$1.txt" || {
        echo "$1: exit status $?, and its last words: $(tail -n 1 "$1.txt")"
        exit 1
    }
}
run "$in_rust"
run "$in_c"
cat "$in_rust.txt"
diff "$in_rust.txt" "$in_c.txt" || {
    echo "Rust (<) and C (>) differ in the lines above"
    exit 1
}
echo "Rust and C print the same $(wc -l <"$in_rust.txt") lines"
arm-none-eabi-size "$in_rust" "$in_c" |
    awk 'NR > 1 { print $1 + $2, "bytes of flash,", $2 + $3, "of RAM without the stack:", $6 }'
