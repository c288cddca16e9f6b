#!/bin/sh
# make demo: builds the library, compiles a C filter against it as any filter is compiled, plays an e-mail through it, and
# shows what the filter changed. Needs cargo, a C compiler and make. Exit status 0: the changes were there.
set -eu

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
# Without links, as the kernel reports paths.
target=$(cd "$target" && pwd -P)
stage=$target/demo
prefix=$stage/prefix
scratch=$(mktemp -d)
filter=

finish() {
	[ -z "$filter" ] || { kill "$filter" && wait "$filter"; } 2>/dev/null || :
	rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

bold= plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
	bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() { printf '  $ %s\n' "$*"; "$@"; }
fail() { printf '\nmake demo: %s\n' "$*" >&2; exit 1; }

step "1. Build the library and milter-probe, and install them into a directory of their own"
rm -rf "$prefix"
# What was said to the make that runs this script is not for this one.
unset MAKEFLAGS MAKELEVEL
show make --silent install "PREFIX=$prefix" >"$scratch/install.log" || fail "see above"
head -n 1 "$scratch/install.log"
probe=$prefix/bin/milter-probe
(cd "$prefix" && find . -type f -o -type l) | sed 's|^\./|    |' | sort

step "2. Compile a C filter, ctests/filters/demo.c, as its author would"
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
if command -v pkg-config >/dev/null; then
	flags=$(pkg-config --cflags --libs milter)
else
	echo "  (no pkg-config here: these are the flags that milter.pc holds)"
	flags="-I$prefix/include -I$prefix/include/libmilter -L$prefix/lib -lmilter"
fi
# Compiler and flags may be several words.
# shellcheck disable=SC2086
show ${CC:-cc} -Wall -o "$stage/demo" ctests/filters/demo.c $flags "-Wl,-rpath,$prefix/lib"

step "3. Start the filter on a Unix socket"
socket=$scratch/demo.sock
printf '  $ %s unix:%s &\n' "$stage/demo" "$socket"
env -u LD_LIBRARY_PATH "$stage/demo" "unix:$socket" &
filter=$!
tries=0
until [ -S "$socket" ]; do
	kill -0 "$filter" 2>/dev/null || fail "the filter did not start"
	[ $((tries += 1)) -le 100 ] || fail "the filter made no socket within ten seconds"
	sleep 0.1
done
if [ -r "/proc/$filter/maps" ]; then
	loaded=$(sed -n 's|.* \(/.*/libmilter\.so[^ ]*\)$|\1|p' "/proc/$filter/maps" | sort -u)
	printf '    runs on %s\n' "$loaded"
	case $loaded in "$prefix"/*) ;; *) fail "the filter runs on another libmilter" ;; esac
fi

step "4. Play an e-mail through it, as Postfix would"
mail=ctests/mail/plain.eml
show "$probe" send --connect "unix:$socket" "$mail" || fail "the filter did not accept the message"

step "5. What the filter changed"
"$probe" send --connect "unix:$socket" --output "$scratch/after.eml" "$mail" >/dev/null
diff -u --label before "$mail" --label after "$scratch/after.eml" | sed 's/^/    /'
for change in '^Subject: \[demo\] Fog signal out of order$' '^X-Demo-Filter: ' '^Checked by a filter'; do
	grep -q "$change" "$scratch/after.eml" || fail "the result lacks $change"
done

step "6. And a recipient that it refuses"
status=0
show "$probe" send --connect "unix:$socket" --rcpt nobody@harbour.example "$mail" || status=$?
[ "$status" -eq 1 ] || fail "the recipient was not refused (exit status $status)"

step "7. Stop it"
kill "$filter"
wait "$filter" && filter= || fail "the filter ended badly"
printf '    the filter ended by itself, the library works: %s\n' "$prefix/lib"
