#include "image/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "image/store.h"

namespace trapline::image {

namespace {

constexpr const char* kPackages[] = {
    // systemd with its network, D-Bus for power button and sessions
    "systemd-sysv", "udev", "dbus", "libpam-systemd", "systemd-resolved", "libnss-resolve", "iproute2",
    // a login from outside, and its rights
    "openssh-server", "sudo",
    // the kernel's: modules, the initrd's packing
    "kmod", "zstd", "ca-certificates"};
constexpr const char* kKernel = "linux-image-cloud-amd64";

bool only_of(const std::string& text, std::string_view more) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || more.find(c) != std::string_view::npos;
  });
}

}  // namespace

std::string check(const Spec& spec) {
  constexpr std::size_t kLongestUser = 32;
  if (!Store::is_name(spec.name))
    return fmt::format("image build: {}: give letters, digits, dots, dashes and underscores, 64 at most",
                       spec.name.empty() ? "no name" : spec.name);
  if (!only_of(spec.suite, "-")) return fmt::format("--suite {}: give a release of Debian: bookworm", spec.suite);
  if (!only_of(spec.user, "-_") || spec.user.size() > kLongestUser || spec.user[0] < 'a' || spec.user == "root")
    return fmt::format("--user {}: give a name of small letters and digits, not root", spec.user);
  for (const std::string& package : spec.packages)
    if (!only_of(package, "+-.:")) return fmt::format("--packages {}: not a package's name: give a,b,c", package);
  if (spec.format != "raw" && spec.format != "qcow2") return fmt::format("--format {}: give raw or qcow2", spec.format);
  return {};
}

std::vector<std::string> packages_of(const Spec& spec) {
  std::vector<std::string> all{std::begin(kPackages), std::end(kPackages)};
  const auto is_kernel = [](const std::string& p) { return p.starts_with("linux-image-"); };
  if (std::none_of(spec.packages.begin(), spec.packages.end(), is_kernel)) all.emplace_back(kKernel);
  all.insert(all.end(), spec.packages.begin(), spec.packages.end());
  return all;
}

// An initrd of the few modules that the root needs: half the size of one for any machine, and quicker to unpack.
const char* const kBeforePackages = R"(
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d"
echo MODULES=list >"$1/etc/initramfs-tools/conf.d/trapline"
printf '%s\n' virtio_pci virtio_blk virtio_net ext4 >"$1/etc/initramfs-tools/modules"
)";

const char* const kAfterPackages = R"(
set -eu
chroot "$1" useradd --create-home --shell /bin/bash --groups sudo,adm,systemd-journal "$TRAPLINE_USER"
for unit in systemd-networkd.service systemd-resolved.service ssh.service; do
  chroot "$1" systemctl --quiet enable "$unit"
done
)";

const char* const kPack = R"(
set -eu
mkdir root
tar -C root -xpf root.tar --numeric-owner --exclude='./dev/*'
rm root.tar
cd root

# Of this VM, not of the host.
echo "$TRAPLINE_NAME" >etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost ip6-loopback\n' "$TRAPLINE_NAME" >etc/hosts
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
rm -f var/lib/dbus/machine-id
ln -s /etc/machine-id var/lib/dbus/machine-id 2>/dev/null || true
echo '/dev/vda / ext4 defaults 0 1' >etc/fstab
ln -sf ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf
mkdir -p etc/systemd/network etc/systemd/system etc/sudoers.d etc/ssh/sshd_config.d
printf '[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n' >etc/systemd/network/80-dhcp.network

# The console is whoever started the VM; from outside a key is needed.
sed -i "s/^$TRAPLINE_USER:[^:]*:/$TRAPLINE_USER::/" etc/shadow
echo "$TRAPLINE_USER ALL=(ALL:ALL) NOPASSWD: ALL" >etc/sudoers.d/trapline
chmod 440 etc/sudoers.d/trapline
echo 'PasswordAuthentication no' >etc/ssh/sshd_config.d/trapline.conf
home=home/$TRAPLINE_USER
owner=$(sed -n "s/^$TRAPLINE_USER:[^:]*:\([0-9]*\):\([0-9]*\):.*/\1:\2/p" etc/passwd)
mkdir -p "$home/.ssh"
cat ../id_ed25519.pub >"$home/.ssh/authorized_keys"
chmod 700 "$home/.ssh"
chmod 600 "$home/.ssh/authorized_keys"
chown -R "$owner" "$home/.ssh"
if [ "$TRAPLINE_AUTOLOGIN" ]; then
  mkdir -p etc/systemd/system/serial-getty@ttyS0.service.d
  printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin %s --keep-baud 115200,57600,38400,9600 - $TERM\n' \
    "$TRAPLINE_USER" >etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf
fi

# The host keys are those that known_hosts beside the image has; the locale is there; nobody on the network is asked.
if [ -d etc/cloud/cloud.cfg.d ]; then
  printf '%s\n' 'ssh_deletekeys: false' 'locale: C.UTF-8' 'datasource_list: [NoCloud, None]' \
    >etc/cloud/cloud.cfg.d/95_trapline.cfg
fi

# Work that a VM which lives for minutes pays for and never profits from.
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service; do
  ln -sf /dev/null "etc/systemd/system/$unit"
done

kernel=$(ls -v boot/vmlinuz-* | tail -n 1)
version=${kernel#boot/vmlinuz-}
cp "$kernel" ../vmlinuz
cp "boot/initrd.img-$version" ../initrd.img
echo "$version" >../version
cat etc/ssh/ssh_host_*_key.pub >../hostkeys
cd ..

# A file system has tables of its own: a sixteenth, and a journal.
used=$(du -sk --apparent-size root | cut -f1)
[ $((used / 15 * 16 + 32768)) -le $((TRAPLINE_BYTES / 1024)) ] || exit 77
truncate -s "$TRAPLINE_BYTES" disk.raw
mke2fs -q -F -t ext4 -L trapline -E assume_storage_prezeroed=1 -d root disk.raw
rm -rf root
)";

}  // namespace trapline::image
