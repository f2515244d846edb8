#!/usr/bin/env bash
# wide 1.7.1: the logarithm of a subnormal f32 is -inf.
#
# `f32x4::ln` gives -inf for every positive float below 2⁻¹²⁶, as for 0; `f32::ln` gives -87.5 at 1e-38 and -92.1 at
# 1e-40. `f32x4::exp` gives subnormals, so that ln (exp x) is -inf for x = -88.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cargo init --quiet --vcs none --name logarithms
cargo add --quiet wide@=1.7.1
cat >src/main.rs <<'END'
use wide::f32x4;

fn main() {
    for x in [1.2e-38f32, 1e-38, 1e-40] {
        println!("ln {x:e}: {:.2} for {:.2}", f32x4::splat(x).ln().to_array()[0], x.ln());
    }
    println!("ln exp -88: {}", f32x4::splat(-88.0).exp().ln().to_array()[0]);
}
END
cargo run --quiet | tee seen
diff seen - <<'END'
ln 1.2e-38: -87.32 for -87.32
ln 1e-38: -inf for -87.50
ln 1e-40: -inf for -92.10
ln exp -88: -inf
END
