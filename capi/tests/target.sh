#!/bin/sh
# target.sh gate BUILD TARGET: fails unless the static library is one object that defines the functions of the
# header, has no panic, and has no undefined symbol that a C compiler does not provide.
# target.sh check BUILD TARGET: the gate, and the C tests on TARGET, whose bits must be those of this machine;
# and the gate must fail if a panic is reachable.
#
# x86_64-pc-windows-gnu needs mingw-w64 and wine64; wasm32-unknown-unknown needs clang, lld, llvm and Node,
# and wasi-libc and libclang-rt-dev-wasm32 as the C library of the tests.
set -eu
cd "$(dirname "$0")/.."
what=$1 build=$2 target=$3
name=$build/sdpa-attention
library=$build/libsdpa-attention.a
bin=$build/tests
mkdir -p "$bin"
fail() {
    echo "target.sh: $target: $*" >&2
    exit 1
}
case $target in
x86_64-pc-windows-gnu)
    cc=x86_64-w64-mingw32-gcc
    tolerate=
    tools=x86_64-w64-mingw32-
    suffix=.exe
    kinds="static dll"
    environment=tests/environment.c
    compilers=___chkstk_ms
    # wine creates its own folder, and prints warnings.
    WINEPREFIX=$PWD/$build/wine WINEDEBUG=-all
    export WINEPREFIX WINEDEBUG
    wine=$(command -v wine64 || echo /usr/lib/wine/wine64)
    run() { "$wine" "$@" 2>"$bin/wine.txt"; }
    ;;
wasm32-unknown-unknown)
    cc="clang --target=wasm32-wasi"
    tolerate=-Wno-unneeded-internal-declaration # of arrays that only sizeof uses
    tools=llvm-
    suffix=.wasm
    kinds=static
    environment= # it has no exception flags and one rounding mode
    # The last one is in clang's library of builtins; sdpa_rotary_init wants it.
    compilers="__indirect_function_table\|__stack_pointer\|__multi3"
    # Without fast calls, as in .ci/run.
    run() { node --no-warnings --no-turbo-fast-api-calls ../.ci/wasi.mjs "$@"; }
    ;;
*)
    fail "there are no tests for it"
    ;;
esac
cc="$cc -std=c99 -O1 -Wall -Wextra -Wpedantic -Werror $tolerate -Iinclude"

# Mangled names still contain these words.
symbols=$("${tools}nm" "$name.o")
if echo "$symbols" | grep -i "panic\|rust_begin_unwind\|rust_eh_personality"; then
    fail "the panics above are reachable"
fi
functions=$(sed -n 's/^\(sdpa_status\|sdpa_backend_t\|size_t\|const char\) [*]*\(sdpa_[a-z_]*\).*/\2/p' include/sdpa.h | sort)
defined=$(echo "$symbols" | awk '$2 ~ /^[A-TV-Z]$/ && $3 !~ /^\./ { print $3 }' | sort)
[ "$defined" = "$functions" ] || fail "it defines other functions than the header:" $defined
missing=$(echo "$symbols" | awk '$1 == "U" { print $2 }' | grep -vx "mem\(cpy\|set\|move\|cmp\)\|$compilers" || true)
[ -z "$missing" ] || fail "undefined:" $missing
[ "$("${tools}ar" t "$library")" = "$(basename "$name.o")" ] || fail "$library is not one object"
echo "target.sh: $target: $(echo "$functions" | wc -l) functions, no panic, nothing missing"
[ "$what" = check ] || exit 0

# Runs a program, which must succeed, and writes its output to a file.
run_to() {
    run "$2" >"$bin/said.txt" || fail "$2 fails: $(cat "$bin/said.txt")"
    tr -d '\r' <"$bin/said.txt" >"$1"
}
cargo run --quiet --example calls >"$bin/host.txt"
SDPA_BREAK_BITS=1 cargo run --quiet --example calls >"$bin/broken.txt"
for kind in $kinds; do
    with=$library
    if [ $kind = dll ]; then
        with="-L$build -lsdpa-attention"
        cp "$name.dll" "$bin/"
    fi
    for source in tests/status.c tests/numbers.c tests/pointers.c $environment tests/probe.c tests/calls.c examples/decode.c; do
        test=$bin/$(basename $source .c)
        # shellcheck disable=SC2086 # options
        $cc $source $with -lm -o "$test$suffix"
        run_to "$test.txt" "$test$suffix"
        echo "$kind: $(basename "$test"): $(tail -n 1 "$test.txt")"
    done
    grep -q "token 199 looks at 195.511 and 195.980" "$bin/decode.txt" || fail "decode.c says otherwise"
    # The best back end may differ; every other line must be among those of this machine.
    [ "$(grep -c "on scalar:\|on portable:" "$bin/calls.txt")" = 2 ] || fail "calls.c is short"
    if grep -v "on the best:" "$bin/calls.txt" | grep -vxFf "$bin/host.txt"; then
        fail "other bits than those of this machine"
    fi
    if grep -qxFf "$bin/broken.txt" "$bin/calls.txt"; then fail "one wrong bit is not seen"; fi
done

case $target in
x86_64-pc-windows-gnu)
    headers=$("${tools}objdump" -p "$name.dll")
    exported=$(echo "$headers" | sed -n 's/^\t\[ *[0-9]*\] \([A-Za-z_].*\)/\1/p' | sort)
    [ "$exported" = "$functions" ] || fail "the DLL exports other functions than the header:" $exported
    wanted=$(echo "$headers" | sed -n 's/.*DLL Name: //p' | tr '\n' ' ')
    [ "$wanted" = "KERNEL32.dll msvcrt.dll " ] || fail "the DLL wants $wanted"
    "${tools}objdump" -p "$bin/calls.exe" | grep -q "DLL Name: sdpa-attention.dll" || fail "calls.exe has no DLL"
    echo "the DLL exports the header's functions, and wants $wanted"
    ;;
wasm32-unknown-unknown)
    # Also without a C library: an undefined symbol would be an import, which fails to instantiate.
    clang --target=wasm32-unknown-unknown -std=c99 -O1 -ffreestanding -nostdlib -mbulk-memory -Iinclude -Dmain=probe \
        tests/probe.c "$library" "$(clang --target=wasm32-wasi -print-libgcc-file-name)" \
        -Wl,--no-entry -Wl,--export=probe -o "$bin/probe.wasm"
    node -e 'WebAssembly.instantiate(require("fs").readFileSync(process.argv[1])).then(
        ({ instance }) => process.exit(instance.exports.probe()))' "$bin/probe.wasm" || fail "the probe fails"
    echo "the probe runs without a C library"
    ;;
esac
if make -s gate TARGET="$target" FEATURES=deliberate-panic >"$bin/said.txt" 2>&1; then
    fail "a reachable panic is not seen"
fi
grep -q "panics above are reachable" "$bin/said.txt" || fail "the gate fails otherwise: $(cat "$bin/said.txt")"
echo "target.sh: $target: all of it passed, and a reachable panic fails"
