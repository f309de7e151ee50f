#include "cli/cloud_init.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "image/tool.h"

namespace trapline::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostUserData = MiB;  // with its file system on a floppy's worth of FAT

// A folder that goes with this object.
struct Scratch {
  fs::path path;
  Scratch() {
    const char* place = ::getenv("TMPDIR");
    std::string name = std::string{place && *place ? place : "/tmp"} + "/trapline-seed-XXXXXX";
    if (::mkdtemp(name.data())) path = name;
  }
  ~Scratch() {
    std::error_code ignored;
    if (!path.empty()) fs::remove_all(path, ignored);
  }
};

// Another text is another instance: cloud-init does its work again.
std::string meta_data(const std::string& user_data, const std::string& host) {
  return fmt::format("instance-id: trapline-{:016x}\nlocal-hostname: {}\n", std::hash<std::string>{}(user_data), host);
}

// VFAT by mtools, or ISO 9660 by xorriso or genisoimage: NoCloud takes each, by its label.
std::string make_seed(const fs::path& folder) {
  const std::string seed = folder / "seed", user = folder / "user-data", meta = folder / "meta-data";
  const image::Silence quiet;
  const auto run = [&](std::vector<std::string> words) {
    return image::run_tool({std::move(words), {"MTOOLS_SKIP_CHECK=1"}, quiet.fd(), {}});
  };
  if (const std::string mformat = image::find_tool("mformat"), mcopy = image::find_tool("mcopy");
      !mformat.empty() && !mcopy.empty()) {
    if (run({mformat, "-i", seed, "-C", "-f", "1440", "-v", "CIDATA", "::"}) == 0 &&
        run({mcopy, "-i", seed, user, meta, "::"}) == 0)
      return {};
    return "mtools could not make its disk: is there space in $TMPDIR?";
  }
  if (const std::string xorriso = image::find_tool("xorriso"); !xorriso.empty())
    return run({xorriso, "-as", "mkisofs", "-quiet", "-o", seed, "-V", "CIDATA", "-J", "-r", user, meta}) == 0
               ? std::string{}
               : "xorriso could not make its disk: is there space in $TMPDIR?";
  return "this host lacks mformat and xorriso: apt-get install mtools";
}

}  // namespace

std::string add_cloud_init(RunOptions& o) {
  if (o.cloud_init.empty()) return {};
  const auto wrong = [&](const std::string& why) { return fmt::format("--cloud-init {}: {}", o.cloud_init, why); };
  std::ifstream in{o.cloud_init, std::ios::binary};
  std::ostringstream text;
  text << in.rdbuf();
  if (!in || text.str().empty()) return wrong("it cannot be read, or is empty: name a file of user data");
  if (text.str().size() > kMostUserData) return wrong("more than 1 MiB: let it fetch the rest");
  const std::string host = !o.config.name.empty() ? o.config.name : o.config.stem;
  const Scratch scratch;
  if (scratch.path.empty()) return wrong(fmt::format("no place for its disk: {}: set TMPDIR", std::strerror(errno)));
  std::ofstream{scratch.path / "user-data", std::ios::binary} << text.str();
  std::ofstream{scratch.path / "meta-data"} << meta_data(text.str(), host);
  if (std::string why = make_seed(scratch.path); !why.empty()) return wrong(why);
  const int seed = ::open((scratch.path / "seed").c_str(), O_RDONLY | O_CLOEXEC);
  if (seed < 0) return wrong(fmt::format("its disk: {}", std::strerror(errno)));
  o.disks.push_back(fmt::format("/proc/self/fd/{},format=raw,readonly,serial=cidata", seed));
  return {};
}

}  // namespace trapline::cli
