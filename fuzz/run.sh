#!/bin/sh
# Fuzzes each target for SECONDS (20 where left out), from the files of fuzz/regressions/,
# and fails when one fails. Wants a nightly compiler and cargo-fuzz; installs nothing.
#
#   fuzz/run.sh [SECONDS [TARGET…]]
#
# SDPA_BREAK_BITS=1 fuzz/run.sh must fail: one bit of every result is flipped.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-20}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- dot project scores weighted_sum softmax attention capi
for target in "$@"; do
    [ -n "$(ls "fuzz/regressions/$target")" ] || { echo "fuzz/regressions/$target: empty" >&2; exit 1; }
    mkdir -p "fuzz/corpus/$target"
    echo "== $target: $seconds s"
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/regressions/$target" -- \
        -max_total_time="$seconds" -timeout=10 -len_control=0 -max_len=600 ||
        { echo "fuzz/run.sh: $target FAILED" >&2; exit 1; }
done
echo "fuzz/run.sh: no target failed"
