#!/usr/bin/env bash
# rustc 1.95.0 (LLVM 22.1.2): `_mm256_shuffle_ps::<0x44>` is not compiled to `vshufps`.
#
# An intrinsic named after an instruction gives another one: for x86-64 with AVX2 it becomes `vunpcklpd`, which has one
# port on Intel cores since Ice Lake where `vshufps` has two. For `-C target-cpu=icelake-server` LLVM knows, and takes
# `vpunpcklqdq`, which has two; but a function with `#[target_feature(enable = "avx2")]`, as is chosen at run time, is
# tuned for no core. A transposition by such shuffles is bound by the one port; with `<0x88>` and `<0xDD>` alone, which
# have no other form, it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
rustup toolchain install 1.95.0 --profile minimal --no-self-update >/dev/null 2>&1
cat >shuffle.rs <<'RUST'
#![crate_type = "lib"]
use std::arch::x86_64::{__m256, _mm256_shuffle_ps};

#[target_feature(enable = "avx2")]
#[unsafe(no_mangle)]
pub fn pairs(a: __m256, b: __m256) -> __m256 {
    _mm256_shuffle_ps::<0x44>(a, b)
}

#[target_feature(enable = "avx2")]
#[unsafe(no_mangle)]
pub fn even(a: __m256, b: __m256) -> __m256 {
    _mm256_shuffle_ps::<0x88>(a, b)
}
RUST
for cpu in x86-64 haswell znver4 icelake-server; do
    rustc +1.95.0 --edition 2024 -O --target x86_64-unknown-linux-gnu -C target-cpu=$cpu --emit asm shuffle.rs -o shuffle.s
    awk -v cpu=$cpu '/^(pairs|even):/ { name = $1 } $1 ~ /^vp?(shuf|unpck)/ { print cpu, name, $1 }' shuffle.s
done | sort | tee seen
diff seen - <<'SEEN'
haswell even: vshufps
haswell pairs: vunpcklpd
icelake-server even: vshufps
icelake-server pairs: vpunpcklqdq
x86-64 even: vshufps
x86-64 pairs: vunpcklpd
znver4 even: vshufps
znver4 pairs: vunpcklpd
SEEN
