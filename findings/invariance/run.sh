#!/usr/bin/env bash
# Prints the table "Equal bits of" of docs/numerics.md: this library beside four others, of pinned versions.
#
#     findings/invariance/run.sh [FOLDER]      FOLDER keeps the packages (6.3 GB) for the next time
#
# Wants an x86-64 with AVX-512, python3, cargo, make and qemu-x86_64, which runs ONNX Runtime without AVX-512.
# Fails if a library gives a wrong answer, or if sdpa gives other bits than it promises.
set -euo pipefail
cd "$(dirname "$0")"
grep -qw avx512bw /proc/cpuinfo || { echo "this needs an x86-64 with AVX-512" && exit 2; }
if [ $# = 1 ]; then
    folder=$(mkdir -p "$1" && cd "$1" && pwd)
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
packages() {
    [ -x "$folder/$1/bin/python" ] || python3 -m venv "$folder/$1"
    "$folder/$1/bin/pip" install --quiet --no-cache-dir "${@:2}"
}
packages torch torch==2.15.0 numpy==2.4.6
packages small onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
make -s -C ../../capi
export SDPA_LIBRARY=$PWD/../../capi/build/libsdpa-attention.so
small=$folder/small/bin/python
grep -m1 "model name" /proc/cpuinfo
"$small" table.py sdpa="$small" torch="$folder/torch/bin/python" onnxruntime="$small" openvino="$small" jax="$small"
