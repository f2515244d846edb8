#!/usr/bin/env bash
# Links an image that calls every public function, and fails if it contains a panic: for one target (the
# first argument), at opt-level 3 and s. Further arguments are passed to cargo.
set -euo pipefail
cd "$(dirname "$0")"
target=$1
shift
nm=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/llvm-nm
command -v "$nm" >/dev/null || { echo "llvm-nm is missing: rustup component add llvm-tools"; exit 2; }
rustup target list --installed 2>/dev/null | grep -qx "$target" ||
    { echo "$target is missing: rustup target add $target"; exit 2; }
for level in 3 s; do
    CARGO_PROFILE_RELEASE_OPT_LEVEL=$level \
        RUSTFLAGS="-C link-arg=--entry=probe -C link-arg=--gc-sections" \
        cargo build --quiet --release --target "$target" "$@"
    image=${CARGO_TARGET_DIR:-target}/$target/release/probe
    symbols=$("$nm" --demangle "$image")
    if ! grep -q 'sdpa::dispatch' <<<"$symbols"; then
        echo "$target, opt-level $level: the image does not call the library"
        exit 2
    fi
    if grep -i panic <<<"$symbols"; then
        echo "$target, opt-level $level: the panics above are reachable"
        exit 1
    fi
    echo "$target, opt-level $level: no panic in $(grep -c . <<<"$symbols") symbols"
done
