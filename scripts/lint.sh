#!/usr/bin/env bash
# lint.sh [--all] [FILE...]: clang-format and clang-tidy over our sources; fails on any finding. Files that have not
# changed since they were clean are left out; --all looks at every one.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files 'src/*.cpp' 'src/*.h' 'tests/*.cpp' 'tests/*.h')
scripts/lint_layers.py
scripts/lint_docs.py
clang-format --dry-run --Werror "${files[@]}"
mkdir -p build
if ! cmake --preset release >build/lint.log 2>&1; then # compile_commands.json: nothing of what is built is needed
  cat build/lint.log >&2
  exit 1
fi
scripts/lint_tidy.py build "$@"
