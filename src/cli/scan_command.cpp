#include "cli/scan_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/write.h"
#include "channel/exit_codes.h"
#include "scan/input.h"
#include "scan/open.h"

namespace trapline::cli {

namespace {

using Clock = std::chrono::steady_clock;

// A line on a terminal, once a scan has taken a second.
class ProgressLine {
 public:
  explicit ProgressLine(std::string name) : name_{std::move(name)}, on_{::isatty(STDERR_FILENO) == 1} {}
  ~ProgressLine() {
    if (shown_) write_all(STDERR_FILENO, "\r\033[K");
  }
  void operator()(double share) {
    const auto now = Clock::now();
    if (!on_ || now - start_ < std::chrono::seconds{1} || now - last_ < std::chrono::milliseconds{100}) return;
    last_ = now;
    shown_ = true;
    write_all(STDERR_FILENO, fmt::format("\r\033[Kscanning {}: {:.0f}%", name_, share * 100));
  }

 private:
  std::string name_;
  bool on_, shown_ = false;
  Clock::time_point start_ = Clock::now(), last_;
};

std::string printable(std::string text) {
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return text;
}

std::optional<u64> parse_address(std::string_view text) {
  const int radix = text.starts_with("0x") || text.starts_with("0X") ? 16 : 10;
  if (radix == 16) text.remove_prefix(2);
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, radix);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Where a report goes, "-" is standard output. The first error counts; what comes after it is thrown away.
class Output {
 public:
  explicit Output(const std::string& path) : file_{path == "-" ? stdout : std::fopen(path.c_str(), "we")} {
    if (!file_) error_ = errno;
  }
  ~Output() { (void)finish(); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  void put(std::string_view text) {
    if (error_) return;
    errno = 0;
    if (std::fwrite(text.data(), 1, text.size(), file_) != text.size()) error_ = errno ? errno : EIO;
  }
  // What went wrong, or empty.
  std::string finish() {
    if (std::FILE* file = std::exchange(file_, nullptr)) {
      errno = 0;
      if ((file == stdout ? std::fflush(file) : std::fclose(file)) != 0 && !error_) error_ = errno ? errno : EIO;
    }
    return error_ ? std::strerror(error_) : std::string{};
  }

 private:
  std::FILE* file_;
  int error_ = 0;
};

}  // namespace

ScanCommand::ScanCommand(CLI::App& app, std::string version)
    : command_{app.add_subcommand("scan",
                                  "find critical and privileged instructions in programs, modules and kernels")},
      version_{std::move(version)} {
  CLI::App& c = *command_;
  c.add_option("FILE", files_,
               "ELF file, kernel module, vmlinux, bzImage, static library; gzip, xz, zstd, lz4, lzo or "
               "bzip2 around it");
  c.add_flag("--json", json_, "write JSON (schema: docs/scan.md)");
  c.add_flag("--sarif", sarif_, "write SARIF 2.1.0");
  c.add_option("--html", html_, "write a page with a map of the code, too")->type_name("FILE");
  c.add_option("-o,--output", output_, "where text, JSON or SARIF goes; default: standard output")->type_name("FILE");
  c.add_flag("--every-offset", scan_options_.every_offset,
             "also what decodes at other offsets: what hostile code could jump into");
  c.add_flag("--summary", summary_, "text without the list of findings");
  c.add_option("--bits", bits_, "the file is raw code of this size: 16, 32 or 64")->type_name("N");
  c.add_option("--base", base_, "raw code: the address of its first byte; default: 0")->type_name("ADDRESS");
  c.add_option("--ring", ring_, "judge as code of ring 0 or 3; default: 0 for kernels, modules and raw code, else 3")
      ->type_name("N");
  c.add_option("--vendor", vendor_,
               "decode as CPUs of amd, intel or both do; default: this host's, with --every-offset both")
      ->type_name("VENDOR");
  c.add_option("--max-findings", scan_options_.most_findings,
               "keep at most so many findings of a kind and file; what is beyond is counted")
      ->type_name("N")
      ->capture_default_str();
  c.add_option("--class", classes_, "which to list: critical, privileged, innocuous (sensitive in the other ring), all")
      ->type_name("CLASSES")
      ->capture_default_str();
}

std::string ScanCommand::check() {
  if (files_.empty()) return "scan: no file: name one: trapline scan FILE";
  if (json_ && sarif_) return "--json and --sarif: give one of them";
  if (command_->count("--bits") && bits_ != 16 && bits_ != 32 && bits_ != 64)
    return fmt::format("--bits {}: give 16, 32 or 64", bits_);
  if (!base_.empty()) {
    const auto address = parse_address(base_);
    if (!address) return fmt::format("--base {}: not an address: write 0x7c00", base_);
    if (!bits_) return "--base: for raw code only: give --bits too";
    base_address_ = *address;
  }
  if (command_->count("--ring") && ring_ != 0 && ring_ != 3) return fmt::format("--ring {}: give 0 or 3", ring_);
  using scan::Vendors;
  if (vendor_.empty())
    scan_options_.vendors = scan_options_.every_offset               ? Vendors::both
                            : isa::host_vendor() == isa::Vendor::amd ? Vendors::amd
                                                                     : Vendors::intel;
  else if (vendor_ == "amd" || vendor_ == "intel" || vendor_ == "both")
    scan_options_.vendors = vendor_ == "amd" ? Vendors::amd : vendor_ == "intel" ? Vendors::intel : Vendors::both;
  else
    return fmt::format("--vendor {}: give amd, intel or both", vendor_);
  if (ring_ >= 0) options_.ring = ring_ == 0 ? isa::Ring::ring0 : isa::Ring::ring3;
  options_.critical = options_.privileged = options_.innocuous = false;
  for (std::string_view rest = classes_; !rest.empty();) {
    const auto comma = rest.find(',');
    const std::string_view word = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
    const bool all = word == "all";
    if (!all && word != "critical" && word != "privileged" && word != "innocuous")
      return fmt::format("--class {}: no such class: use critical, privileged, innocuous or all", word);
    options_.critical |= all || word == "critical";
    options_.privileged |= all || word == "privileged";
    options_.innocuous |= all || word == "innocuous";
  }
  return {};
}

bool ScanCommand::scan(const std::string& path) {
  const scan::Limits limits;
  const auto failed = [&](const std::string& why) {
    say(fmt::format("{}: {}", printable(path), printable(why)));
    return false;
  };
  try {
    ProgressLine line{printable(path)};
    auto bytes = scan::read_file(path, limits);
    if (!bytes) return failed(bytes.error());
    std::optional<scan::RawOptions> raw;
    if (bits_) raw = {base_address_, static_cast<isa::CodeSize>(bits_ / 8)};
    auto images = scan::open_images(path, std::move(*bytes), raw, limits);
    if (!images) return failed(images.error());
    for (scan::Image& image : *images) {
      const scan::Scan found = scan::scan_image(image, limits, scan_options_, std::ref(line));
      reports_.push_back(scan::make_report(image, found, options_));
    }
    return true;
  } catch (const std::bad_alloc&) {
    return failed("too little memory to scan it");
  }
}

std::string ScanCommand::write_report() {
  Output file{output_};
  const scan::Sink out = [&](std::string_view text) { file.put(text); };
  if (json_) {
    scan::write_json(out, reports_, version_);
  } else if (sarif_) {
    scan::write_sarif(out, reports_, version_);
  } else {
    const bool colour = output_ == "-" && ::isatty(STDOUT_FILENO) == 1 && !::getenv("NO_COLOR");
    for (const scan::Report& r : reports_) scan::write_text(out, r, colour, summary_);
  }
  return file.finish();
}

std::string ScanCommand::write_page() {
  Output file{html_};
  scan::write_html([&](std::string_view text) { file.put(text); }, reports_, version_);
  return file.finish();
}

int ScanCommand::write() {
  if (const std::string why = write_report(); !why.empty()) {
    say(fmt::format("{}: {}: name a file that can be written",
                    output_ == "-" ? "standard output" : "--output " + output_, why));
    return static_cast<int>(output_ == "-" ? ExitCode::console_lost : ExitCode::bad_input);
  }
  if (html_.empty()) return 0;
  if (const std::string why = write_page(); !why.empty()) {
    say(fmt::format("--html {}: {}: name a file that can be written", html_, why));
    return static_cast<int>(ExitCode::bad_input);
  }
  return 0;
}

int ScanCommand::run() {
  if (const std::string wrong = check(); !wrong.empty()) {
    say(wrong);
    return static_cast<int>(ExitCode::usage);
  }
  bool all = true;
  for (const std::string& file : files_) all = scan(file) && all;
  const int written = reports_.empty() && !all ? 0 : write();
  return written ? written : all ? 0 : static_cast<int>(ExitCode::bad_input);
}

}  // namespace trapline::cli
