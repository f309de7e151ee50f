#!/usr/bin/env bash
# run.sh [OPTION...]: see bench.py --help.
set -euo pipefail
cd "$(dirname "$0")/.."
exec /usr/bin/python3 bench/bench.py "$@"
