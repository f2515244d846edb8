#!/bin/sh
# check.sh BUILD: the C and C++ tests against both libraries in BUILD, the examples, the gates
# and an installed tree. A test whose tool is missing is skipped with a message; with REQUIRE_ALL=1 in
# the environment it fails.
set -eu
cd "$(dirname "$0")/.."
build=$1
CC=${CC:-cc}
CXX=${CXX:-c++}
strict="-Wall -Wextra -Wpedantic -Werror -Iinclude -g"
c="$CC -std=c99 $strict"
bin=$build/tests
mkdir -p "$bin"
step() { echo "== $*"; }
has() {
    for tool in "$@"; do
        if ! command -v "$tool" >/dev/null; then
            echo "NOT RUN: $tool is missing" >&2
            [ -z "${REQUIRE_ALL:-}" ] || exit 1
            return 1
        fi
    done
}
# must_fail WORDS COMMAND...: fails unless the command fails and prints the words.
must_fail() {
    words=$1
    shift
    if output=$("$@" 2>&1); then
        echo "this was to fail, and passed: $*" >&2
        exit 1
    fi
    echo "$output" | grep -q "$words" || { echo "$output"; echo "failed otherwise: $*" >&2; exit 1; }
    echo "fails as it must: $words"
}

step "the header is what cbindgen makes of src/, and can be told from another"
if has cbindgen; then
    verify() { RUSTC_BOOTSTRAP=1 cbindgen --quiet --config cbindgen.toml --crate sdpa-capi --output "$1" --verify .; }
    verify include/sdpa.h
    sed 's/size_t n,/int n,/' include/sdpa.h >"$bin/other.h"
    ! verify "$bin/other.h" 2>/dev/null || { echo "another header passes" >&2; exit 1; }
fi

step "the header by itself and every macro of it: C90, and C++ from C++11 on, without a warning"
clean="-Wconversion -Wsign-conversion -Wshadow"
for compiler in "$CC" clang; do
    has "$compiler" || continue
    # shellcheck disable=SC2086 # options
    "$compiler" -std=c89 -pedantic $strict $clean -c tests/macros.c -o "$bin/macros.o"
done
for compiler in "$CXX" clang++; do
    has "$compiler" || continue
    for std in 11 14 17 20; do
        # shellcheck disable=SC2086 # options
        "$compiler" -std=c++$std $strict $clean -Wold-style-cast -Wno-unknown-warning-option -Wuseless-cast \
            -c tests/macros.cpp -o "$bin/macros.o"
    done
done
cast='size_t size(size_t n) { return (size_t)(n); } // a comment'
echo "$cast" | cat include/sdpa.h - >"$bin/cast.c"
must_fail "comments are not allowed" "$CC" -std=c89 -pedantic -Werror -c "$bin/cast.c" -o "$bin/cast.o"
must_fail "old-style cast" "$CXX" -x c++ -Wold-style-cast -Werror -c "$bin/cast.c" -o "$bin/cast.o"
must_fail "useless cast" "$CXX" -x c++ -Wuseless-cast -Werror -c "$bin/cast.c" -o "$bin/cast.o"

for kind in static shared; do
    step "tests and examples, $kind"
    case $kind in
    static) library=$build/libsdpa-attention.a ;;
    shared) library="-L$build -lsdpa-attention -Wl,-rpath,$PWD/$build" ;;
    esac
    for test in status numbers calls pointers environment; do
        # shellcheck disable=SC2086 # options
        $c -O1 tests/$test.c $library -lm -o "$bin/$test-$kind"
        "$bin/$test-$kind"
    done
    # shellcheck disable=SC2086 # options
    {
        $c examples/pattern.c $library -o "$bin/pattern-$kind"
        $c examples/decode.c $library -o "$bin/decode-$kind"
        $CXX -std=c++17 $strict examples/decode.cpp $library -o "$bin/decodepp-$kind"
    }
    "$bin/pattern-$kind" ../examples/data/minilm-l2h1 >"$bin/pattern.txt"
    "$bin/decode-$kind" | grep "token 199 looks at 195.511 and 195.980"
    "$bin/decodepp-$kind" | tr '\n' ' ' | grep "49.873 among all, 99.000 alone refused: wrong shape: values"
done
readelf -d "$build/libsdpa-attention.so" | grep "soname"
exported=$(nm -D --defined-only "$build/libsdpa-attention.so" | awk '{print $3}' | grep -v '^sdpa_' || true)
[ -z "$exported" ] || { echo "exported too:" $exported >&2; exit 1; }

step "the bits of the Rust crate, and the pattern of its example"
"$bin/calls-static" >"$bin/calls.txt"
cargo run --quiet --example calls | diff - "$bin/calls.txt"
SDPA_BREAK_BITS=1 must_fail "1000 calls" sh -c "cargo run --quiet --example calls | diff - $bin/calls.txt"
cargo run --quiet --manifest-path ../Cargo.toml --release --example attention_pattern |
    sed -n '/^Pattern, the/,/^Pattern as/{/^key.query/,/^forest/p;}' >"$bin/rust.txt"
[ "$(wc -l <"$bin/rust.txt")" = 9 ]
diff "$bin/rust.txt" "$bin/pattern.txt"

step "sanitizers"
for test in status numbers calls pointers environment; do
    $c -O1 -fsanitize=address,undefined -fno-sanitize-recover=all tests/$test.c "$build/libsdpa-attention.a" -lm -o "$bin/sanitized"
    "$bin/sanitized" >/dev/null
    echo "$test: clean"
done

step "valgrind"
if has valgrind; then
    # valgrind has no AVX-512, and its cpuid says so: another back end runs.
    valgrind --quiet --error-exitcode=1 --leak-check=full "$bin/numbers-static"
fi

step "a second Rust library in one program, in either order"
rustc --crate-type staticlib -O -C panic=abort tests/second/tiny.rs -o "$bin/libtiny.a"
rustc --crate-type staticlib -O tests/second/hosted.rs -o "$bin/libhosted.a"
for second in tiny hosted; do
    for order in "$build/libsdpa-attention.a $bin/lib$second.a" "$bin/lib$second.a $build/libsdpa-attention.a"; do
        # A library over `core` alone refers to an unwinding handler that does not exist; --gc-sections
        # drops the unused code that refers to it.
        # shellcheck disable=SC2086 # two libraries
        $c -Itests tests/second/program.c $order -Wl,--gc-sections -lpthread -ldl -lm -o "$bin/second"
        "$bin/second" 2>/dev/null
        echo "$second: passed"
    done
done

step "a make that fails leaves nothing half-made"
rm -rf "$bin/half"
must_fail "Error 1" make -s static BUILD="$bin/half" OBJCOPY=false
[ -z "$(ls "$bin/half")" ]

step "no panic is reachable"
tests/gate.sh "$build"
must_fail "panics above are reachable" make -s gate FEATURES=deliberate-panic
if has arm-none-eabi-gcc; then
    make -s gate TARGET=thumbv6m-none-eabi
    make -s gate TARGET=thumbv7em-none-eabihf
    make -s gate TARGET=thumbv7em-none-eabihf FEATURES=keep-first
    must_fail "the probe fails" env FEATURES=keep-first tests/gate.sh build/thumbv7em-none-eabihf thumbv7em-none-eabihf
    must_fail "panics above are reachable" \
        make -s gate TARGET=thumbv7em-none-eabihf FEATURES=deliberate-panic
fi

step "frames are within their limit, and one is not"
tests/frames.sh "$build/frames"
must_fail "above the limit" tests/frames.sh "$build/frames" deliberate-frame

step "an installed tree, by pkg-config and by CMake"
root=$PWD/$bin/root
rm -rf "$root"
make -s install DESTDIR="$root" PREFIX=/opt/sdpa
if grep -r "$root" "$root/opt/sdpa/lib/pkgconfig" "$root/opt/sdpa/lib/cmake"; then
    echo "DESTDIR stands in the files above" >&2
    exit 1
fi
if has pkg-config; then
    export PKG_CONFIG_SYSROOT_DIR="$root" PKG_CONFIG_PATH="$root/opt/sdpa/lib/pkgconfig"
    [ "$(pkg-config --modversion sdpa-attention)" = "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)" ]
    # shellcheck disable=SC2046 # options
    $CC -std=c99 examples/decode.c $(pkg-config --cflags --libs sdpa-attention) -o "$bin/installed"
    LD_LIBRARY_PATH=$root/opt/sdpa/lib "$bin/installed" | tail -1 | grep -x ok
    sed -n "/^cat >main.c/,/^END/{//!p;}" ../docs/c.md >"$bin/recipe.c"
    # shellcheck disable=SC2046 # options
    $CC -std=c99 "$bin/recipe.c" $(pkg-config --cflags --libs sdpa-attention) -o "$bin/recipe"
    LD_LIBRARY_PATH=$root/opt/sdpa/lib "$bin/recipe" | tr '\n' ' ' | grep "ok 0.019 0.657 0.324"
fi
if has cmake; then
    configure() {
        rm -rf "$bin/cmake"
        cmake -S tests/consume -B "$bin/cmake" -DCMAKE_PREFIX_PATH="$root/opt/sdpa" -DCMAKE_C_COMPILER="$CC" "$@"
    }
    # consume KIND OPTION...: builds a program with each target; sdpa::sdpa must be of that kind.
    consume() {
        kind=$1
        shift
        configure "$@" >/dev/null
        cmake --build "$bin/cmake" >/dev/null
        for program in "$bin"/cmake/with_*; do
            "$program" | tail -1 | grep -qx ok
        done
        needs=static
        ! readelf -d "$bin/cmake/with_sdpa" | grep -q "NEEDED.*libsdpa-attention.so.0.1" || needs=shared
        [ $needs = "$kind" ] || { echo "sdpa::sdpa is $needs with $*" >&2; exit 1; }
        echo "CMake: $(cd "$bin/cmake" && echo with_*), sdpa::sdpa is $kind"
    }
    consume static
    consume shared -DBUILD_SHARED_LIBS=ON
    consume static -DBUILD_SHARED_LIBS=ON -DCOMPONENTS=static
    consume shared -DCOMPONENTS=shared
    must_fail "no fast in" configure "-DCOMPONENTS=static;fast"
    if has arm-none-eabi-gcc; then
        cross=thumbv7em-none-eabihf
        make -s install TARGET=$cross DESTDIR="$root"
        [ ! -e "$root/usr/local/lib" ] || { echo "the library of $cross lies where that of this machine does" >&2; exit 1; }
        rm -rf "$bin/cmake"
        cmake -S tests/consume -B "$bin/cmake" -DCMAKE_PREFIX_PATH="$root/usr/local/$cross" \
            -DCMAKE_SYSTEM_NAME=Generic -DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY -DCMAKE_C_COMPILER=arm-none-eabi-gcc \
            -DCMAKE_C_FLAGS="-mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard --specs=nosys.specs" >/dev/null
        cmake --build "$bin/cmake" >/dev/null 2>&1
        echo "CMake, $cross: $(cd "$bin/cmake" && echo with_*)"
        make -s uninstall TARGET=$cross DESTDIR="$root"
    fi
fi
make -s uninstall DESTDIR="$root" PREFIX=/opt/sdpa
[ -z "$(find "$root" -type f -o -type l)" ]
echo "check.sh: all of it passed"
