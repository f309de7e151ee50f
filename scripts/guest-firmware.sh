#!/usr/bin/env bash
# guest-firmware.sh: what a firmware boots in tests, made by Debian's own tools, into $cache/firmware, once:
#   grub.iso, grub.img   GRUB's menu (scripts/guest-grub.cfg) with the cloud kernel and its initrd: a CD, and a disk of the same
#   memtest.iso          memtest86+ as its package has it
#   isolinux.iso         ISOLINUX with the same kernel
# Needs guest-kernel.sh cloud-amd64 and guest-initrd.sh amd64 before. The tools come from packages too, unpacked, not installed.
set -euo pipefail
# shellcheck source=scripts/guest-packages.sh
source "$(dirname "$0")/guest-packages.sh"
scripts=$(cd "$(dirname "$0")" && pwd)

packages="grub-pc-bin grub-common grub2-common xorriso libisoburn1 libisofs6 libburn4 libjte2 mtools memtest86+ isolinux syslinux-common
  libdevmapper1.02.1 libefiboot1 libefivar1 libfuse3-3 libfreetype6"
target=$cache/firmware
kernel=$cache/kernels/cloud-amd64

fresh() { [ -s "$1" ] && [ "$1" -nt "$kernel/vmlinuz" ] && [ "$1" -nt "$kernel/initrd" ] && [ "$1" -nt "$scripts/guest-grub.cfg" ]; }
fresh "$target/grub.iso" && fresh "$target/grub.img" && fresh "$target/isolinux.iso" && [ -s "$target/memtest.iso" ] && exit
for file in vmlinuz initrd; do
  [ -s "$kernel/$file" ] || { echo "guest-firmware: no $kernel/$file: run scripts/guest-kernel.sh cloud-amd64, scripts/guest-initrd.sh amd64" >&2; exit 1; }
done

tools=$target/tools
for package in $packages; do
  [ -e "$tools/.$package" ] && continue
  echo "guest-firmware: fetching $package"
  case $package in isolinux | syslinux-common) guest_package_fetch "$package" "$tools" ;; *) guest_package_fetch "$package:amd64" "$tools" ;; esac
  touch "$tools/.$package"
done
export LD_LIBRARY_PATH=$tools/usr/lib/x86_64-linux-gnu:$tools/lib/x86_64-linux-gnu PATH=$tools/usr/bin:$PATH

work=$(mktemp -d "$cache/firmware.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/grub/boot/grub" "$work/isolinux/isolinux"
cp "$kernel/vmlinuz" "$kernel/initrd" "$work/grub/boot/"
cp "$scripts/guest-grub.cfg" "$work/grub/boot/grub/grub.cfg"
grub-mkrescue -d "$tools/usr/lib/grub/i386-pc" -o "$work/grub.iso" "$work/grub" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
# A disk: the image is one already, its boot sector finds GRUB by itself (isohybrid).
cp "$work/grub.iso" "$work/grub.img"
truncate -s %1M "$work/grub.img"

cp "$kernel/vmlinuz" "$kernel/initrd" "$work/isolinux/isolinux/"
cp "$tools"/usr/lib/ISOLINUX/isolinux.bin "$tools"/usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/isolinux/isolinux/"
cat >"$work/isolinux/isolinux/isolinux.cfg" <<'CFG'
SERIAL 0 115200
PROMPT 1
SAY ISOLINUX is here
DEFAULT linux
LABEL linux
  KERNEL vmlinuz
  INITRD initrd
  APPEND console=ttyS0 trapline.run=batch
CFG
xorriso -as mkisofs -quiet -o "$work/isolinux.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
  -boot-info-table "$work/isolinux" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
cp "$tools/usr/lib/memtest86+/memtest86+x64.iso" "$work/memtest.iso"
for image in grub.iso grub.img isolinux.iso memtest.iso; do mv "$work/$image" "$target/$image"; done
