# Sourced by the guest scripts: Debian packages for guests, fetched as an ordinary user into the ignored cache folder, for amd64
# and i386 alike, with apt's own state there too, so that nothing of the host's configuration changes.
# The cache: of the source tree; installed, where trapline looks.
cache=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -e "$cache/CMakeLists.txt" ]; then cache=$cache/.cache; else cache=${XDG_DATA_HOME:-$HOME/.local/share}/trapline; fi
cache=${TRAPLINE_CACHE:-$cache}

guest_apt() {
  local tool=$1
  shift
  mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial" "$cache/apt/state"
  "$tool" -qq -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Architectures::=i386 \
    -o Dir::State="$cache/apt/state" -o Dir::State::Lists="$cache/apt/lists" -o Dir::State::status=/dev/null \
    -o Dir::Cache="$cache/apt" -o Debug::NoLocking=1 -o APT::Sandbox::User="" -o Acquire::Languages=none "$@"
}

# guest_package_fetch NAME:ARCH DIRECTORY: downloads the package and unpacks it there.
guest_package_fetch() {
  local package=$1 directory=$2 work
  if ! guest_apt apt-cache show "$package" >/dev/null 2>&1; then
    guest_apt apt-get update >/dev/null 2>&1 || true  # other sources of the host may fail; only the package counts
  fi
  work=$(mktemp -d "$cache/fetch.XXXXXX")
  if ! (cd "$work" && guest_apt apt-get download "$package" >/dev/null 2>"$work/log"); then
    # A list that is older than the archive names versions that are gone.
    guest_apt apt-get update >/dev/null 2>&1 || true
    if ! (cd "$work" && guest_apt apt-get download "$package" >/dev/null 2>"$work/log"); then
      echo "guest: cannot fetch the Debian package $package: $(tail -n 1 "$work/log")" >&2
      rm -rf "$work"
      return 1
    fi
  fi
  mkdir -p "$directory"
  dpkg-deb -x "$work"/*.deb "$directory"
  rm -rf "$work"
}
