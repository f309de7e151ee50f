#!/usr/bin/env bash
# packages.sh DIRECTORY: the Debian packages of the benchmark guest's programs, unpacked there, once.
set -euo pipefail
# shellcheck source=scripts/guest-packages.sh
source "$(dirname "$0")/../scripts/guest-packages.sh"
target=$1
packages=(libc6 gzip xz-utils liblzma5 coreutils libselinux1 libpcre2-8-0 libacl1 libattr1 libgmp10 openssl libssl3 sqlite3 libsqlite3-0
  libreadline8 libtinfo6 zlib1g python3.11-minimal libpython3.11-minimal libexpat1 perl-base libcrypt1 gcc-12 cpp-12
  binutils-x86-64-linux-gnu libbinutils libctf0 libisl23 libmpc3 libmpfr6 libzstd1 libjansson4 libgcc-s1 libstdc++6)
if [ "$(cat "$target/.packages" 2>/dev/null || true)" = "${packages[*]}" ]; then exit 0; fi
mkdir -p "$cache"
rm -rf "$target" "$target.new"
echo "bench: fetching ${#packages[@]} Debian packages for the guest"
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
download() { (cd "$work" && guest_apt apt-get download "${packages[@]/%/:amd64}" >/dev/null 2>"$work/log"); }
if ! download; then
  guest_apt apt-get update >/dev/null 2>&1 || true  # no package lists yet, or older than the archive
  download || { echo "bench: cannot fetch the guest's Debian packages: $(tail -n 1 "$work/log")" >&2; exit 1; }
fi
mkdir "$target.new"
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$target.new"; done
echo "${packages[*]}" >"$target.new/.packages"
mv "$target.new" "$target"
