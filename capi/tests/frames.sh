#!/bin/sh
# frames.sh BUILD [FEATURES]: limits the stack of the C functions on a Cortex-M4F at opt-level 3 and s: the
# largest sum of frames along calls within this crate's object. The stack of the kernels, which comes on top,
# is in docs/firmware.md.
set -eu
cd "$(dirname "$0")/.."
limit=512
build=$PWD/$1
features=${2:-}
target=thumbv7em-none-eabihf
tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
for tool in llvm-readobj llvm-objdump; do
    [ -x "$tools/$tool" ] || { echo "frames.sh: $tool is missing: rustup component add llvm-tools" >&2; exit 2; }
done
functions=$(sed -n 's/^\(sdpa_status\|sdpa_backend_t\|size_t\|const char\) [*]*\(sdpa_[a-z_]*\).*/\2/p' include/sdpa.h |
    grep -v plain) # in an object of its own: tests/firmware limits its whole stack
mkdir -p "$build"
for level in 3 s; do
    object=$build/$level.o
    profile=capi
    [ $level = 3 ] || profile=capi-size
    # The flag is unstable in the stable compiler, which builds the library.
    RUSTC_BOOTSTRAP=1 cargo rustc --quiet --lib --profile $profile \
        --features "$features" --target $target -- -Z emit-stack-sizes
    library=${CARGO_TARGET_DIR:-../target}/$target/$profile/libsdpa_capi.rlib
    ar p "$library" "$(ar t "$library" | grep '\.o$')" >"$object"
    "$tools/llvm-readobj" --stack-sizes "$object" >"$object.sizes"
    "$tools/llvm-objdump" --disassemble --reloc --no-show-raw-insn "$object" >"$object.calls"
    awk -v limit=$limit -v level=$level -v functions="$functions" '
        function hex(text,    i, n) {
            for (i = 3; i <= length(text); i++) n = 16 * n + index("0123456789ABCDEF", substr(text, i, 1)) - 1
            return n
        }
        # A recursive function is counted once.
        function deepest(name,    i, n, callees, depth, most) {
            if (!(name in frame) || name in seen) return seen[name] + 0
            seen[name] = frame[name]
            n = split(calls[name], callees)
            for (i = 1; i <= n; i++) {
                depth = deepest(callees[i])
                if (depth > most) most = depth
            }
            return seen[name] = frame[name] + most
        }
        /Functions: \[/ { gsub(/.*\[|\].*|,/, ""); names = $0 }
        /Size: 0x/ { n = split(names, all); for (i = 1; i <= n; i++) frame[all[i]] = hex($2) }
        /^[0-9a-f]+ <.*>:$/ { gsub(/[<>:]/, ""); name = $2 }
        /R_ARM_THM_(CALL|JUMP24)/ { calls[name] = calls[name] " " $NF }
        END {
            n = split(functions, all)
            for (i = 1; i <= n; i++) {
                depth = deepest(all[i])
                if (depth == 0) { print all[i] ": no frame is known"; wrong = 1 }
                if (depth > most) { most = depth; worst = all[i] }
                if (depth > limit) { print all[i] ": " depth " bytes of stack, above the limit of " limit; wrong = 1 }
            }
            if (!wrong) print "opt-level " level ": at most " most " of " limit " bytes of stack, in " worst
            exit wrong
        }' "$object.sizes" "$object.calls"
done
