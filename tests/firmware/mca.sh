#!/usr/bin/env bash
# Estimates what the hot loops take on cores that nobody here has: llvm-mca's cycles per turn, beside the number of
# instructions. The estimate knows the scheduling model of the core, and neither its flash nor its caches.
#
#   mca.sh [MARKDOWN]   from the images that `run.sh standalone` has left; with a file, writes its table
#
# A hot loop is the innermost loop of a function with the most multiplications of floats, if these are four. Wants llvm-mca and llvm-objdump of
# LLVM 19 or newer (llvm-19).
set -euo pipefail
page=${1:+$(realpath "$1")}
cd "$(dirname "$0")"
results=${CARGO_TARGET_DIR:-target}/results
mca=$(command -v llvm-mca-19 || command -v llvm-mca || true)
objdump=$(command -v llvm-objdump-19 || command -v llvm-objdump || true)
[ -n "$mca" ] && [ -n "$objdump" ] || { echo "missing: llvm-mca (apt-get install llvm-19)" && exit 2; }
[ "$("$mca" --version | sed -n 's/.*version \([0-9]*\).*/\1/p')" -ge 19 ] || { echo "$mca is older than LLVM 19" && exit 2; }

# The M33 has no model of its own in LLVM, and takes that of the M4.
cores=(cortex-m4 cortex-m7 cortex-m33 cortex-m55 cortex-m85)

# Prints of each function in a disassembly the innermost loop with the most multiplications as FUNCTION, a tab, and the instructions with tabs between.
loops() {
    awk '
        /^[0-9a-f]+ <.*>:$/ { name = $2; sub(/^</, "", name); sub(/(::h[0-9a-f]+)?>:$/, "", name); n = 0; split("", at); next }
        /^ *[0-9a-f]+:/ {
            address = $1
            sub(/:$/, "", address)
            sub(/^ *[0-9a-f]+:[ \t]*/, "")
            sub(/[ \t]*[@;].*/, "")
            gsub(/\t/, " ")
            text[++n] = $0
            at[address] = n
            if (match($0, /^b[a-z]*(\.[nw])?[ \t]+0x[0-9a-f]+/) || match($0, /^cbn?z[ \t]+r[0-9]+, 0x[0-9a-f]+/)) {
                to = $0
                sub(/^[^x]*0x/, "", to)
                sub(/[^0-9a-f].*/, "", to)
                if (to in at) {
                    inner = 1
                    products = 0
                    for (i = at[to]; i < n; i++) {
                        if (text[i] ~ /^(b|bl|bx)(\.[nw])?[ \t]/ || back[name, i]) inner = 0
                        if (text[i] ~ /^v(n?mul|n?ml[as]|fn?m[as])/) products++
                    }
                    back[name, n] = 1
                    if (inner && products >= 4) {
                        line = name
                        for (i = at[to]; i < n; i++) line = line "\t" text[i]
                        if (products > most[name]) { most[name] = products; best[name] = line "\tbne turn" }
                    }
                }
            }
        }
        END { for (name in best) print best[name] }' <<<"$1" | sort
}

table=$(
    printf '| hot loop | instructions |'
    printf ' %s |' "${cores[@]}"
    printf '\n| --- |'
    printf ' --- |%.0s' instructions "${cores[@]}"
    printf '\n'
    for operation in dot softmax scores attention; do
        image=$results/$operation.3.elf
        [ -f "$image" ] || { echo "there is no $image: run.sh standalone" >&2 && exit 2; }
        loops "$("$objdump" -d --demangle --no-show-raw-insn --mcpu=cortex-m4 "$image")" |
            while IFS=$'\t' read -r function code; do
                code=$(tr '\t' '\n' <<<"$code")
                function=${function##*::}
                printf '| `%s`, %s | %d |' "$operation" "${function/%$operation/the function itself}" "$(wc -l <<<"$code")"
                for core in "${cores[@]}"; do
                    printf 'turn:\n%s\n' "$code" | "$mca" -mtriple=thumbv8.1m.main-none-eabihf -mcpu="$core" -iterations=1000 \
                        -skip-unsupported-instructions=lack-sched 2>&1 | awk '
                            /unsupported instruction/ { least = "≥ " }
                            /^Total Cycles/ { printf " %s%.0f |", least, $3 / 1000; found = 1 }
                            END { if (!found) printf " – |" }'
                done
                printf '\n'
            done
    done
)
echo "$table"
[ -n "$page" ] || exit 0
awk -v table="$table" '
    /^<!-- end of the estimates/ { inside = 0 }
    !inside { print }
    /^<!-- estimates:/ { print table; inside = 1 }' "$page" >"$results/page.md"
cat "$results/page.md" >"$page"
