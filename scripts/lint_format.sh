#!/usr/bin/env bash
# lint_format.sh: is all C++ of ours as .clang-format says?
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(find src tests -name '*.cpp' -o -name '*.h')
clang-format --dry-run --Werror "${files[@]}"
