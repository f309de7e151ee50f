#include "image/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace trapline::image {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDraft = ".building-";
constexpr const char* kDescription = "image.json";

// Empty: there is no place.
std::string place() {
  const char* data = ::getenv("XDG_DATA_HOME");
  if (data && *data == '/') return std::string{data} + "/trapline/images";
  const char* home = ::getenv("HOME");
  if (home && *home == '/') return std::string{home} + "/.local/share/trapline/images";
  return {};
}

// With folders in it that their owner may not enter.
void take_away(const fs::path& folder) {
  std::error_code ignored;
  if (fs::remove_all(folder, ignored) != static_cast<std::uintmax_t>(-1)) return;
  for (auto at = fs::recursive_directory_iterator{folder, fs::directory_options::skip_permission_denied, ignored};
       at != fs::recursive_directory_iterator{}; at.increment(ignored)) {
    if (ignored) break;
    if (at->is_directory(ignored) && !at->is_symlink(ignored))
      fs::permissions(at->path(), fs::perms::owner_all, fs::perm_options::add, ignored);
  }
  fs::remove_all(folder, ignored);
}

std::optional<Image> read_image(const fs::path& folder) {
  std::ifstream file{folder / kDescription};
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  Image image;
  image.name = folder.filename(), image.folder = folder;
  try {
    image.suite = json.value("suite", ""), image.user = json.value("user", ""), image.kernel = json.value("kernel", "");
    image.format = json.value("format", "raw"), image.bytes = json.value("bytes", u64{0});
    image.made = json.value("made", i64{0});
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  if (image.format != "raw" && image.format != "qcow2") return std::nullopt;  // it becomes part of a path
  return image;
}

// A VM that writes to it, or reads it, holds a lock (monitor/storage/raw_file.h).
bool is_in_use(const std::string& disk) {
  const int fd = ::open(disk.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return false;
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  const bool taken = ::fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
  ::close(fd);
  return taken;
}

}  // namespace

Draft::Draft(Draft&& o) noexcept : folder_{std::exchange(o.folder_, {})}, lock_{std::exchange(o.lock_, -1)} {}

Draft::~Draft() {
  if (!folder_.empty()) take_away(folder_);
  if (lock_ >= 0) ::close(lock_);
}

bool Store::is_name(const std::string& name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
  };
  return !name.empty() && name.size() <= 64 && name[0] != '.' && name[0] != '-' &&
         std::all_of(name.begin(), name.end(), good);
}

Result<Store, std::string> Store::open() {
  Store store;
  store.folder_ = place();
  if (store.folder_.empty()) return Err{std::string{"no place for images: set HOME, or XDG_DATA_HOME to a folder"}};
  return store;
}

std::vector<Image> Store::all() const {
  take_away_leftovers();
  std::vector<Image> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator{folder_, ignored}) {
    if (!is_name(entry.path().filename())) continue;
    if (auto image = read_image(entry.path())) found.push_back(std::move(*image));
  }
  std::sort(found.begin(), found.end(), [](const Image& a, const Image& b) { return a.name < b.name; });
  return found;
}

Result<Image, std::string> Store::find(const std::string& name) const {
  if (is_name(name))
    if (auto image = read_image(fs::path{folder_} / name)) return std::move(*image);
  std::string names;
  for (const Image& image : all()) names += (names.empty() ? "" : ", ") + image.name;
  return Err{fmt::format("{}: no such image: {}", name, names.empty() ? "there is none" : "there are " + names)};
}

Result<void, std::string> Store::remove(const std::string& name) const {
  auto image = find(name);
  if (!image) return Err{image.error()};
  if (is_in_use(image->disk())) return Err{fmt::format("{}: a VM uses it: stop that one first", name)};
  // Under another name first: half an image is none.
  const std::string gone = fmt::format("{}/{}{}-{}", folder_, kDraft, name, ::getpid());
  if (::rename(image->folder.c_str(), gone.c_str()) != 0)
    return Err{fmt::format("{}: {}: check who owns its folder", image->folder, std::strerror(errno))};
  take_away(gone);
  return {};
}

Result<Draft, std::string> Store::begin(const std::string& name) const {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) return Err{fmt::format("{}: {}: set XDG_DATA_HOME to a folder of yours", folder_, error.message())};
  take_away_leftovers();
  const std::string folder = fmt::format("{}/{}{}-{}", folder_, kDraft, name, ::getpid());
  const bool made = ::mkdir(folder.c_str(), 0700) == 0;
  const int lock = made ? ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (lock < 0 || ::flock(lock, LOCK_EX | LOCK_NB) != 0)
    return Err{fmt::format("{}: {}: set XDG_DATA_HOME to a folder of yours", folder, std::strerror(errno))};
  return Draft{folder, lock};
}

Result<Image, std::string> Store::keep(Draft draft, Image image) const {
  const nlohmann::json json = {{"suite", image.suite},   {"user", image.user},   {"kernel", image.kernel},
                               {"format", image.format}, {"bytes", image.bytes}, {"made", image.made}};
  std::ofstream file{draft.folder_ + "/" + kDescription};
  file << json.dump(2) << '\n';
  file.close();
  image.folder = folder_ + "/" + image.name;
  if (!file) return Err{fmt::format("{}/{}: it could not be written: free some space", draft.folder_, kDescription)};
  if (::rename(draft.folder_.c_str(), image.folder.c_str()) != 0)
    return Err{fmt::format("{}: {}: is there another of that name?", image.folder, std::strerror(errno))};
  draft.folder_.clear();
  return image;
}

void Store::take_away_leftovers() const {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator{folder_, ignored}) {
    if (!entry.path().filename().string().starts_with(kDraft)) continue;
    const int lock = ::open(entry.path().c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (lock < 0) continue;
    if (::flock(lock, LOCK_EX | LOCK_NB) == 0) take_away(entry.path());
    ::close(lock);
  }
}

}  // namespace trapline::image
