#!/bin/sh
# A file that every check for "a Linux bzImage of boot protocol 2.06 or later" accepts, and that no loader may enter by the 32-bit
# boot protocol. iPXE's ipxe.lkrn has the magic number, says protocol 2.07 and LOADED_HIGH, announces a kernel of 296 KiB, and
# names no protected-mode entry: code32_start is 0. Linux's boot.rst gives 100000 (hex) as that field's value for a bzImage and
# lets loaders change it, so loaders trust it; a loader that does so here jumps to the real-mode interrupt table. All that can be
# called is the real-mode code, which needs a BIOS. memtest86+ is dressed likewise and does have the entry.
# So: code32_start below 1 MiB in an image with LOADED_HIGH means "real mode and BIOS only".
# Exit code 0: it is still so. 1: it is not. 2: the packages cannot be had.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download ipxe=1.0.0+git-20190125.36a4c85-5.1 memtest86+=6.10-4 >/dev/null 2>&1 || { echo "cannot fetch the packages"; exit 2; }
for deb in *.deb; do dpkg-deb -x "$deb" .; done
field() { od -An -j"$2" -N"$3" -tu"$3" "$1" | tr -d ' '; }  # FILE OFFSET SIZE
show() {
  echo "$1: magic $(od -An -j514 -N4 -c "$1" | tr -d ' '), protocol $(field "$1" 518 2), loadflags $(field "$1" 529 1)," \
    "syssize $(field "$1" 500 4), code32_start $(field "$1" 532 4)"
}
status=0
for image in boot/ipxe.lkrn boot/memtest86+x64.bin; do
  show "$image"
  [ "$(field "$image" 514 4)" = 1400005704 ] || status=1       # HdrS
  [ "$(field "$image" 518 2)" -ge 518 ] || status=1            # 2.06
  [ $(($(field "$image" 529 1) & 1)) = 1 ] || status=1         # LOADED_HIGH
done
[ "$(field boot/ipxe.lkrn 532 4)" = 0 ] || status=1
[ "$(field boot/memtest86+x64.bin 532 4)" = 1048576 ] || status=1
exit $status
