#!/usr/bin/env bash
# Counts instructions and rewrites the table of icount.rs; takes no arguments.
# Review the difference before you commit it: a higher count needs a justification.
set -euo pipefail
cd "$(dirname "$0")/.."

# Counts above the old limits are accepted here; panics are not.
output=$(cargo bench --bench icount 2>&1) || true
table=$(awk '
    /^icount::kernels::/ {
        split($1, path, "::"); kernel = path[3]
        split($2, bench, /[_:]/); backend = bench[1]
        if (!(kernel in rows)) kernels[++n] = kernel
    }
    /^  Instructions:/ {
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

awk -v table="$table" '
    /^    \/\/ end$/ { inside = 0 }
    !inside
    /^    \/\/ counted$/ { inside = 1; print table }
' benches/icount.rs >benches/icount.rs.new
mv benches/icount.rs.new benches/icount.rs
echo "$table"
