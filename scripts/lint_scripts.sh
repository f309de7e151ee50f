#!/usr/bin/env bash
# lint_scripts.sh: shellcheck and pyflakes over all scripts of ours; fails on any warning.
set -euo pipefail
cd "$(dirname "$0")/.."
folders=(.ci bench examples findings packaging scripts tests)
mapfile -t shell < <(grep -rlIE '^#!.*\b(ba)?sh\b' "${folders[@]}")
shellcheck --external-sources --severity=warning "${shell[@]}"
mapfile -t python < <(find "${folders[@]}" -name '*.py')
pyflakes3 "${python[@]}"
