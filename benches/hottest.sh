#!/usr/bin/env bash
# The hottest loop of a function: the instructions that callgrind saw most often, as llvm-mca reads them.
#
#   benches/hottest.sh PROFILE PROGRAM FUNCTION
#
# PROFILE comes from callgrind with --dump-instr=yes --compress-strings=no --compress-pos=no. Wants objdump of binutils.
set -euo pipefail
profile=$1 program=$2 function=$3

# Each function of this name: one for every element type, for example.
listing=$(nm --demangle --print-size "$program" |
    awk -v name="$function" '{ line = $0; sub(/^[^ ]+ [^ ]+ [^ ]+ /, "", line) } line == name { print $1, $2 }' |
    while read -r first size; do
        objdump --demangle --disassemble --no-show-raw-insn \
            --start-address="0x$first" --stop-address=$((0x$first + 0x$size)) "$program"
    done)
# Instructions in a row with at least 99 in 100 of the greatest count.
awk -v function_name="$function" '
    FNR == NR && /^fn=/ { inside = substr($0, 4) == function_name; next }
    FNR == NR && /^calls=/ { skip = 1; next } # the next line is what the callee costs
    FNR == NR && /^0x/ {
        if (inside && !skip) { count[substr($1, 3)] += $NF; if (count[substr($1, 3)] > most) most = count[substr($1, 3)] }
        skip = 0
        next
    }
    FNR == NR { next }
    $1 ~ /^[0-9a-f]+:$/ {
        at = substr($1, 1, length($1) - 1)
        if (count[at] < 0.99 * most) { block = ""; length_of = 0; next }
        sub(/^[^\t]*\t/, "")
        sub(/[ \t]*(#.*|<[^>]*>)$/, "")
        if ($1 ~ /^j/) $0 = $1 " 0x" $2
        block = block "\t" $0 "\n"
        if (++length_of > longest) { longest = length_of; hottest = block }
    }
    END {
        if (!most || !longest) exit 1
        printf "# %s: %d instructions, %d times\n%s", function_name, longest, most, hottest
    }
' "$profile" <(cat <<<"$listing") || { echo "hottest.sh: $profile has no instructions of $function" >&2; exit 1; }
