#!/bin/sh
# In Debian 12's libLLVM-14 (1:14.0.6-12) half of what is mapped executable is no code. The library is linked without separate
# segments, so one "R E" segment holds .text together with symbols, strings, relocations, constants (.rodata) and unwinding tables, where
# binutils' ld has kept them apart by default since 2018 (-z separate-code) and libc has four segments. "Executable" says nothing
# about "code" there: what looks like SLDT stands 15,310 times outside of .text, CPUID 58, RDTSC 155, SYSCALL 588 times, and programs
# read those tables. A tool that takes executable pages for code, and patches or refuses what it finds in them, breaks or slows
# whatever is linked with it (clang, Mesa's drivers, PostgreSQL's JIT, Rust).
# Exit code 0: it is still so. 1: it is not. 2: the packages cannot be had.
set -eu
export LC_ALL=C
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download libllvm14=1:14.0.6-12 libc6=2.36-9+deb12u14 >/dev/null 2>&1 || { echo "cannot fetch the packages"; exit 2; }
for deb in *.deb; do dpkg-deb -x "$deb" .; done
llvm=usr/lib/x86_64-linux-gnu/libLLVM-14.so.1
[ -e "$llvm" ] && [ ! -L "$llvm" ] || llvm=usr/lib/llvm-14/lib/libLLVM-14.so.1
libc=$(find . -name libc.so.6 | head -1)

# Offset and size in the file of the executable segment, and of a section.
segment() { readelf -lW "$1" | awk '$1 == "LOAD" && $7 == "R" && $8 == "E" {print $2, $5; exit}'; }
section() { readelf -SW "$1" | sed 's/^ *\[ *[0-9]*\] *//' | awk -v n="$2" '$1 == n {print "0x" $4, "0x" $5}'; }
count() { tail -c +$(($2 + 1)) "$1" | head -c "$(($3))" | grep -aobP "$4" | wc -l; }

status=0
for file in "$llvm" "$libc"; do
  # shellcheck disable=SC2046  # pairs of numbers
  set -- $(segment "$file") $(section "$file" .text)
  other=$(($2 - $4))
  echo "$(basename "$file"): executable $(($2)) bytes, .text $(($4)), something else $((other * 100 / $2)) %"
  if [ "$file" = "$libc" ]; then
    [ $((other * 100 / $2)) -le 2 ] || status=1
    continue
  fi
  [ $((other * 100 / $2)) -ge 40 ] || status=1
  # shellcheck disable=SC2046
  set -- "$@" $(section "$file" .rodata)
  [ $(($5)) -ge $(($1)) ] && [ $(($5 + $6)) -le $(($1 + $2)) ] || status=1
  for named in 'SLDT:\x0f\x00[\x00-\x07\xc0-\xc7]' 'CPUID:\x0f\xa2' 'RDTSC:\x0f\x31' 'SYSCALL:\x0f\x05'; do
    all=$(count "$file" "$1" "$2" "${named#*:}")
    text=$(count "$file" "$3" "$4" "${named#*:}")
    echo "  what looks like ${named%%:*}: $all times, $((all - text)) of them outside of .text"
    [ $((all - text)) -ge 20 ] || status=1
  done
done
exit $status
