#!/usr/bin/env bash
# wide 1.7.1: `round` and `round_int` of one vector type round ties differently.
#
# `f32x4::round` and `f64x2::round` round ties away from zero, as `f32::round` does; `f32x4::round_int` rounds
# them to even. So `x.round()` and `x.round_int()` differ by 1 at 0.5, 2.5 and -2.5. Seen on x86-64, built for
# SSE2 and for x86-64-v3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cargo init --quiet --vcs none --name rounds
cargo add --quiet wide@=1.7.1
cat >src/main.rs <<'END'
use wide::{f32x4, f64x2};

fn main() {
    for x in [0.5f32, 1.5, 2.5, -2.5] {
        let [float, int] = [f32x4::splat(x).round().to_array()[0], f32x4::splat(x).round_int().to_array()[0] as f32];
        println!("{x}: round {float}, of f64 {}, round_int {int}", f64x2::splat(x.into()).round().to_array()[0]);
    }
}
END
cargo run --quiet | tee seen
diff seen - <<'END'
0.5: round 1, of f64 1, round_int 0
1.5: round 2, of f64 2, round_int 2
2.5: round 3, of f64 3, round_int 2
-2.5: round -3, of f64 -3, round_int -2
END
