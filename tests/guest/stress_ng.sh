#!/usr/bin/env bash
# stress_ng.sh [ENGINE [SECONDS [CPUS]]]: Debian's stress-ng in a guest: processors, memory, forks, mappings, signals, futexes,
# pipes and files at once; auto, 600 seconds and 4 vCPUs unless said. Fails when a stressor finds something wrong, the guest's kernel
# complains, or the VM's processes, descriptors or threads become more while it runs or outlive it.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/guest-packages.sh
source scripts/guest-packages.sh
engine=${1:-auto} seconds=${2:-600} cpus=${3:-4}
trapline=${TRAPLINE:-build/trapline}
export TRAPLINE_CACHE=$cache
tree=$cache/stress-ng
packages=(stress-ng libapparmor1 libatomic1 libattr1 libbsd0 libmd0 libcrypt1 libegl1 libglvnd0 libgbm1 libdrm2 libwayland-server0
  libffi8 libexpat1 libgles2 libipsec-mb1 libjpeg62-turbo libjudydebian1 libkmod2 liblzma5 libzstd1 libssl3 libsctp1 libxxhash0
  zlib1g libx11-6 libxcb1 libxau6 libxdmcp6)
if [ "$(cat "$tree/.packages" 2>/dev/null || true)" != "${packages[*]}" ]; then
  rm -rf "$tree" "$tree.new"
  for package in "${packages[@]}"; do guest_package_fetch "$package:amd64" "$tree.new"; done
  echo "${packages[*]}" >"$tree.new/.packages"
  mv "$tree.new" "$tree"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What the VM holds on the host: tasks, descriptors.
holdings() {
  local pid tasks=0 files=0
  for pid in $(pgrep -g "$1"); do
    tasks=$((tasks + $(find "/proc/$pid/task" -maxdepth 1 -mindepth 1 2>/dev/null | wc -l)))
    files=$((files + $(find "/proc/$pid/fd" -maxdepth 1 -mindepth 1 2>/dev/null | wc -l)))
  done
  echo "$tasks $files"
}

cat >"$work/run.sh" <<GUEST
export LD_LIBRARY_PATH=$tree/usr/lib/x86_64-linux-gnu:$tree/lib/x86_64-linux-gnu
mkdir -p /tmp/stress && cd /tmp/stress
status=0
$tree/usr/bin/stress-ng --verify --metrics-brief --timeout ${seconds}s --temp-path /tmp/stress --cpu 2 --vm 1 --vm-bytes 64M --fork 1 \\
  --mmap 1 --mmap-bytes 32M --sigq 1 --sigfd 1 --kill 1 --futex 1 --pipe 1 --hdd 1 --hdd-bytes 16M --dentry 1 2>&1 || status=\$?
dmesg 2>/dev/null | grep -E 'BUG:|Oops|WARNING:|soft lockup|rcu.*stall|general protection|unable to handle' && status=99
exit \$status
GUEST
echo "stress-ng: engine $engine, $cpus vCPUs, $seconds s"
setsid "$trapline" exec --engine "$engine" --cpus "$cpus" --memory 1G --timeout $((seconds * 2 + 300)) --share "$tree:readonly" --share "$work:readonly" \
  -- sh "$work/run.sh" >"$work/out" 2>&1 </dev/null &
vm=$!
sleep $((seconds / 6 + 10))
read -r tasks files <<<"$(holdings "$vm")"
sleep $((seconds / 2))
read -r tasks_later files_later <<<"$(holdings "$vm")"
status=0
wait "$vm" || status=$?
cat "$work/out"
echo "stress-ng: tasks $tasks, later $tasks_later; descriptors $files, later $files_later"
if [ "$status" != 0 ]; then echo "stress-ng: ended with code $status" >&2; exit 1; fi
if [ "$tasks" = 0 ] || [ "$tasks_later" -gt "$tasks" ] || [ "$files_later" -gt "$files" ]; then
  echo "stress-ng: the VM holds more than before" >&2
  exit 1
fi
if pgrep -g "$vm" >/dev/null; then echo "stress-ng: processes outlive the VM" >&2; exit 1; fi
grep -q 'successful run completed' "$work/out" || { echo "stress-ng: it did not come to a clean end" >&2; exit 1; }
echo "stress-ng: passed"
