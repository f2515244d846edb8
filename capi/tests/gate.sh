#!/bin/sh
# gate.sh BUILD [TARGET]: links probe.c, which calls every function of the header, against
# BUILD/libsdpa.a; fails when a function is not in the image, when a panic is, or when
# anything but memcpy, memset, memmove and memcmp is missing. Then runs it.
set -eu
cd "$(dirname "$0")"
build=../$1
target=${2:-host}
case $target in
host)
    cc=${CC:-cc}
    set -- -Wl,-e,main
    ;;
thumbv7em-none-eabihf)
    cc="arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16"
    set -- -T probe.ld -Wl,-z,noexecstack start.c
    ;;
*)
    echo "gate.sh: no start-up for $target" >&2
    exit 2
    ;;
esac
fail() {
    echo "gate.sh: $target: $*" >&2
    exit 1
}
image=$build/probe
functions=$(sed -n 's/^\(sdpa_status\|size_t\|const char\) [*]*\(sdpa_[a-z_]*\).*/\2/p' ../include/sdpa.h)
[ -n "$functions" ] || fail "the header has no functions"

# What is missing may be missing for now, so that a panic is named as one.
$cc -std=c99 -O1 -ffunction-sections -ffreestanding -nostdlib -static -no-pie -I../include probe.c "$@" \
    "$build/libsdpa.a" -Wl,--gc-sections -Wl,-Map="$image.map" -Wl,--unresolved-symbols=ignore-all \
    -Wl,--build-id=none -o "$image"
kept=$(sed '1,/^Linker script and memory map/d' "$image.map")
for function in $functions; do
    echo "$kept" | grep -q "^ *\.text\.$function\$\|^ *\.text\.$function " ||
        fail "$function is not in the image"
done
# The names of the compiler's are mangled, but plain words stay.
if nm "$image" | grep -i "panic\|rust_begin_unwind\|rust_eh_personality"; then
    fail "the panics above are reachable"
fi
missing=$(nm -u "$image" | awk '{print $2}' | grep -vx 'mem\(cpy\|set\|move\|cmp\)' || true)
[ -z "$missing" ] || fail "undefined:" $missing

case $target in
host)
    $cc -std=c99 -O1 -I../include probe.c "$build/libsdpa.a" -o "$image"
    "$image" || fail "the probe fails"
    ran="runs"
    ;;
*)
    if command -v qemu-system-arm >/dev/null; then
        timeout 60 qemu-system-arm -M mps2-an386 -nographic -monitor none \
            -serial none -semihosting-config enable=on,target=native -kernel "$image" || fail "the probe fails"
        ran="runs under QEMU"
    elif [ -n "${REQUIRE_ALL:-}" ]; then
        fail "qemu-system-arm is missing"
    else
        ran="NOT RUN (no qemu-system-arm)"
    fi
    ;;
esac
echo "gate.sh: $target: $(echo "$functions" | wc -l) functions, no panic, nothing missing; the probe $ran"
