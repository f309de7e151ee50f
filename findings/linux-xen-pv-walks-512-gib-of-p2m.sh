#!/bin/sh
# Debian's kernel under Xen PV executes some 1.36 billion instructions on its table of frames before it says anything
# else, as many with 256 MiB as with 700.
#
# One would expect the table of a small guest to be small work. Linux reserves room for the frames that memory hotplug
# could ever add (CONFIG_XEN_MEMORY_HOTPLUG_LIMIT, in GiB: 512 in Debian's kernels), and when it builds the tree over that
# room it asks of each of those 134 million frames what it is, one by one. On a processor that is a third of a second; an
# interpreter or emulator spends seconds, and a boot as a PV guest costs nearly twice the instructions of one without Xen.
# The message before is "p2m virtual area ... size is 40000000", the one behind is "Remapped N page(s)".
#
# Seen with Xen 4.17.7 and Linux 6.1.176 of Debian 12 under QEMU 7.2's TCG, where with -icount shift=0 a nanosecond of the
# guest's clock is an instruction: 1.363 s between the two lines with dom0_mem=256M, 1.356 s with 700M. Needs
# qemu-system-x86 and apt-get; takes some eight minutes. Prints a line for each; ends with 1 when it is otherwise, 77 when
# it cannot be seen here.
set -eu
command -v qemu-system-x86_64 >/dev/null || { echo "no qemu-system-x86_64" && exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
xen=xen-hypervisor-4.17-amd64=4.17.7+13-g2445b30a44-0+deb12u1 linux=linux-image-6.1.0-50-amd64=6.1.176-1
apt-get download -qq "$xen" "$linux" 2>/dev/null || { echo "the packages are not to be had" && exit 77; }
for package in ./*.deb; do dpkg-deb -x "$package" .; done
gunzip -c boot/xen-4.17-amd64.gz >xen
seconds() { # from one line to the other
  tr -d '\r' <"$1" | awk -F '[][ ]+' '/p2m virtual area/ { from = $2 } /Remapped [0-9]+ page/ { printf "%d\n", ($2 - from) * 1000; exit }'
}
for memory in 256 700; do
  timeout 400 qemu-system-x86_64 -accel tcg -icount shift=0,sleep=off -m 1024 -display none -serial stdio -monitor none \
    -no-reboot -kernel xen -initrd "boot/vmlinuz-6.1.0-50-amd64 console=hvc0 panic=1" \
    -append "com1=115200,8n1 console=com1 dom0=pv dom0_mem=${memory}M dom0_max_vcpus=1" >"$memory.log" 2>&1 </dev/null || true
  spent=$(seconds "$memory.log")
  echo "dom0_mem=${memory}M: ${spent:-no} million instructions between the two lines"
  [ "${spent:-0}" -gt 1200 ] && [ "$spent" -lt 1550 ] || exit 1
done
