#!/usr/bin/env bash
# wide 1.7.1: the sine of a large f32 depends on the target features, and is 0 from 10⁸ on.
#
# The angle is reduced by three products. Built for x86-64 (no FMA) sin 10⁶ is -0.3791, built for x86-64-v3 it
# is -0.3500, and the truth is -0.3500; at 10⁷ the first is 0.1367 for 0.4205. At 10⁸ both give 0 for 0.9316.
# At 10⁴ all agree.
set -euo pipefail
[ "$(uname -m)" = x86_64 ] && grep -qw fma /proc/cpuinfo || { echo "this needs an x86-64 with FMA" && exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cargo init --quiet --vcs none --name sines
cargo add --quiet wide@=1.7.1
cat >src/main.rs <<'END'
use wide::f32x4;

fn main() {
    for x in [1e4f32, 1e6, 1e7, 1e8] {
        println!("sin {x:e}: {:.4} for {:.4}", f32x4::splat(x).sin().to_array()[0], f64::from(x).sin());
    }
}
END
{
    RUSTFLAGS="-C target-cpu=x86-64" cargo run --quiet
    RUSTFLAGS="-C target-cpu=x86-64-v3" cargo run --quiet
} | tee seen
diff seen - <<'END'
sin 1e4: -0.3056 for -0.3056
sin 1e6: -0.3791 for -0.3500
sin 1e7: 0.1367 for 0.4205
sin 1e8: 0.0000 for 0.9316
sin 1e4: -0.3056 for -0.3056
sin 1e6: -0.3500 for -0.3500
sin 1e7: 0.4205 for 0.4205
sin 1e8: 0.0000 for 0.9316
END
