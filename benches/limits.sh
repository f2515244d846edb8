#!/usr/bin/env bash
# Counts instructions and rewrites the table of icount.rs; takes no arguments.
# Review the difference before you commit it: a higher count needs a justification.
set -euo pipefail
cd "$(dirname "$0")/.."

# Counts above the old limits are accepted here; panics are not.
output=$(cargo bench --bench icount 2>&1) || true
table=$(awk '
    { is_kernel = is_kernel && !/^icount::/ }
    /^icount::kernels::/ {
        is_kernel = 1
        split($1, path, "::"); kernel = path[3]
        split($2, bench, /[_:]/); backend = bench[1]
        if (!(kernel in rows)) kernels[++n] = kernel
    }
    is_kernel && /^  Instructions:/ {
        split($2, counts, "|"); seen++
        if (last[kernel] != backend) rows[kernel] = rows[kernel] " | " backend
        last[kernel] = backend
        rows[kernel] = rows[kernel] " " counts[1]
    }
    END {
        if (!n || seen != 12 * n) exit 1
        for (i = 1; i <= n; i++)
            printf "    %-16s %-16s%s;\n", toupper(kernels[i]), kernels[i], rows[kernels[i]]
    }
' <<<"$output") || { echo "$output"; echo "not every benchmark was counted"; exit 1; }

# The calls in C: name and count.
in_c=$(awk '
    /^icount::/ { name = ""; if (sub(/^icount::in_c::c /, "")) { split($0, parts, ":"); name = parts[1] } }
    name && /^  Instructions:/ { split($2, counts, "|"); print name, counts[1] }
' <<<"$output")
[ -n "$in_c" ] || { echo "$output"; echo "no call in C was counted"; exit 1; }

awk -v table="$table" -v in_c="$in_c" '
    BEGIN { n = split(in_c, words); for (i = 1; i < n; i += 2) count[words[i]] = words[i + 1] }
    /^    \/\/ end$/ { inside = 0 }
    $1 in count && /" [0-9]+;$/ { sub(/[0-9]+;$/, count[$1] ";") }
    !inside
    /^    \/\/ counted$/ { inside = 1; print table }
' benches/icount.rs >benches/icount.rs.new
mv benches/icount.rs.new benches/icount.rs
echo "$table"
