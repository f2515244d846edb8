#!/bin/sh
# Fuzzes each target for SECONDS (default 20), starting from the files of fuzz/regressions/, and fails if a
# target fails. Needs the nightly compiler of .ci/nightly and cargo-fuzz; installs nothing.
#
#   fuzz/run.sh [SECONDS [TARGET…]]
#
# SDPA_BREAK_BITS=1 fuzz/run.sh must fail: one bit of every result is flipped.
set -eu
cd "$(dirname "$0")/.."
nightly=$(cat .ci/nightly)
export nightly
seconds=${1:-20}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- dot project scores weighted_sum softmax attention rotate capi
for target in "$@"; do
    [ -n "$(ls "fuzz/regressions/$target")" ] || { echo "fuzz/regressions/$target: empty" >&2; exit 1; }
    mkdir -p "fuzz/corpus/$target"
done
cargo "+$nightly" fuzz build
# One target per core. Prints the last line of a target's log, or all of it if the target fails.
printf '%s\n' "$@" | SECONDS_EACH=$seconds xargs -P "$(nproc)" -I TARGET sh -c '
    log=$(mktemp)
    if cargo "+$nightly" fuzz run TARGET fuzz/corpus/TARGET fuzz/regressions/TARGET -- \
        -max_total_time="$SECONDS_EACH" -timeout=10 -len_control=0 -max_len=600 >"$log" 2>&1
    then
        echo "TARGET: $(tail -n 1 "$log")"
        rm "$log"
    else
        cat "$log"
        rm "$log"
        echo "fuzz/run.sh: TARGET FAILED"
        exit 255 # xargs then starts no other target
    fi'
echo "fuzz/run.sh: no target failed"
