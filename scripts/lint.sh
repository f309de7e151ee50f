#!/usr/bin/env bash
# lint.sh [--all] [FILE...]: all that looks at our sources without building them; fails on any finding. clang-tidy leaves
# out files that have not changed since they were clean; --all looks at every one. All but clang-tidy is in `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/lint_layers.py
scripts/lint_docs.py
scripts/lint_format.sh
scripts/lint_scripts.sh
mkdir -p build
if ! cmake --preset release >build/lint.log 2>&1; then # compile_commands.json: nothing of what is built is needed
  cat build/lint.log >&2
  exit 1
fi
scripts/lint_tidy.py build "$@"
