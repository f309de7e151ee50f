#!/usr/bin/env bash
# guest-kernel.sh FLAVOUR...: fetches Debian 12's stock kernel of that flavour into the cache, once.
# Flavours: cloud-amd64 amd64 rt-amd64 686-pae 686. Result: $cache/kernels/FLAVOUR/vmlinuz (and config, System.map, version), and in
# modules/lib/modules/VERSION those of its modules that the machine's devices and shared folders need, with modules.dep: a tree to
# lay over an initrd's root (scripts/guest-initrd.sh does).
set -euo pipefail
# shellcheck source=scripts/guest-packages.sh
source "$(dirname "$0")/guest-packages.sh"

# Whatever a flavour builds in or lacks is passed over; what these depend on comes along.
wanted_modules="virtio_pci virtio_mmio virtio_blk virtio_net virtio_console virtio-rng virtio_balloon virtio_scsi
  vmw_vsock_virtio_transport vsock_diag 9p 9pnet_virtio virtiofs overlay fuse ext4 crc32c_generic isofs vfat nls_ascii nls_cp437 nls_utf8
  nls_iso8859-1 squashfs loop af_packet sd_mod sr_mod ata_piix xen-blkfront xen-netfront"
depmod=$(command -v depmod || echo /sbin/depmod)

# keep_modules UNPACKED TARGET: the wanted modules of an unpacked package, and what they need, into TARGET.
keep_modules() {
  local unpacked=$1 target=$2 version file
  version=$(basename "$unpacked"/lib/modules/*)
  "$depmod" -b "$unpacked" "$version"
  mkdir -p "$target/lib/modules/$version"
  # modules.dep: "kernel/a/b.ko: kernel/c.ko ...", the right side complete and in the order in which to remove them.
  tr -s ' \n' '\n' <<<"$wanted_modules" |
    awk 'NR == FNR { wanted[$1] = 1; next }
         { path = $1; sub(/:$/, "", path); name = path; sub(/.*\//, "", name); sub(/\.ko$/, "", name)
           if (name in wanted) { print path; for (i = 2; i <= NF; i++) print $i } }' - "$unpacked/lib/modules/$version/modules.dep" |
    sort -u | while read -r file; do install -D -m 644 "$unpacked/lib/modules/$version/$file" "$target/lib/modules/$version/$file"; done
  cp "$unpacked/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$target/lib/modules/$version/"
  "$depmod" -b "$target" "$version"
}

for flavour in "$@"; do
  case $flavour in
    cloud-amd64 | amd64 | rt-amd64) arch=amd64 ;;
    686-pae | 686) arch=i386 ;;
    *) echo "guest-kernel: unknown flavour '$flavour': cloud-amd64, amd64, rt-amd64, 686-pae or 686" >&2; exit 2 ;;
  esac
  target=$cache/kernels/$flavour
  [ -s "$target/vmlinuz" ] && [ "$(cat "$target/modules.list" 2>/dev/null)" = "$wanted_modules" ] && continue
  mkdir -p "$cache"
  if ! guest_apt apt-cache show "linux-image-$flavour:$arch" >/dev/null 2>&1; then guest_apt apt-get update >/dev/null 2>&1 || true; fi
  # The meta package depends on the image of the current version. A kernel that is here gets the modules of its own.
  image=$(cat "$target/version" 2>/dev/null || true)
  [ -n "$image" ] && guest_apt apt-cache show "$image:$arch" >/dev/null 2>&1 || image=
  [ -n "$image" ] || image=$(guest_apt apt-cache depends "linux-image-$flavour:$arch" 2>/dev/null |
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
  keep_modules "$unpacked" "$target.new/modules"
  rm -rf "$unpacked"
  if [ "$(cat "$target/version" 2>/dev/null)" = "$image" ]; then
    rm -rf "$target/modules"
    mv "$target.new/modules" "$target/modules"  # guests may run from what is there
    rm -rf "$target.new"
  else
    rm -rf "$target"
    mv "$target.new" "$target"
  fi
  echo "$wanted_modules" >"$target/modules.list"
done
