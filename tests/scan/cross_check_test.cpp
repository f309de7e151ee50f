// Instruction boundaries and findings against `objdump -d`, a linear sweep by other people's decoder. At least 99.9% of
// the bytes claimed as code must agree, and every difference must fall into a category that says who is right and why.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>

#include "scan/input.h"
#include "scan/open.h"
#include "scan/scan.h"

namespace trapline::scan {
namespace {

namespace fs = std::filesystem;

struct Line {
  u64 address;
  std::string text;  // without bytes
};

std::vector<Line> objdump(const std::string& path) {
  std::vector<Line> lines;
  std::FILE* p =
      ::popen(fmt::format("objdump -d -z -w --no-show-raw-insn -M intel '{}' 2>/dev/null", path).c_str(), "r");
  if (!p) return lines;
  char buffer[1024];
  while (std::fgets(buffer, sizeof buffer, p)) {
    char* end = nullptr;
    const u64 address = std::strtoull(buffer, &end, 16);
    if (end == buffer || end[0] != ':' || end[1] != '\t') continue;
    std::string text{end + 1};
    text.erase(0, text.find_first_not_of(" \t"));
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    lines.push_back({address, std::move(text)});
  }
  ::pclose(p);
  std::sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) { return a.address < b.address; });
  return lines;
}

bool prefix_word(std::string_view w) {
  for (std::string_view p :
       {"lock", "rep", "repz", "repnz", "repe", "repne", "data16",  "addr32", "addr16",   "data32",
        "cs",   "ds",  "es",   "ss",    "fs",   "gs",    "notrack", "bnd",    "xacquire", "xrelease"})
    if (w == p) return true;
  return w.starts_with("rex") || w.starts_with("{");
}

// The mnemonic behind prefixes; empty if there are prefixes only.
std::string mnemonic(const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!prefix_word(word)) return word;
    at = text.find_first_not_of(' ', end);
    if (at == std::string::npos) break;
  }
  return {};
}

struct Result {
  u64 claimed = 0, agreed = 0;
  std::map<std::string, u64> differences;  // bytes by category
  std::vector<std::string> unexplained;
  u64 findings = 0;
  std::vector<std::string> wrong_findings;
};

class Comparison {
 public:
  Comparison(Image& image, Scan& scan, const std::vector<Line>& lines) : image_{image}, scan_{scan}, lines_{lines} {}

  Result run() {
    for (const CodeMap::Area& area : scan_.map.areas()) compare(area);
    compare_findings();
    return std::move(result_);
  }

 private:
  const Line* at(u64 address) const {
    const auto it =
        std::lower_bound(lines_.begin(), lines_.end(), address, [](const Line& l, u64 a) { return l.address < a; });
    return it != lines_.end() && it->address == address ? &*it : nullptr;
  }

  u64 end_of(const Line* l, const CodeMap::Area& area) const {
    const Line* next = l + 1;
    const u64 end = area.section->end();
    return next < lines_.data() + lines_.size() && next->address < end ? next->address : end;
  }

  std::string category(const CodeMap::Area& area, u64 address, u64 length) const {
    const u64 offset = address - area.section->address;
    for (u64 i = offset; i <= offset + length && i < area.marks.size(); i++)
      if (area.marks[i] & CodeMap::overlaps) return "overlapping instructions: something leads into the middle of one";
    const Line* l = at(address);
    if (!l) {
      const auto it =
          std::lower_bound(lines_.begin(), lines_.end(), address, [](const Line& x, u64 a) { return x.address < a; });
      if (it == lines_.begin()) return {};
      const Line& before = *std::prev(it);
      if (before.address < area.section->address) return {};
      const u64 from = before.address - area.section->address;
      if (area.section->bytes[from] == 0x9b) return "FWAIT shown with the x87 instruction behind it";
      if (!(area.marks[from] & CodeMap::start)) return "objdump out of step: it began in padding or data";
      return {};
    }
    if (l->text.find("(bad)") != std::string::npos) return "objdump knows no such instruction";
    if (mnemonic(l->text).empty()) return "objdump shows a prefix alone";
    if (area.section->bytes[offset] == 0x9b) return "FWAIT shown with the x87 instruction behind it";
    return {};
  }

  void compare(const CodeMap::Area& area) {
    const u64 size = area.marks.size(), base = area.section->address;
    for (u64 i = 0; i < size;) {
      if (!(area.marks[i] & CodeMap::start)) {
        i++;
        continue;
      }
      u64 end = i + 1;
      while (end < size && (area.marks[end] & CodeMap::inside) && !(area.marks[end] & CodeMap::start)) end++;
      const u64 length = end - i;
      result_.claimed += length;
      const Line* l = at(base + i);
      if (l && end_of(l, area) == base + end && l->text.find("(bad)") == std::string::npos) {
        result_.agreed += length;
      } else {
        const std::string why = category(area, base + i, length);
        result_.differences[why.empty() ? "unexplained" : why] += length;
        if (why.empty())
          result_.unexplained.push_back(fmt::format("{:#x} +{} {}", base + i, length, l ? l->text : "-"));
      }
      i = end;
    }
  }

  // The names differ by width suffixes and a few habits.
  static std::string plain(std::string m) {
    static const std::map<std::string, std::string> kAliases = {
        {"retf", "ret"},        {"lret", "ret"},          {"vmgexit", "vmmcall"},
        {"retfq", "ret"},       {"iretq", "iret"},        {"iretd", "iret"},
        {"iretw", "iret"},      {"popfq", "popf"},        {"popfd", "popf"},
        {"popfw", "popf"},      {"pushfq", "pushf"},      {"pushfd", "pushf"},
        {"pushfw", "pushf"},    {"insb", "ins"},          {"insw", "ins"},
        {"insd", "ins"},        {"outsb", "outs"},        {"outsw", "outs"},
        {"outsd", "outs"},      {"sysretq", "sysret"},    {"sysretl", "sysret"},
        {"sysretd", "sysret"},  {"sysexitq", "sysexit"},  {"sysexitl", "sysexit"},
        {"movabs", "mov"},      {"call far", "call"},     {"ud2a", "ud2"},
        {"ud1d", "ud1"},        {"xsave64", "xsave"},     {"xrstor64", "xrstor"},
        {"xsaves64", "xsaves"}, {"xrstors64", "xrstors"}, {"xsaveopt64", "xsaveopt"},
        {"xsavec64", "xsavec"}, {"fxsave64", "fxsave"},   {"fxrstor64", "fxrstor"},
        {"icebp", "int1"},      {"xabort", "xabort"},     {"fwait", "fwait"}};
    const auto it = kAliases.find(m);
    return it == kAliases.end() ? m : it->second;
  }

  void compare_findings() {
    std::set<std::string> always;  // mnemonics whose every form has a row
    for (const char* m :
         {"popf",   "pushf",  "cli",     "sti",      "hlt",      "sgdt",     "sidt",     "sldt",   "str",    "smsw",
          "lgdt",   "lidt",   "lldt",    "ltr",      "clts",     "rdmsr",    "wrmsr",    "rdtsc",  "rdtscp", "rdpmc",
          "cpuid",  "in",     "out",     "ins",      "outs",     "iret",     "sysret",   "swapgs", "wbinvd", "invlpg",
          "xsetbv", "xgetbv", "syscall", "stac",     "clac",     "lsl",      "lar",      "verr",   "verw",   "rdpkru",
          "wrpkru", "vmcall", "vmmcall", "rdfsbase", "wrfsbase", "rdgsbase", "wrgsbase", "invpcid"})
      always.insert(m);
    std::size_t next = 0;
    for (const Line& l : lines_) {
      while (next < scan_.findings.size() && scan_.findings[next].address < l.address) next++;
      const bool found = next < scan_.findings.size() && scan_.findings[next].address == l.address;
      const std::string name = plain(mnemonic(l.text));
      if (found) check(scan_.findings[next], name, l);
      if (!found && always.contains(name) && scan_.map.is_start(l.address))
        result_.wrong_findings.push_back(fmt::format("{:#x} {}: not found", l.address, l.text));
    }
  }

  void check(const Finding& f, const std::string& name, const Line& l) {
    result_.findings++;
    for (ZydisMnemonic m : isa::row(f.row).mnemonics)
      if (m != ZYDIS_MNEMONIC_INVALID && plain(ZydisMnemonicGetString(m)) == name) return;
    if (name.empty() || name == "(bad)") return;  // a boundary's difference, counted there
    result_.wrong_findings.push_back(fmt::format("{:#x} {}: {}", l.address, l.text, isa::slug(f.row)));
  }

  Image& image_;
  Scan& scan_;
  const std::vector<Line>& lines_;
  Result result_;
};

void cross_check(const std::string& path) {
  const Limits limits;
  auto bytes = read_file(path, limits);
  ASSERT_TRUE(bytes) << bytes.error();
  auto images = open_images(path, std::move(*bytes), std::nullopt, limits);
  ASSERT_TRUE(images) << images.error();
  Image& image = images->front();
  std::string elf = path;
  if (image.packed) {
    elf = (fs::temp_directory_path() / fmt::format("trapline-vmlinux-{}", ::getpid())).string();
    std::FILE* out = std::fopen(elf.c_str(), "wb");
    ASSERT_TRUE(out);
    ASSERT_EQ(std::fwrite(image.storage->data(), 1, image.storage->size(), out), image.storage->size());
    std::fclose(out);
  }
  const auto lines = objdump(elf);
  if (elf != path) fs::remove(elf);
  ASSERT_GT(lines.size(), 1000u) << "objdump printed nothing: install binutils";
  Scan scan = scan_image(image, limits, {});
  const Result r = Comparison{image, scan, lines}.run();
  fmt::print("{}: {} bytes claimed as code, {} agree with objdump: {:.4f}%\n", path, r.claimed, r.agreed,
             100.0 * static_cast<double>(r.agreed) / static_cast<double>(r.claimed));
  for (const auto& [why, n] : r.differences) fmt::print("  {} bytes: {}\n", n, why);
  fmt::print("  {} findings are named alike\n", r.findings);
  EXPECT_GE(static_cast<double>(r.agreed), 0.999 * static_cast<double>(r.claimed));
  for (const std::string& u : r.unexplained) ADD_FAILURE() << "unexplained: " << u;
  for (const std::string& w : r.wrong_findings) ADD_FAILURE() << "finding: " << w;
  EXPECT_GT(r.findings, 10u);
}

TEST(CrossCheck, Libc) {
  const std::string path = "/lib/x86_64-linux-gnu/libc.so.6";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is not there";
  cross_check(path);
}

TEST(CrossCheck, CloudKernel) {
  const std::string path = GUEST_CACHE "/kernels/cloud-amd64/vmlinuz";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is not there: scripts/guest-kernel.sh cloud-amd64";
  cross_check(path);
}

}  // namespace
}  // namespace trapline::scan
