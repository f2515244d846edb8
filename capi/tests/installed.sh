#!/bin/sh
# installed.sh: runs the commands of docs/c.md, and installs the library under /usr beside Debian's
# libsdpa-dev. It installs on this machine and uninstalls again: run it on a CI machine.
set -eu
cd "$(dirname "$0")/.."
capi=$PWD
work=$(mktemp -d)
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
clean_up() {
    rm -rf "$work"
    as_root make -s uninstall
    as_root make -s uninstall PREFIX=/usr
    as_root ldconfig
}
trap clean_up EXIT
fail() {
    echo "installed.sh: $*" >&2
    exit 1
}
dpkg --status libsdpa-dev >/dev/null 2>&1 || fail "missing: apt-get install --no-install-recommends libsdpa-dev"

# All files where libraries are installed, without shared folders.
list() {
    find /usr/local /usr/lib /usr/include \( -type d -print \) -o -printf '%p %s %T@\n' |
        grep -v '/\(cmake\|pkgconfig\)$' | sort
}
list >"$work/before"
check_no_trace() {
    list >"$work/after"
    diff "$work/before" "$work/after" || fail "uninstalled, $1 has left the traces above"
}
check_debian() {
    if dpkg --verify libsdpa-dev | grep .; then fail "Debian's files above have changed"; fi
}

# The block of commands number $1 of docs/c.md, in a folder that holds what a checkout does. Where there is no
# sudo, this is root.
printf '#!/bin/sh\nexec "$@"\n' >"$work/sudo"
chmod +x "$work/sudo"
export RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}"
mkdir "$work/checkout" "$work/home"
ln -s "$capi" "$work/checkout/capi"
recipe() {
    awk -v want="$1" '/^```/ { inside = /^```sh/ && ++n == want; next } inside' ../docs/c.md >"$work/commands"
    [ -s "$work/commands" ] || fail "docs/c.md has no commands number $1"
    (cd "$work/checkout" && rm -f main && PATH=$PATH:$work HOME=$work/home sh -e "$work/commands") >"$work/said"
    tail -n 2 "$work/said" | tr '\n' ' ' | grep "^ok 0.019 0.657 0.324 $" || fail "the commands $1 of docs/c.md: $(cat "$work/said")"
}

echo "== what is left behind is seen, and a file of Debian's that has changed"
as_root touch /usr/local/lib/libsdpa-attention.so.old
if (check_no_trace "a test") 2>/dev/null; then fail "no trace is seen"; fi
as_root rm /usr/local/lib/libsdpa-attention.so.old
as_root mv /usr/lib/libsdpa.a /usr/lib/libsdpa.a.away
if (check_debian) 2>/dev/null; then fail "no change is seen"; fi
as_root mv /usr/lib/libsdpa.a.away /usr/lib/libsdpa.a
check_debian

echo "== the commands of docs/c.md, for the whole machine"
recipe 1
ldd "$work/checkout/main" | grep "/usr/local/lib/libsdpa-attention.so.0.1"
as_root make -s uninstall
check_no_trace PREFIX=/usr/local

echo "== the commands of docs/c.md, for one user"
recipe 2
ldd "$work/checkout/main" | grep "$work/home/sdpa/lib/libsdpa-attention.so.0.1"
make -s uninstall PREFIX="$work/home/sdpa"
[ -z "$(find "$work/home" ! -type d)" ] || fail "uninstalled, it has left: $(find "$work/home" ! -type d)"

echo "== under /usr, beside Debian's libsdpa-dev, and both in one program"
as_root make -s install PREFIX=/usr
check_debian
libraries=$(printf 'include /usr/share/sdpa/make.inc\nall: ; @echo $(SDPA_LIBS)\n' | make -s -f -)
for link in -lsdpa-attention /usr/lib/libsdpa-attention.a; do
    # shellcheck disable=SC2086 # options
    c++ -std=c++17 tests/second/solver.cpp $link -lsdpa ${libraries#*libsdpa.a} -o "$work/both"
    "$work/both" | grep "^x 2.000, dot 14, ok"
done
as_root make -s uninstall PREFIX=/usr
check_debian
check_no_trace PREFIX=/usr
echo "installed.sh: all of it passed"
