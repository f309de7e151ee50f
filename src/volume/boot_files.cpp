#include "volume/boot_files.h"

#include <fmt/format.h>
#include <string.h>

#include <algorithm>
#include <vector>

namespace trapline::volume {

namespace {

constexpr std::string_view kKernelNames[] = {"vmlinuz-", "vmlinux-", "kernel-"};

// The newest "vmlinuz-VERSION" of a folder, as ls -v has it; rescue kernels do not count.
std::string newest_kernel(const Ext& ext, const std::string& folder, std::string& version) {
  std::string best;
  for (const std::string& name : ext.names(folder))
    for (const std::string_view prefix : kKernelNames) {
      if (!name.starts_with(prefix) || name.find("rescue") != std::string::npos || name.ends_with(".old")) continue;
      const std::string v = name.substr(prefix.size());
      if (!best.empty() && ::strverscmp(v.c_str(), version.c_str()) <= 0) continue;
      best = folder + "/" + name, version = v;
    }
  return best;
}

// Debian's, Fedora's, and Alpine's names.
std::string initrd_for(const Ext& ext, const std::string& folder, const std::string& version) {
  for (const std::string& name :
       {fmt::format("initrd.img-{}", version), fmt::format("initramfs-{}.img", version),
        fmt::format("initrd-{}", version), fmt::format("initramfs-{}", version), std::string{"initrd.img"}})
    if (const std::string path = folder + "/" + name; ext.has(path)) return path;
  return {};
}

struct Found {
  const Ext* ext = nullptr;
  std::string path;
};

class Search {
 public:
  Search(const Source& disk, const Wanted& wanted) : wanted_{wanted} {
    for (const Partition& p : partitions_of(disk))
      if (auto ext = Ext::open(disk, p)) file_systems_.push_back({p, std::move(ext)});
  }

  bool any() const { return !file_systems_.empty(); }

  const Partition* root() const {
    for (const auto& [partition, ext] : file_systems_)
      if (ext->has("/etc") && (ext->has("/sbin") || ext->has("/usr"))) return &partition;
    return nullptr;
  }

  // Of a kernel that was named: its initrd is beside it.
  Found named_kernel(const std::string& path) {
    const auto slash = path.rfind('/');
    folder_ = slash == std::string::npos ? "" : path.substr(0, slash);
    const std::string name = path.substr(slash + 1);
    for (const std::string_view prefix : kKernelNames)
      if (name.starts_with(prefix)) version_ = name.substr(prefix.size());
    return named(path);
  }

  Found named(const std::string& path) const {
    for (const auto& entry : file_systems_)
      if (entry.ext->has(path)) return {entry.ext.get(), path};
    return {};
  }

  // A version's own file before the links, which may be of another disk.
  Found kernel() {
    for (const auto& [partition, ext] : file_systems_)
      for (const char* folder : {"/boot", ""})
        if (std::string path = newest_kernel(*ext, folder, version_); !path.empty()) {
          folder_ = folder;
          return {ext.get(), std::move(path)};
        }
    for (const auto& [partition, ext] : file_systems_)
      for (const char* path : {"/vmlinuz", "/boot/vmlinuz", "/boot/vmlinuz-linux", "/boot/bzImage"})
        if (ext->has(path)) {
          folder_ = std::string{path}.substr(0, std::string_view{path}.rfind('/'));
          return {ext.get(), path};
        }
    return {};
  }

  // Beside the kernel that kernel() has found.
  Found initrd(const Found& kernel) const {
    if (!kernel.ext) return {};
    std::string path = initrd_for(*kernel.ext, folder_, version_);
    if (path.empty() && kernel.ext->has("/initrd.img")) path = "/initrd.img";
    return path.empty() ? Found{} : Found{kernel.ext, path};
  }

 private:
  struct FileSystem {
    Partition partition;
    std::unique_ptr<Ext> ext;
  };
  const Wanted& wanted_;
  std::vector<FileSystem> file_systems_;
  std::string version_, folder_;
};

}  // namespace

Result<BootFiles, std::string> read_boot_files(const Source& disk, const Wanted& wanted, const Ext::Taker& kernel,
                                               const Ext::Taker& initrd) {
  Search search{disk, wanted};
  if (!search.any()) return Err{std::string{"no ext4 file system in it: give --kernel FILE and --initrd FILE"}};
  BootFiles files;
  if (const Partition* root = search.root()) {
    files.root = root->number == 0 ? "/dev/vda" : "PARTUUID=" + root->partuuid;
    files.root_number = root->number;
  }
  const auto take = [](const Found& from, u64 most, const Ext::Taker& to, std::string& where) -> std::string {
    where = from.path;
    const auto done = from.ext->read(from.path, most, to);
    return done ? std::string{} : fmt::format("{} in it: {}", from.path, done.error());
  };
  Found found;
  if (wanted.kernel_too) {
    found = wanted.kernel.empty() ? search.kernel() : search.named_kernel(wanted.kernel);
    if (!found.ext && !wanted.kernel.empty()) return Err{fmt::format("no {} in it: name another", wanted.kernel)};
    if (!found.ext) return Err{std::string{"no kernel in its /boot: give --kernel FILE, or --kernel image:PATH"}};
    if (std::string wrong = take(found, kLargestKernel, kernel, files.kernel); !wrong.empty()) return Err{wrong};
  }
  if (!wanted.initrd_too) return files;
  if (!found.ext && wanted.initrd.empty()) found = search.kernel();  // the one that it belongs to
  // Without an initrd a kernel may boot, too, unless one was asked for.
  const Found other = wanted.initrd.empty() ? search.initrd(found) : search.named(wanted.initrd);
  if (!other.ext && !wanted.initrd.empty()) return Err{fmt::format("no {} in it: name another", wanted.initrd)};
  if (other.ext)
    if (std::string wrong = take(other, kLargestInitrd, initrd, files.initrd); !wrong.empty()) return Err{wrong};
  return files;
}

}  // namespace trapline::volume
