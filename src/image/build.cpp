#include "image/build.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <optional>

#include "image/sources.h"
#include "image/tool.h"

namespace trapline::image {

namespace {

constexpr int kBadInput = 3;  // channel/exit_codes.h

bool is_root() { return ::geteuid() == 0; }

bool has_capability(unsigned number) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  return ::syscall(SYS_capget, &header, data) == 0 && (data[number / 32].effective >> number % 32 & 1);
}

// A range of user ids that newuidmap(1) gives this user.
bool has_subordinate_ids() {
  const passwd* user = ::getpwuid(::geteuid());
  std::ifstream file{"/etc/subuid"};
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(fmt::format("{}:", ::geteuid())) ||
        (user && line.starts_with(std::string{user->pw_name} + ":")))
      return true;
  return false;
}

std::string first_line(const std::string& path) {
  std::ifstream file{path};
  std::string line;
  std::getline(file, line);
  return line;
}

// The guest's keys under the image's name, wherever its port is forwarded to.
void write_known_hosts(const std::string& folder, const std::string& name) {
  std::ifstream keys{folder + "/hostkeys"};
  std::ofstream known{folder + "/known_hosts"};
  for (std::string type, key, comment; keys >> type >> key && std::getline(keys, comment);)
    known << name << ' ' << type << ' ' << key << '\n';
}

class Build {
 public:
  Build(const Spec& spec, std::string folder) : spec_{spec}, folder_{std::move(folder)} {}

  std::optional<BuildError> run() {
    if (auto error = make_key()) return error;
    if (auto error = install()) return error;
    if (auto error = pack()) return error;
    if (spec_.format == "qcow2")
      if (auto error = convert()) return error;
    write_known_hosts(folder_, spec_.name);
    return std::nullopt;
  }

 private:
  // Above 128 a signal ended it, which the user knows of.
  std::optional<BuildError> ended(int code, const char* what) const {
    if (code == 0) return std::nullopt;
    if (code > 128) return BuildError{code, fmt::format("image build {}: interrupted: nothing is left", spec_.name)};
    return BuildError{kBadInput, fmt::format("image build {}: {} failed (exit code {}); its own words are above",
                                             spec_.name, what, code)};
  }

  std::optional<BuildError> make_key() const {
    const int code = run_tool({{find_tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C",
                                "trapline " + spec_.name, "-f", folder_ + "/id_ed25519"},
                               {},
                               2,
                               {}});
    return ended(code, "ssh-keygen");
  }

  std::optional<BuildError> install() const {
    const int tar = ::open((folder_ + "/root.tar").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    std::vector<std::string> words{find_tool("mmdebstrap"),
                                   "--mode=auto",
                                   "--variant=minbase",
                                   "--format=tar",
                                   fmt::format("--include={}", fmt::join(packages_of(spec_), ",")),
                                   "--essential-hook=eval \"$TRAPLINE_BEFORE\"",
                                   "--customize-hook=eval \"$TRAPLINE_AFTER\""};
    // Root in a container may not mount; packages do without /proc and /sys.
    if (is_root() && !has_capability(CAP_SYS_ADMIN)) words.emplace_back("--skip=check/canmount");
    words.insert(words.end(), {spec_.suite, "-"});
    for (std::string& line : sources_for(spec_.suite)) words.push_back(std::move(line));
    std::vector<std::string> environment = proxies_of_apt();
    environment.insert(environment.end(),
                       {std::string{"TRAPLINE_BEFORE="} + kBeforePackages,
                        std::string{"TRAPLINE_AFTER="} + kAfterPackages, "TRAPLINE_USER=" + spec_.user});
    if (!::getenv("TMPDIR")) environment.emplace_back("TMPDIR=/var/tmp");  // /tmp may be memory
    const int code = run_tool({std::move(words), std::move(environment), tar, "/"});
    ::close(tar);
    return ended(code, "mmdebstrap");
  }

  std::optional<BuildError> pack() const {
    std::vector<std::string> words;
    if (!is_root()) words = {find_tool("fakeroot"), "--"};
    words.insert(words.end(), {"/bin/sh", "-c", kPack});
    const int code = run_tool(
        {std::move(words),
         {"TRAPLINE_NAME=" + spec_.name, "TRAPLINE_USER=" + spec_.user, fmt::format("TRAPLINE_BYTES={}", spec_.bytes),
          std::string{"TRAPLINE_AUTOLOGIN="} + (spec_.autologin ? "1" : "")},
         2,
         folder_});
    if (code == kTooSmall)
      return BuildError{kBadInput, fmt::format("--size {}: the packages do not fit: give more", spec_.size)};
    return ended(code, "making the file system");
  }

  std::optional<BuildError> convert() const {
    const int code = run_tool(
        {{find_tool("qemu-img"), "convert", "-O", "qcow2", folder_ + "/disk.raw", folder_ + "/disk.qcow2"}, {}, 2, {}});
    ::unlink((folder_ + "/disk.raw").c_str());
    return ended(code, "qemu-img");
  }

  const Spec& spec_;
  const std::string folder_;
};

}  // namespace

std::string missing_for(const Spec& spec) {
  std::vector<std::string> tools, packages;
  const auto need = [&](const char* tool, const char* package) {
    if (find_tool(tool).empty()) tools.emplace_back(tool), packages.emplace_back(package);
  };
  need("mmdebstrap", "mmdebstrap");
  need("mke2fs", "e2fsprogs");
  need("ssh-keygen", "openssh-client");
  if (spec.format == "qcow2") need("qemu-img", "qemu-utils");
  if (!is_root()) {
    need("fakeroot", "fakeroot");
    if (has_subordinate_ids())
      need("newuidmap", "uidmap");
    else
      need("fakechroot", "fakechroot");
  }
  if (tools.empty()) return {};
  return fmt::format("image build: this host lacks {}: apt-get install {}", fmt::join(tools, ", "),
                     fmt::join(packages, " "));
}

Result<Image, BuildError> build(const Store& store, const Spec& spec) {
  const SignalsHeld held;  // outlives the draft
  if (store.find(spec.name))
    return Err{BuildError{
        kBadInput,
        fmt::format("image build: {0} is there already: trapline image rm {0}, or another name", spec.name)}};
  if (const std::string missing = missing_for(spec); !missing.empty()) return Err{BuildError{kBadInput, missing}};
  auto draft = store.begin(spec.name);
  if (!draft) return Err{BuildError{kBadInput, draft.error()}};
  ::umask(022);
  const std::string folder = draft->folder();
  if (auto error = Build{spec, folder}.run()) return Err{*error};
  Image image{.name = spec.name,
              .folder = {},
              .suite = spec.suite,
              .user = spec.user,
              .kernel = first_line(folder + "/version"),
              .format = spec.format,
              .bytes = spec.bytes,
              .made = ::time(nullptr)};
  for (const char* left : {"/version", "/hostkeys"}) ::unlink((folder + left).c_str());
  auto kept = store.keep(std::move(*draft), std::move(image));
  if (!kept) return Err{BuildError{kBadInput, kept.error()}};
  return std::move(*kept);
}

}  // namespace trapline::image
