#!/usr/bin/env bash
# run.sh KERNEL INITRD APPEND [OPTION...]: boots it. With a terminal: an interactive shell. Without: a short script, then power-off.
set -euo pipefail
cd "$(dirname "$0")/.."
kernel=$1 initrd=$2 append=$3
shift 3
if [ -t 0 ] && [ -t 1 ]; then
  exec build/trapline run --kernel "$kernel" --initrd "$initrd" --append "$append quiet" "$@"
else
  exec build/trapline run --kernel "$kernel" --initrd "$initrd" --append "$append trapline.run=batch" --timeout 300 "$@" </dev/null
fi
