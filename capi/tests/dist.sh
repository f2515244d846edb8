#!/bin/sh
# dist.sh TREE: what `make dist` has left in TREE, whole or in part.
#
# * SHA256SUMS lists every file, and no other.
# * Each archive for a microcontroller, linked by gcc of its ABI, gives the digest of this machine for a thousand
#   random calls, in QEMU; that of this machine too. One wrong bit is seen, and gcc of another ABI refuses.
# * The first archive has the same bytes when it is built in another folder, with another folder of cargo's.
# * CMake, Zephyr's and ESP-IDF's CMakeLists.txt, Arduino and PlatformIO find the archive that fits (maps.sh).
#
# Wants gcc-arm-none-eabi, libnewlib-arm-none-eabi, gcc-riscv64-unknown-elf, picolibc-riscv64-unknown-elf,
# qemu-system-arm, qemu-system-misc and cmake.
set -eu
cd "$(dirname "$0")/.."
tree=$(realpath "$1")
bin=$tree.work/tests
mkdir -p "$bin"
fail() {
    echo "dist.sh: $*" >&2
    exit 1
}
for tool in arm-none-eabi-gcc riscv64-unknown-elf-gcc qemu-system-arm qemu-system-riscv32 cmake; do
    command -v $tool >/dev/null || fail "$tool is missing"
done

(cd "$tree" && sha256sum --check --strict --quiet SHA256SUMS) || fail "the checksums above are wrong"
listed=$(sed 's/^[0-9a-f]*  //' "$tree/SHA256SUMS")
[ "$listed" = "$(cd "$tree" && find . -type f ! -name SHA256SUMS | LC_ALL=C sort)" ] || fail "SHA256SUMS lists other files"
for file in LICENSE-APACHE LICENSE-MIT licenses/libm-*/LICENSE.txt; do
    [ -s "$tree/"$file ] || fail "there is no $file"
done

# The options of gcc for a core and a float ABI, QEMU's machine, and where its flash and RAM begin.
options_of() {
    case $1 in
    cortex-m4/hard-float | cortex-m4/softfp-float) fpu=-mfpu=fpv4-sp-d16 ;;
    cortex-m7/hard-float | cortex-m7/softfp-float | cortex-m33/hard-float | cortex-m33/softfp-float) fpu=-mfpu=fpv5-sp-d16 ;;
    *) fpu= ;;
    esac
    float=${1#*/}
    flash=0x00000000 ram=0x20000000
    case $1 in
    cortex-m0plus/* | cortex-m3/*) machine=mps2-an385 ;;
    cortex-m4/*) machine=mps2-an386 ;;
    cortex-m7/*) machine=mps2-an500 ;;
    cortex-m33/*) machine=mps2-an505 flash=0x10000000 ram=0x38000000 ;;
    cortex-m55/*) machine=mps3-an547 ram=0x60000000 ;;
    esac
    case $1 in
    rv32*/hard-float) options="-march=${1%/*} -mabi=ilp32f" ;;
    rv32*) options="-march=${1%/*} -mabi=ilp32" ;;
    *) options="-mcpu=${1%/*} -mthumb $fpu -mfloat-abi=${float%-float}" ;;
    esac
}

# Links calls.c with an archive, for a core and a float ABI.
link() {
    library=$1 to=$3
    options_of "$2"
    case $2 in
    rv32*)
        # shellcheck disable=SC2086 # options
        riscv64-unknown-elf-gcc $options --specs=picolibc.specs --oslib=semihost --crt0=hosted -std=c99 -O1 -Iinclude \
            tests/calls.c "$library" -Wl,--gc-sections,--defsym=__flash=0x80000000,--defsym=__flash_size=0x200000 \
            -Wl,--defsym=__ram=0x80200000,--defsym=__ram_size=0x400000 -o "$to"
        ;;
    *)
        sed "s/0x00000000/$flash/; s/0x20000000/$ram/; s/^    stack_end/    end = .;&/" tests/probe.ld >"$bin/board.ld"
        # shellcheck disable=SC2086 # options
        arm-none-eabi-gcc $options --specs=rdimon.specs -nostartfiles -std=c99 -O1 -ffunction-sections -Iinclude \
            -Dmain=calls_main -c tests/calls.c -o "$bin/calls.o" &&
            arm-none-eabi-gcc $options --specs=rdimon.specs -nostartfiles tests/hosted.c tests/start.c "$bin/calls.o" \
                "$library" -T "$bin/board.ld" -Wl,--gc-sections,-z,noexecstack,--no-warn-rwx-segments -o "$to"
        ;;
    esac
}

# picolibc writes by SYS_WRITEC, which QEMU prints to its standard error.
emulate() {
    qemu="qemu-system-arm -M $machine"
    case $1 in *.rv32*) qemu="qemu-system-riscv32 -M virt -bios none" ;; esac
    timeout 300 $qemu -nographic -monitor none -serial none -semihosting-config enable=on,target=native -kernel "$1" 2>&1
}

digest=$(cargo run --quiet --example calls | grep "on scalar: ")
broken=$(SDPA_BREAK_BITS=1 cargo run --quiet --example calls | grep "on scalar: ")
[ "$digest" != "$broken" ] || fail "one wrong bit is not seen"
for archive in $(cd "$tree/lib" && find . -name '*.a' | sed 's/..//; s/.libsdpa-attention.a$//' | sort); do
    case $archive in
    *-linux-gnu)
        cc -std=c99 -O1 -I"$tree/include" tests/calls.c "$tree/lib/$archive/libsdpa-attention.a" -o "$bin/calls"
        "$bin/calls" | grep -qx "$digest" || fail "$archive has other bits"
        ;;
    *)
        image=$bin/calls.$(echo "$archive" | tr / -)
        link "$tree/lib/$archive/libsdpa-attention.a" "${archive%/size}" "$image" || fail "gcc does not link $archive"
        emulate "$image" >"$image.txt" || fail "$archive: $(tail -n 1 "$image.txt")"
        grep -qx "$digest" "$image.txt" || fail "$archive has other bits than '$digest': $(cat "$image.txt")"
        ;;
    esac
    echo "$archive: $digest"
done

hard=$tree/lib/cortex-m4/hard-float/libsdpa-attention.a
if [ -f "$hard" ]; then
    if link "$hard" cortex-m4/softfp-float "$bin/refused" 2>"$bin/said.txt"; then fail "softfp links an archive for hard"; fi
    grep -q "uses VFP register arguments" "$bin/said.txt" || fail "gcc fails otherwise: $(cat "$bin/said.txt")"
    echo "gcc refuses the archive of another ABI"
fi

other=$bin/elsewhere
rm -rf "$other"
mkdir -p "$other/checkout"
tar -C .. --exclude=target --exclude=./capi/build --exclude=./.git -cf - . | tar -C "$other/checkout" -xf -
first=$(cd "$tree/lib" && find . -path '*-float*' -name '*.a' | sed 's/..//; s/.libsdpa-attention.a$//' | LC_ALL=C sort | head -n 1)
CARGO_TARGET_DIR=$other/target make -s -C "$other/checkout/capi" dist-archives ARCHIVES="$first" DIST="$other/tree"
cmp "$other/tree/lib/$first/libsdpa-attention.a" "$tree/lib/$first/libsdpa-attention.a" ||
    fail "$first has other bytes when it is built elsewhere"
rm -rf "$other"
echo "$first: the same bytes from another folder"

tests/maps.sh "$tree"
echo "dist.sh: all of it passed"
