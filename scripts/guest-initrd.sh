#!/usr/bin/env bash
# guest-initrd.sh ARCH...: an initrd with a static busybox and scripts/guest-init as /init, into the cache. ARCH: amd64 or i386.
# And for each kernel in the cache that has modules: kernels/FLAVOUR/initrd, the same with them.
set -euo pipefail
# shellcheck source=scripts/guest-packages.sh
source "$(dirname "$0")/guest-packages.sh"
scripts=$(cd "$(dirname "$0")" && pwd)

# The archive of a folder. Fixed times and owners: the same input makes the same initrd.
archive() {
  find "$1" -exec touch -h -d @0 {} +
  (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --null --quiet -o -H newc --owner=0:0 --reproducible) | gzip -n -1
}

# Linux unpacks one archive after the other.
with_modules() {
  local arch=$1 flavour kernel
  for kernel in "$cache"/kernels/*; do
    flavour=$(basename "$kernel")
    case $flavour in *amd64) [ "$arch" = amd64 ] || continue ;; *) [ "$arch" = i386 ] || continue ;; esac
    [ -d "$kernel/modules" ] || continue
    [ -s "$kernel/initrd" ] && [ "$kernel/initrd" -nt "$cache/initrd-$arch" ] && [ "$kernel/initrd" -nt "$kernel/modules.list" ] && continue
    { cat "$cache/initrd-$arch"; archive "$kernel/modules"; } >"$kernel/initrd.new"
    mv "$kernel/initrd.new" "$kernel/initrd"
  done
}

make_initrd() {
  local arch=$1
  local result=$cache/initrd-$arch root
  [ -s "$result" ] && [ "$result" -nt "$scripts/guest-init" ] && return
  mkdir -p "$cache"
  if [ ! -x "$cache/busybox-$arch/bin/busybox" ]; then
    echo "guest-initrd: fetching busybox-static ($arch)"
    guest_package_fetch "busybox-static:$arch" "$cache/busybox-$arch"
  fi
  root=$(mktemp -d "$cache/root.XXXXXX")
  mkdir -p "$root"/{bin,dev,proc,sys,tmp,root,etc,mnt}
  cp "$cache/busybox-$arch/bin/busybox" "$root/bin/busybox"
  install -m 755 "$scripts/guest-init" "$root/init"
  archive "$root" >"$result.new"
  rm -rf "$root"
  mv "$result.new" "$result"
}

for arch in "$@"; do
  case $arch in amd64 | i386) ;; *) echo "guest-initrd: unknown architecture '$arch': amd64 or i386" >&2; exit 2 ;; esac
  make_initrd "$arch"
  with_modules "$arch"
done
