#!/usr/bin/env bash
# build.sh PRESET TARGET: configures once, builds. WERROR=ON makes warnings errors.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1 target=$2
directory=build
[ "$preset" = release ] || directory=build/$preset
log=$directory/configure.log
mkdir -p "$directory"
options=(-DTRAPLINE_WERROR="${WERROR:-OFF}")
# The executable alone must not need the test packages.
if [ "$target" = trapline ] && ! grep -qs 'TRAPLINE_TESTS:BOOL=ON' "$directory/CMakeCache.txt"; then options+=(-DTRAPLINE_TESTS=OFF); fi
[ "$target" = all ] && options+=(-DTRAPLINE_TESTS=ON)
if ! cmake --preset "$preset" "${options[@]}" >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
cmake --build "$directory" --target "$target" -- --quiet
