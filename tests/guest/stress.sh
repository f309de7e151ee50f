#!/usr/bin/env bash
# stress.sh [ENGINE [SECONDS [CPUS]]]: the litmus programs for a long time in one guest; auto, 600 seconds and 4 vCPUs unless said.
# Fails on a forbidden outcome, a hang, a broken test, or a machine that does not end by itself.
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=${1:-auto} seconds=${2:-600} cpus=${3:-4}
trapline=${TRAPLINE:-build/trapline}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gcc -std=gnu11 -O2 -static -pthread -mcx16 -o "$work/init" tests/guest/litmus/*.c
(cd "$work" && echo init | cpio --quiet -o -H newc --owner=0:0 >initrd)
echo "stress: engine $engine, $cpus vCPUs, $seconds s"
status=0
"$trapline" run --engine "$engine" --cpus "$cpus" --memory 512M --timeout $((seconds * 2 + 300)) --kernel .cache/kernels/cloud-amd64/vmlinuz \
  --initrd "$work/initrd" --append "console=ttyS0 trapline.litmus.seconds=$seconds" </dev/null | tee "$work/out" || status=$?
if [ "$status" != 0 ]; then echo "stress: trapline ended with code $status" >&2; exit 1; fi
# A kernel that complains has seen something that hardware does not do.
if grep -aE 'BUG:|Oops|WARNING:|soft lockup|rcu.*stall|general protection|unable to handle' "$work/out" >&2; then exit 1; fi
grep -q '^LITMUS end: .* 0 forbidden' "$work/out" || { echo "stress: the guest did not come to a clean end" >&2; exit 1; }
echo "stress: passed"
