#!/usr/bin/env bash
# Builds the tests for microcontrollers, runs them in QEMU, and checks their output against the bits of
# this machine and against the limits.
#
#   run.sh                    the boards of the tables in docs/firmware.md, which it checks
#   run.sh BOARD…             these boards; `standalone`: each operation in an image of its own; `frames`:
#                             calls compiled in the crate of an application, at each opt-level
#   run.sh --docs             the same; writes the tables
#   run.sh --break WAY BOARD… a run that must fail: slow, wrong or silent; by-value for `frames`.
#                             `standalone` then runs the first operation only, and `frames` two levels
#
# Installs nothing. Fails, by its exit status, if a check fails or a board does not run to its end.
set -euo pipefail
cd "$(dirname "$0")"

# name, target, machine (virt is RISC-V), profile, CPU or -, memory of build.rs
boards=(
    "cortex-m4f thumbv7em-none-eabihf mps2-an386 release - mps2"
    "cortex-m4f-s thumbv7em-none-eabihf mps2-an386 small - mps2"
    "cortex-m4f-lto thumbv7em-none-eabihf mps2-an386 lto - mps2"
    "cortex-m4f-s-lto thumbv7em-none-eabihf mps2-an386 lto-small - mps2"
    "cortex-m4f-cpu thumbv7em-none-eabihf mps2-an386 release cortex-m4 mps2"
    "cortex-m4f-kept thumbv7em-none-eabihf mps2-an386 release - mps2"
    "cortex-m7 thumbv7em-none-eabihf mps2-an500 release - mps2"
    "cortex-m7-cpu thumbv7em-none-eabihf mps2-an500 release cortex-m7 mps2"
    "cortex-m33 thumbv8m.main-none-eabihf mps2-an505 release - cortex-m33"
    "cortex-m33-cpu thumbv8m.main-none-eabihf mps2-an505 release cortex-m33 cortex-m33"
    "cortex-m55 thumbv8m.main-none-eabihf mps3-an547 release - mps2"
    "cortex-m55-mve thumbv8m.main-none-eabihf mps3-an547 release cortex-m55 mps2"
    "cortex-m3 thumbv6m-none-eabi mps2-an385 release - mps2"
    "riscv32imac riscv32imac-unknown-none-elf virt release - riscv32"
    "riscv32imafc riscv32imafc-unknown-none-elf virt release - riscv32"
)

features=() docs=() chosen=()
while [ $# -gt 0 ]; do
    case $1 in
        --docs) docs=(--docs ../../docs/firmware.md) ;;
        --break) features=(--features "$2") && shift ;;
        -*) echo "no such option: $1" && exit 2 ;;
        *) chosen+=("$1") ;;
    esac
    shift
done
if [ ${#chosen[@]} = 0 ]; then
    for board in "${boards[@]}"; do [[ $board == *-lto\ * ]] || chosen+=("${board%% *}"); done
    chosen+=(standalone frames)
    [ ${#docs[@]} != 0 ] || docs=(--check ../../docs/firmware.md)
fi

missing() { echo "missing: $1 ($2)" && exit 2; }
llvm=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
for qemu in qemu-system-arm qemu-system-riscv32; do
    command -v $qemu >/dev/null ||
        missing $qemu "apt-get install --no-install-recommends qemu-system-arm qemu-system-misc"
done
command -v timeout >/dev/null || missing timeout "apt-get install coreutils"
for tool in llvm-size llvm-nm; do
    [ -x "$llvm/$tool" ] || missing $tool "rustup component add llvm-tools"
done
[ -x "$llvm/rust-lld" ] || missing rust-lld "part of the Rust toolchain"
need_target() {
    rustup target list --installed 2>/dev/null | grep -qx "$1" || missing "$1" "rustup target add $1"
}

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/results"
results=$(realpath "$target/results")
rm -f "$results"/*.txt

find_board() {
    for board in "${boards[@]}"; do
        if [ "${board%% *}" = "$1" ]; then echo "$board" && return; fi
    done
    echo "no such board: $1" >&2
    exit 2
}

# Runs an image on a machine. Each instruction takes 128 ns of the board's time, so that its timer
# counts instructions.
emulate() {
    local machine=$1 image=$2 qemu
    qemu=(qemu-system-arm -M "$machine")
    [ "$machine" != virt ] || qemu=(qemu-system-riscv32 -M virt -bios none)
    timeout 60 "${qemu[@]}" -nographic -monitor none -serial none \
        -semihosting-config enable=on,target=native -icount shift=7,align=off,sleep=off \
        -kernel "$image" </dev/null
}

run_board() {
    local board triple machine profile cpu memory flags="" features=("${features[@]}")
    board=$(find_board "$1")
    read -r _ triple machine profile cpu memory <<<"$board"
    [ "$cpu" = - ] || flags="-C target-cpu=$cpu"
    [[ $1 != *-kept ]] || features+=(--features kept)
    need_target "$triple"
    FIRMWARE_BOARD=$memory RUSTFLAGS=$flags cargo build --quiet --locked --bin board \
        --target "$triple" --profile "$profile" "${features[@]}"
    emulate "$machine" "$target/$triple/$profile/board" >"$results/$1.txt" ||
        echo "$1: exit status $?, and its last words: $(tail -n 1 "$results/$1.txt")"
}

# Measures each operation on the M4F in an image without the others: its instructions, its stack, and the
# flash of its symbol and all that it calls.
run_standalone() {
    local triple=thumbv7em-none-eabihf level profile operations operation archive image symbols sections
    local optional='sdpa::score_mod::|sdpa::kernel::tanh|sdpa::kernel::ln|FnOnce::call_once'
    need_target $triple
    operations=$(cargo run --quiet --locked --bin report -- --operations)
    [ ${#features[@]} = 0 ] || operations=${operations%%$'\n'*}
    local make=(make -s -C ../../capi TARGET=$triple CARGO_TARGET_DIR="$(realpath ../..)/target")
    for level in 3 s; do
        [ $level = 3 ] && profile=lto || profile=lto-small
        echo "level $level" >>"$results/standalone.txt"
        for operation in $operations; do
            export FIRMWARE_OPERATION=$operation
            image=$results/$operation.$level.elf
            case $operation in
                sdpa_*) # in C; what it wants of a C library is not counted
                    "${make[@]}" LEVEL=$level BUILD="$results/c$level"
                    export FIRMWARE_ARCHIVE=$results/c$level/libsdpa-attention.a
                    archive=$FIRMWARE_ARCHIVE
                    ;;
                *)
                    cargo rustc --quiet --locked --lib --crate-type staticlib --features flash \
                        --target $triple --profile $profile
                    archive=$target/$triple/$profile/libfirmware.a
                    ;;
            esac
            "$llvm/rust-lld" -flavor gnu --gc-sections --entry="$operation" -u "$operation" \
                --unresolved-symbols=ignore-all "$archive" -o "$image"
            symbols=$("$llvm/llvm-nm" --demangle "$image")
            if grep -i panic <<<"$symbols"; then
                echo "$operation links the panics above" && exit 1
            fi
            # Softcap, bias, keep and the logarithm are linked only by calls that use them.
            case $operation in
                attention | attention_cached* | sdpa_attention_plain | sdpa_attention_heads_plain)
                    if grep -E "$optional" <<<"$symbols"; then
                        echo "$operation links the options above" && exit 1
                    fi
                    ;;
                attention_with_all | sdpa_attention)
                    if [ "$(grep -cE "$optional" <<<"$symbols")" -lt 5 ]; then
                        echo "the options have other names: ${optional}" && exit 1
                    fi
                    ;;
            esac
            sections=$("$llvm/llvm-size" -A "$image")
            if grep -E '^\.(data|bss)' <<<"$sections"; then
                echo "$operation has the sections above: no state is allowed" && exit 1
            fi
            awk -v name="$operation" '
                /^\.(text|rodata|data)/ { bytes += $2 }
                END { print "flash", name, bytes }' <<<"$sections" >>"$results/standalone.txt"
            FIRMWARE_BOARD=mps2 cargo build --quiet --locked --bin board \
                --target $triple --profile $profile "${features[@]}"
            emulate mps2-an386 "$target/$triple/$profile/board" >>"$results/standalone.txt" ||
                echo "$operation at $level: exit status $?" | tee -a "$results/standalone.txt"
            unset FIRMWARE_OPERATION
        done
    done
}

# Measures the stack of calls that an application compiles in its own crate.
run_frames() {
    local triple=thumbv7em-none-eabihf level profile levels=(0 1 2 3 s z)
    [ ${#features[@]} = 0 ] || levels=(0 3)
    for level in "${levels[@]}"; do
        echo "level $level" >>"$results/frames.txt"
        case $level in 3) profile=release ;; s) profile=small ;; *) profile=app-$level ;; esac
        FIRMWARE_BOARD=mps2-large cargo build --quiet --locked --bin frames \
            --target $triple --profile $profile "${features[@]}"
        emulate mps2-an386 "$target/$triple/$profile/frames" >>"$results/frames.txt" ||
            echo "frames at $level: exit status $?" | tee -a "$results/frames.txt"
    done
}

for name in "${chosen[@]}"; do
    case $name in
        standalone) run_standalone ;;
        frames) run_frames ;;
        *) run_board "$name" ;;
    esac
done
cargo run --quiet --locked --bin report -- "${docs[@]}" "$results" "${chosen[@]}"
