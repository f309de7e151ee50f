#!/usr/bin/env bash
# setup.sh PURPOSE...: installs the Debian packages that PURPOSE (see packages.txt) needs and that are missing.
# As root or with password-less sudo; otherwise prints the command and stops. Does nothing, and needs no network, when all are there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

[ $# -gt 0 ] || { echo "usage: setup.sh PURPOSE... (see scripts/packages.txt)" >&2; exit 2; }
wanted=()
for purpose in "$@"; do
  line=$(grep -E "^${purpose}[[:space:]]" "$here/packages.txt") || { echo "setup: unknown purpose '$purpose'" >&2; exit 2; }
  read -r -a names <<<"$line"
  wanted+=("${names[@]:1}")
done

missing=()
for name in "${wanted[@]}"; do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0

run=()
if [ "$(id -u)" != 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    run=(sudo -n)
  else
    echo "setup: these Debian packages are missing; install them as root, then run this again:" >&2
    echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
fi
echo "setup: installing ${missing[*]}"
install() { "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
# Package lists may be absent or old: refresh them only when the first try fails.
if ! install 2>/dev/null; then
  "${run[@]}" apt-get update -qq || true
  if ! install; then
    echo "setup: could not install ${missing[*]}: is a Debian 12 package source configured and reachable?" >&2
    exit 1
  fi
fi
