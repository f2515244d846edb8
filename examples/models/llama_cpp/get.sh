#!/usr/bin/env bash
# Brings llama.cpp v0.4.0, as node-llama-cpp has built it, and the decoder's weights as a GGUF file of floats into a folder
# (default: target/llama.cpp beside the weights), for `bench --llama-cpp`. get.sh above has brought the weights.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/../target/llama.cpp}
weights=${SDPA_MODELS:-$here/../target/weights}
npm install --silent --prefix "$folder" --no-save --ignore-scripts --omit=optional \
    node-llama-cpp@3.21.1 @node-llama-cpp/linux-x64@3.21.1
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gguf==0.19.0
"$folder/venv/bin/python" "$here/floats.py" "$weights"/smollm2/*.gguf "$folder/smollm2.gguf"
