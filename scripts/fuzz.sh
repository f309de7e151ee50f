#!/bin/sh
# Builds the libFuzzer harnesses and runs them:  scripts/fuzz.sh [target|all] [seconds]
# A finding leaves its input in build/fuzz/findings/; run that one again with
#   build/fuzz/tests/fuzz/TARGET build/fuzz/findings/TARGET/FILE
set -eu
cd "$(dirname "$0")/.."
target=${1:-all}
seconds=${2:-600}
build=build/fuzz

if [ ! -e "$build/build.ninja" ]; then cmake --preset fuzz >/dev/null; fi
if [ "$target" = all ]; then
  targets=$(for f in tests/fuzz/*_fuzz.cpp; do basename "$f" .cpp; done)
else
  targets=$target
fi
# shellcheck disable=SC2086  # a list of names
ninja -C "$build" make_seeds $targets

# Kernels that `make guests` has fetched become seeds too.
kernels=$(find .cache/kernels -name 'vmlinuz*' 2>/dev/null || true)
# shellcheck disable=SC2086
"$build/tests/fuzz/make_seeds" "$build/seeds" $kernels

status=0
for t in $targets; do
  mkdir -p "$build/corpus/$t" "$build/seeds/$t" "$build/findings/$t"
  echo "== $t: $seconds s"
  "$build/tests/fuzz/$t" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65544 -print_final_stats=1 \
    -artifact_prefix="$build/findings/$t/" "$build/corpus/$t" "$build/seeds/$t" 2>&1 | tail -n 25 | tee "$build/findings/$t.log"
  if ls "$build/findings/$t/"* >/dev/null 2>&1; then
    status=1
    for f in "$build/findings/$t/"*; do echo "finding: run again with $build/tests/fuzz/$t $f"; done
  fi
done
exit $status
