#include "cli/image_command.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <time.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "base/write.h"
#include "channel/exit_codes.h"
#include "cli/options.h"
#include "cli/print.h"
#include "image/build.h"
#include "image/sources.h"
#include "image/store.h"

namespace trapline::cli {

namespace {

constexpr u64 kLeastDisk = 512 * MiB, kMostDisk = 16384 * GiB;

int failed(ExitCode code, const std::string& why) {
  say(why);
  return static_cast<int>(code);
}

// What a file takes on the host's disk.
u64 bytes_used(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 ? static_cast<u64>(st.st_blocks) * 512 : 0;
}

std::string size_text(u64 bytes) {
  if (bytes >= GiB) return fmt::format("{:.1f}G", static_cast<double>(bytes) / GiB);
  return fmt::format("{}M", bytes / MiB);
}

std::string day_of(i64 seconds) {
  char text[32] = {};
  const time_t at{seconds};
  tm parts{};
  ::strftime(text, sizeof text, "%Y-%m-%d", ::localtime_r(&at, &parts));
  return text;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream in{text};
  for (std::string word; std::getline(in, word, ',');)
    if (!word.empty()) all.push_back(word);
  return all;
}

}  // namespace

ImageCommand::ImageCommand(CLI::App& app)
    : command_{app.add_subcommand("image", "disk images: image build debian NAME, image ls, image rm NAME")} {
  CLI::App& c = *command_;
  c.add_option("ACTION", words_, "build debian NAME, ls, or rm NAME")->expected(0, 3)->type_name("ACTION");
  c.add_option("--packages", packages_, "build: more of Debian's packages, with commas between")->type_name("A,B");
  c.add_option("--size", size_, "build: how large its disk is")->type_name("SIZE")->capture_default_str();
  c.add_option("--format", format_, "build: raw or qcow2")->type_name("FORMAT")->capture_default_str();
  c.add_option("--suite", suite_, "build: which release of Debian; default: this host's, else bookworm")
      ->type_name("SUITE");
  c.add_option("--user", user_, "build: who logs in, by ssh with the image's key")
      ->type_name("USER")
      ->capture_default_str();
  c.add_flag("--autologin", autologin_, "build: the console asks for no name");
  c.add_flag("--json", json_, "ls: as JSON");
}

int ImageCommand::run() {
  const std::string action = words_.empty() ? "" : words_[0];
  if (action == "build") return build();
  if (action == "ls" && words_.size() == 1) return list();
  if (action == "rm" && words_.size() == 2) return remove();
  if (action == "rm") return failed(ExitCode::usage, "image rm: give one image: trapline image rm NAME");
  if (action == "ls") return failed(ExitCode::usage, fmt::format("image ls: {}: one too many", words_[1]));
  return failed(ExitCode::usage, fmt::format("image{}: give build debian NAME, ls or rm NAME",
                                             action.empty() ? "" : fmt::format(": {}: no such action", action)));
}

int ImageCommand::build() const {
  if (words_.size() != 3 || words_[1] != "debian")
    return failed(ExitCode::usage, "image build: give a distribution and a name: trapline image build debian NAME");
  const auto bytes = parse_size(size_);
  if (!bytes || *bytes < kLeastDisk || *bytes > kMostDisk)
    return failed(ExitCode::usage, fmt::format("--size {}: give 512M to 16T: --size 4G", size_));
  const image::Spec spec{.name = words_[2],
                         .suite = suite_.empty() ? image::suite_of_host() : suite_,
                         .user = user_,
                         .format = format_,
                         .size = size_,
                         .bytes = *bytes,
                         .packages = split(packages_),
                         .autologin = autologin_};
  if (const std::string wrong = image::check(spec); !wrong.empty()) return failed(ExitCode::usage, wrong);
  const auto store = image::Store::open();
  if (!store) return failed(ExitCode::bad_input, store.error());
  const auto image = image::build(*store, spec);
  if (!image) {
    say(image.error().text);
    return image.error().code;
  }
  say(fmt::format("{} is in {}: trapline run {}", image->name, image->folder, image->name));
  return 0;
}

int ImageCommand::list() const {
  const auto store = image::Store::open();
  if (!store) return failed(ExitCode::bad_input, store.error());
  const auto images = store->all();
  if (json_) {
    auto all = nlohmann::json::array();
    for (const auto& i : images)
      all.push_back({{"name", i.name},
                     {"suite", i.suite},
                     {"user", i.user},
                     {"kernel", i.kernel},
                     {"format", i.format},
                     {"bytes", i.bytes},
                     {"used", bytes_used(i.disk())},
                     {"made", i.made},
                     {"disk", i.disk()},
                     {"key", i.key()}});
    return print(all.dump(2) + "\n", 0);
  }
  std::string text;
  if (!images.empty())
    text = fmt::format("{:<16} {:<10} {:<7} {:>7} {:>7}  {:<10} {}\n", "NAME", "SUITE", "FORMAT", "SIZE", "USED",
                       "MADE", "KERNEL");
  for (const auto& i : images)
    text += fmt::format("{:<16} {:<10} {:<7} {:>7} {:>7}  {:<10} {}\n", i.name, i.suite, i.format, size_text(i.bytes),
                        size_text(bytes_used(i.disk())), day_of(i.made), i.kernel);
  return print(text, 0);
}

int ImageCommand::remove() const {
  const auto store = image::Store::open();
  if (!store) return failed(ExitCode::bad_input, store.error());
  const auto gone = store->remove(words_[1]);
  return gone ? 0 : failed(ExitCode::bad_input, "image rm " + gone.error());
}

}  // namespace trapline::cli
