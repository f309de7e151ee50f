#!/usr/bin/env bash
# guest-kernel.sh FLAVOUR...: fetches Debian 12's stock kernel of that flavour into the cache, once.
# Flavours: cloud-amd64 amd64 rt-amd64 686-pae 686. Result: $cache/kernels/FLAVOUR/vmlinuz (and config, System.map, version).
set -euo pipefail
source "$(dirname "$0")/guest-packages.sh"

for flavour in "$@"; do
  case $flavour in
    cloud-amd64 | amd64 | rt-amd64) arch=amd64 ;;
    686-pae | 686) arch=i386 ;;
    *) echo "guest-kernel: unknown flavour '$flavour': cloud-amd64, amd64, rt-amd64, 686-pae or 686" >&2; exit 2 ;;
  esac
  target=$cache/kernels/$flavour
  [ -s "$target/vmlinuz" ] && continue
  mkdir -p "$cache"
  if ! guest_apt apt-cache show "linux-image-$flavour:$arch" >/dev/null 2>&1; then guest_apt apt-get update >/dev/null 2>&1 || true; fi
  # The meta package depends on the image of the current version.
  image=$(guest_apt apt-cache depends "linux-image-$flavour:$arch" 2>/dev/null |
    sed -n 's/^ *Depends: *\(linux-image-[0-9][^ :]*\).*/\1/p' | head -n 1)
  [ -n "$image" ] || { echo "guest-kernel: the package sources know no linux-image-$flavour for $arch" >&2; exit 1; }
  echo "guest-kernel: fetching $image ($arch)"
  unpacked=$(mktemp -d "$cache/unpack.XXXXXX")
  guest_package_fetch "$image:$arch" "$unpacked"
  mkdir -p "$target.new"
  cp "$unpacked"/boot/vmlinuz-* "$target.new/vmlinuz"
  cp "$unpacked"/boot/config-* "$target.new/config"
  cp "$unpacked"/boot/System.map-* "$target.new/System.map" 2>/dev/null || true
  echo "$image" >"$target.new/version"
  rm -rf "$unpacked" "$target"
  mv "$target.new" "$target"
done
