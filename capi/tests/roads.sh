#!/usr/bin/env bash
# roads.sh [PAGE]: runs the `bash` blocks of docs/c.md, or of another page, from an empty folder on, where `sdpa` is this checkout. The `text` block
# behind each has lines that it must print.
#
# Wants gcc-arm-none-eabi, qemu-system-arm and cmake.
set -euo pipefail
cd "$(dirname "$0")/../.."
export RUSTUP_TOOLCHAIN=${RUSTUP_TOOLCHAIN:-$(rustup show active-toolchain | cut -d " " -f 1)}
page=${1:-docs/c.md}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
awk -v to="$folder" '
    /^```/ && kind { kind = ""; next }
    /^```/ { before = kind_before; kind_before = kind = substr($0, 4) "."; if (kind == "bash.") n++; next }
    kind == "bash." { print > (to "/" n ".bash") }
    kind == "text." && before == "bash." { print > (to "/" n ".text") }
' "$page"
mkdir "$folder/empty"
ln -s "$PWD" "$folder/empty/sdpa"
[ -f "$folder/1.bash" ] || { echo "roads.sh: $page has no bash block"; exit 1; }
for block in "$folder"/*.bash; do
    (cd "$folder/empty" && bash -euo pipefail "$block") >"${block%.bash}.out" 2>&1 || { cat "${block%.bash}.out"; exit 1; }
    while IFS= read -r line; do
        grep -qxF -- "$line" "${block%.bash}.out" || { cat "${block%.bash}.out"; echo "this was not printed: $line"; exit 1; }
    done <"${block%.bash}.text"
    echo "roads.sh: $(basename "$page"), block $(basename "$block" .bash): $(cat "${block%.bash}.text")"
done
