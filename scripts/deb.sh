#!/usr/bin/env bash
# deb.sh: makes the Debian package of build/trapline and checks it: what it depends on, what it holds, who owns it.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
cmake --build "$build" --target completions -- --quiet
rm -f "$build"/trapline_*.deb
(cd "$build" && cpack -G DEB >cpack.log 2>&1) || { cat "$build/cpack.log" >&2; exit 1; }
package=$(echo "$build"/trapline_*_"$(dpkg --print-architecture)".deb)
scripts/deb_check.py "$package" "$build/trapline"
echo "$package"
