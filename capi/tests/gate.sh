#!/bin/sh
# gate.sh BUILD [TARGET]: links probe.c, which calls every function of the header, against the static
# library in BUILD. Fails if a function is missing from the image, if a panic is in it, or if a symbol other
# than memcpy, memset, memmove and memcmp is undefined. Then runs it, and on a board pointers.c too.
set -eu
cd "$(dirname "$0")"
library=../$1/libsdpa-attention.a
target=${2:-host}
arm="-mthumb -T probe.ld -Wl,-z,noexecstack start.c"
case $target in
host)
    cc=${CC:-cc}
    options=-Wl,-e,main
    ;;
thumbv6m-none-eabi)
    cc="arm-none-eabi-gcc -mcpu=cortex-m0 -mfloat-abi=soft"
    options="$arm -lgcc" # soft floats of the tests themselves
    machine=mps2-an385 # a Cortex-M3, which runs the code of an M0
    ;;
thumbv7em-none-eabihf)
    cc="arm-none-eabi-gcc -mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16"
    options=$arm
    machine=mps2-an386
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
image=../$1/probe
functions=$(sed -n 's/^\(sdpa_status\|sdpa_backend_t\|size_t\|const char\) [*]*\(sdpa_[a-z_]*\).*/\2/p' ../include/sdpa.h)
[ -n "$functions" ] || fail "the header has no functions"

# Links a program without a C library. Undefined symbols are allowed at first, so that a panic is reported as
# one.
link() {
    source=$1 to=$2
    shift 2
    case ${FEATURES:-} in *keep-first*) set -- "$@" -DKEEP_FIRST ;; esac
    # shellcheck disable=SC2086 # options
    $cc -std=c99 -O1 -ffunction-sections -ffreestanding -nostdlib -static -no-pie -I../include "$@" "$source" \
        "$library" $options -Wl,--gc-sections -Wl,-Map="$to.map" -Wl,--unresolved-symbols=ignore-all \
        -Wl,--build-id=none -o "$to"
    kept=$(sed -n '1,/^Linker script and memory map/d; s/^ *\.text\.\(sdpa_[a-z_]*\).*/\1/p' "$to.map")
}
# A function that is not called is not linked.
link probe.c "$image" -DPLAIN
if echo "$kept" | grep "_on\$\|backend_"; then
    fail "a program that chooses no back end links the functions above"
fi
# On a board plain attention links what it is made of, at each opt-level of the program, and not the general one.
if [ "$target" != host ]; then
    for level in g 1 2 3 s; do
        while read -r function what; do
            link plain.c "$image" -O$level $what
            if [ "$(echo $kept)" != "${function}_plain" ]; then fail "at -O$level ${function}_plain links:" $kept; fi
            link plain.c "$image" -O$level $what -DSOFTCAP
            echo "$kept" | grep -qx "$function" || fail "at -O$level $function with a softcap is taken for plain"
        done <<END
sdpa_attention
sdpa_attention_heads -DHEADS
sdpa_cache_attend_heads -DCACHE
END
    done
fi
link probe.c "$image"
# By symbols: two functions with the same code share a section.
linked=$(sed -n '1,/^Linker script and memory map/d; s/^ *0x[0-9a-f]* *\(sdpa_[a-z_]*\)$/\1/p' "$image.map")
for function in $functions; do
    echo "$linked" | grep -qx "$function" || fail "$function is not in the image"
done
# Mangled names still contain these words.
if nm "$image" | grep -i "panic\|rust_begin_unwind\|rust_eh_personality"; then
    fail "the panics above are reachable"
fi
missing=$(nm -u "$image" | awk '{print $2}' | grep -vx 'mem\(cpy\|set\|move\|cmp\)' || true)
[ -z "$missing" ] || fail "undefined:" $missing

emulate() {
    timeout 60 qemu-system-arm -M $machine -nographic -monitor none -serial none \
        -semihosting-config enable=on,target=native -kernel "$1" 2>/dev/null
}
if [ "$target" = host ]; then
    $cc -std=c99 -O1 -I../include probe.c "$library" -o "$image"
    "$image" || fail "the probe fails"
    ran="the probe runs"
elif command -v qemu-system-arm >/dev/null; then
    emulate "$image" || fail "the probe fails"
    link pointers.c "$image"
    emulate "$image" || fail "pointers.c fails"
    link pointers.c "$image" -DREAD_NOWHERE
    if emulate "$image"; then fail "a pointer to nowhere is read without a fault"; fi
    ran="the probe and pointers.c run under QEMU"
elif [ -n "${REQUIRE_ALL:-}" ]; then
    fail "qemu-system-arm is missing"
else
    ran="NOT RUN (no qemu-system-arm)"
fi
echo "gate.sh: $target: $(echo "$functions" | wc -l) functions, no panic, nothing missing; $ran"
