#!/usr/bin/env bash
# Holds the counts of icount.rs against limits here, and against the counts in a copy of the tree that lies elsewhere:
# folder, target folder and CARGO_HOME have names of other lengths there. One command, without arguments.
set -euo pipefail
cd "$(dirname "$0")/.."

elsewhere=target/elsewhere/in-a-folder-whose-name-has-another-length
rm -rf target/elsewhere/*/tree
mkdir -p $elsewhere/{tree,cargo-home}
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --preserve=timestamps --parents -t $elsewhere/tree
cargo fetch --quiet --locked # one at a time
ln -sfn "$(realpath "${CARGO_HOME:-$HOME/.cargo}")/registry" $elsewhere/cargo-home/registry

# The name of each call and its instructions.
counts() {
    awk '/^icount::/ { print $1, $2 } /^  Instructions:/ { split($2, counts, "|"); print counts[1] }' "$1"
}

(
    cd $elsewhere/tree
    export CARGO_HOME=$PWD/../cargo-home CARGO_TARGET_DIR=$PWD/../the-target-folder
    cargo bench --bench icount
) >$elsewhere/there 2>&1 &
there=$!
status=0
cargo bench --bench icount 2>&1 | tee $elsewhere/here || status=1
wait $there || tail $elsewhere/there
counts $elsewhere/here >$elsewhere/here.counts
counts $elsewhere/there >$elsewhere/there.counts
if [ ! -s $elsewhere/here.counts ] || ! diff $elsewhere/{here,there}.counts; then
    echo "the counts here (<) and elsewhere (>) differ"
    exit 1
fi
exit $status
