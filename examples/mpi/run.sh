#!/usr/bin/env bash
# Runs attention.c under MPICH and Open MPI, on 1, 2, 3, 5 and 7 ranks: all must give the digests of one call.
#
#     examples/mpi/run.sh [--break state|key|die MPI]
#
# Wants Debian's mpich, libmpich-dev, openmpi-bin and libopenmpi-dev, pkg-config, and what docs/c.md builds the library
# with.
# --break: the last of three ranks changes a bit, or dies; the run must fail.
set -euo pipefail
cd "$(dirname "$0")"
mode=whole mpis=(mpich openmpi) counts=(1 2 3 5 7)
if [ "${1:-}" = --break ]; then
    mode=$2 mpis=("$3") counts=(3)
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
make -s -C ../../capi >/dev/null
make -s -C ../../capi install PREFIX="$folder" >/dev/null
export PKG_CONFIG_PATH=$folder/lib/pkgconfig
# Open MPI refuses root, and more ranks than cores. MPICH does not.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

digests=
for mpi in "${mpis[@]}"; do
    # shellcheck disable=SC2046
    "mpicc.$mpi" -std=c99 -O2 -Wall -Wextra -Wpedantic -Werror attention.c \
        $(pkg-config --cflags --libs sdpa-attention) -Wl,-rpath,"$folder/lib" -o "$folder/$mpi"
    for ranks in "${counts[@]}"; do
        status=0
        timeout 100 "mpirun.$mpi" -n "$ranks" "$folder/$mpi" "$ranks" "$mode" >"$folder/said" 2>"$folder/errors" || status=$?
        # A job may end with status 0 though a rank is gone: the last line of rank 0 says that it was whole.
        if [ $status != 0 ] || [ "$(tail -n 1 "$folder/said")" != "ok $ranks ranks" ]; then
            cat "$folder/said" "$folder/errors"
            [ $status = 124 ] && echo "$mpi, $ranks ranks: hangs" && exit 1
            echo "$mpi, $ranks ranks: ended with status $status"
            exit 1
        fi
        here=$(awk '$1 == "decoding" || $1 == "prefill"' "$folder/said" | paste -sd' ')
        echo "$mpi, $ranks ranks: $here"
        if [ "${digests:=$here}" != "$here" ]; then
            echo "other digests than before"
            exit 1
        fi
    done
done
