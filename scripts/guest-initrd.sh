#!/usr/bin/env bash
# guest-initrd.sh ARCH...: an initrd with a static busybox and scripts/guest-init as /init, into the cache. ARCH: amd64 or i386.
set -euo pipefail
source "$(dirname "$0")/guest-packages.sh"
scripts=$(cd "$(dirname "$0")" && pwd)

for arch in "$@"; do
  case $arch in amd64 | i386) ;; *) echo "guest-initrd: unknown architecture '$arch': amd64 or i386" >&2; exit 2 ;; esac
  result=$cache/initrd-$arch
  [ -s "$result" ] && [ "$result" -nt "$scripts/guest-init" ] && continue
  mkdir -p "$cache"
  if [ ! -x "$cache/busybox-$arch/bin/busybox" ]; then
    echo "guest-initrd: fetching busybox-static ($arch)"
    guest_package_fetch "busybox-static:$arch" "$cache/busybox-$arch"
  fi
  root=$(mktemp -d "$cache/root.XXXXXX")
  mkdir -p "$root"/{bin,dev,proc,sys,tmp,root,etc}
  cp "$cache/busybox-$arch/bin/busybox" "$root/bin/busybox"
  install -m 755 "$scripts/guest-init" "$root/init"
  # Fixed times and owners: the same input makes the same initrd.
  find "$root" -exec touch -h -d @0 {} +
  (cd "$root" && find . -print0 | LC_ALL=C sort -z | cpio --null --quiet -o -H newc --owner=0:0 --reproducible) | gzip -n -1 >"$result.new"
  rm -rf "$root"
  mv "$result.new" "$result"
done
