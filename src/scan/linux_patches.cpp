#include "scan/linux_patches.h"

#include <fmt/format.h>

#include <algorithm>

namespace trapline::scan {

namespace {

constexpr u16 kMostFeature = 32 * 32;
constexpr u8 kLongestPatch = 254;
constexpr unsigned kMostAtOnePlace = 64;  // more only in a file made to cost time

class Reader {
 public:
  Reader(Image& image, LinuxPatches& out) : image_{image}, out_{out} {}

  void read() {
    alternatives();
    paravirt();
    relative_sites(".retpoline_sites", PatchKind::retpoline, 4);
    relative_sites(".return_sites", PatchKind::return_thunk, 4);
    relative_sites(".smp_locks", PatchKind::smp_lock, 4);
    relative_sites(".static_call_sites", PatchKind::static_call, 8);
    jump_labels();
    exceptions();
    bugs();
    for (const PatchSite& s : out_.sites)
      if (s.kind != PatchKind::smp_lock) image_.roots.push_back({s.address, Because::patch_site});
  }

 private:
  // A 32-bit distance from the field itself.
  std::optional<u64> relative(const Section& s, u64 offset) const {
    const auto distance = load<i32>(s.bytes, offset);
    if (!distance) return std::nullopt;
    const u64 target = s.address + offset + static_cast<u64>(i64{*distance});
    return is64() ? target : static_cast<u32>(target);
  }

  bool is64() const { return image_.code_size == isa::CodeSize::bits64; }

  bool code(std::optional<u64> address, u64 size = 1) const {
    const Section* s = address ? image_.code_at(*address) : nullptr;
    return s && size <= s->end() - *address;
  }

  void senseless(const Section& s) {
    image_.warnings.push_back(fmt::format("{}: entries of no known layout: left out", s.name));
  }

  // s32 instruction, s32 replacement, then up to 5.x: u16 feature, u8 length, u8 replacement length, u8 padding;
  // to 6.2: without the padding; from 6.3: u32 flags and feature, u8 length, u8 replacement length.
  struct AltLayout {
    u64 size, lengths;
  };
  static constexpr AltLayout kAltLayouts[] = {{12, 10}, {14, 12}, {13, 10}};

  std::optional<std::pair<PatchSite, PatchSite>> alternative(const Section& s, u64 at, const AltLayout& layout) const {
    const auto site = relative(s, at), replacement = relative(s, at + 4);
    const u16 word = *load<u16>(s.bytes, at + 8);
    const u16 flags = layout.size == 14 ? *load<u16>(s.bytes, at + 10) : 0;
    const u8 length = s.bytes[at + layout.lengths], new_length = s.bytes[at + layout.lengths + 1];
    const u16 feature = layout.size == 14 ? word : word & 0x7fff;
    const bool inverted = layout.size == 14 ? flags & 1 : word >> 15;
    if (feature >= kMostFeature || length == 0 || length > kLongestPatch || new_length > length) return std::nullopt;
    if (!code(site, length) || (new_length && !code(replacement, new_length))) return std::nullopt;
    return std::pair{PatchSite{*site, length, PatchKind::alternative, feature, inverted, new_length ? *replacement : 0},
                     PatchSite{*replacement, new_length, PatchKind::replacement, feature, inverted, *site}};
  }

  bool alternatives_in(const Section& s, const AltLayout& layout) {
    if (s.bytes.size() % layout.size) return false;
    std::vector<PatchSite> found;
    for (u64 at = 0; at < s.bytes.size(); at += layout.size) {
      const auto pair = alternative(s, at, layout);
      if (!pair) return false;
      found.push_back(pair->first);
      if (pair->second.size) found.push_back(pair->second);
    }
    out_.entries[s.name] += s.bytes.size() / layout.size;
    out_.sites.insert(out_.sites.end(), found.begin(), found.end());
    return true;
  }

  void alternatives() {
    for (const Section& s : image_.sections) {
      if (s.name != ".altinstructions" || s.bytes.empty()) continue;
      if (std::none_of(std::begin(kAltLayouts), std::end(kAltLayouts),
                       [&](const AltLayout& l) { return alternatives_in(s, l); }))
        senseless(s);
    }
  }

  // struct paravirt_patch_site: pointer, u8 type, u8 length, padded to the pointer's size.
  void paravirt() {
    const Section* s = image_.section_named(".parainstructions");
    if (!s) return;
    const unsigned word = is64() ? 8 : 4;
    std::vector<PatchSite> found;
    for (u64 at = 0; at + word + 2 <= s->bytes.size(); at += word * 2) {
      const auto site = load_word(s->bytes, at, word);
      const u8 length = s->bytes[at + word + 1];
      if (length == 0 || length > kLongestPatch || !code(site, length)) return senseless(*s);
      found.push_back({*site, length, PatchKind::paravirt});
    }
    out_.entries[s->name] += found.size();
    out_.sites.insert(out_.sites.end(), found.begin(), found.end());
  }

  // Zeros in the relocated copy of a module's table are places outside of it; padding is zero as well.
  void relative_sites(const char* name, PatchKind kind, u64 step) {
    const Section* s = image_.section_named(name);
    if (!s) return;
    std::vector<PatchSite> found;
    for (u64 at = 0; at + step <= s->bytes.size(); at += step) {
      if (*load<u32>(s->bytes, at) == 0) continue;
      auto site = relative(*s, at);
      if (kind == PatchKind::static_call && site) site = *site & ~u64{3};  // flags in the low bits
      if (!code(site)) return senseless(*s);
      const u64 size = kind == PatchKind::smp_lock ? 1 : 5;
      found.push_back({*site, size, kind});
    }
    out_.entries[name] += found.size();
    out_.sites.insert(out_.sites.end(), found.begin(), found.end());
  }

  // struct jump_entry: s32 code, s32 target, long key; the NOP or jump is 2 or 5 bytes.
  void jump_labels() {
    const Section* s = image_.section_named("__jump_table");
    if (!s) return;
    const u64 step = is64() ? 16 : 12;
    std::vector<PatchSite> found;
    for (u64 at = 0; at + step <= s->bytes.size(); at += step) {
      const auto site = relative(*s, at), target = relative(*s, at + 4);
      if (!code(site) || !code(target)) return senseless(*s);
      found.push_back({*site, 2, PatchKind::jump_label, 0, false, *target});
      image_.roots.push_back({*target, Because::patch_site});
    }
    out_.entries[s->name] += found.size();
    out_.sites.insert(out_.sites.end(), found.begin(), found.end());
  }

  // struct exception_table_entry: s32 instruction, s32 fixup, s32 type or handler.
  void exceptions() {
    for (const Section& s : image_.sections) {
      if (s.name != "__ex_table") continue;
      std::vector<u64> faulting, fixups;
      for (u64 at = 0; at + 12 <= s.bytes.size(); at += 12) {
        const auto insn = relative(s, at), fixup = relative(s, at + 4);
        if (!code(insn) || !code(fixup)) return senseless(s);
        faulting.push_back(*insn);
        fixups.push_back(*fixup);
      }
      out_.entries[s.name] += faulting.size();
      for (const auto* places : {&faulting, &fixups})
        for (u64 a : *places) image_.roots.push_back({a, Because::exception_table});
      out_.faulting.insert(out_.faulting.end(), faulting.begin(), faulting.end());
    }
    std::sort(out_.faulting.begin(), out_.faulting.end());
  }

  // struct bug_entry (include/asm-generic/bug.h): s32 distance (64-bit) or address, [s32 format, from 6.19,] [s32 file,
  // u16 line,] u16 flags. Execution goes on behind a warning's UD2 or UD1.
  struct BugLayout {
    u64 step, flags_at;
    bool format;
  };

  // Where the entry at `at` says that the kernel traps. A warning with arguments names no trap: it passes the entry to
  // __WARN_trap. nullopt: the entry makes no sense.
  static constexpr u16 kArguments = 16;
  std::optional<std::optional<u64>> bug(const Section& s, const BugLayout& layout, u64 at) {
    const auto flags = load<u16>(s.bytes, at + layout.flags_at);
    const auto place = is64() ? relative(s, at) : load_word(s.bytes, at, 4);
    if (!flags || !code(place, 2)) return std::nullopt;
    if (layout.format && (*flags & kArguments)) return std::optional<u64>{};
    const Section& where = *image_.code_at(*place);
    const u64 offset = *place - where.address;
    const u8* bytes = where.bytes.data() + offset;
    const auto is_ud = [&](u64 n) {
      return offset + n + 2 <= where.bytes.size() && bytes[n] == 0x0f && (bytes[n + 1] == 0x0b || bytes[n + 1] == 0xb9);
    };
    if (is_ud(0) || (bytes[0] == 0x67 && (is_ud(1) || is_ud(2)))) return place;  // 67 [48] 0f b9
    return std::nullopt;
  }

  void bugs() {
    const Section* s = image_.section_named("__bug_table");
    if (!s) return;
    for (const BugLayout& layout : {BugLayout{12, 10, false}, BugLayout{6, 4, false}, BugLayout{8, 4, false},
                                    BugLayout{16, 14, true}, BugLayout{12, 8, true}}) {
      std::vector<u64> found;
      u64 at = 0;
      for (; at + layout.step <= s->bytes.size(); at += layout.step) {
        const auto entry = bug(*s, layout, at);
        if (!entry) break;
        if (*entry) found.push_back(**entry);
      }
      if (at == 0 || at + layout.step <= s->bytes.size()) continue;
      std::sort(found.begin(), found.end());
      out_.entries[s->name] += at / layout.step;
      out_.bugs = std::move(found);
      return;
    }
    senseless(*s);
  }

  Image& image_;
  LinuxPatches& out_;
};

struct FeatureName {
  u16 feature;
  const char* name;
};
constexpr u16 bit(u16 word, u16 n) { return static_cast<u16>(word * 32 + n); }
// Words 0, 1, 4, 6, 9, 16 and 18 of arch/x86/include/asm/cpufeatures.h are CPUID registers; of the others, what has not
// moved since it came.
constexpr FeatureName kFeatures[] = {
    {bit(0, 4), "TSC"},       {bit(0, 25), "XMM"},       {bit(0, 26), "XMM2"},         {bit(1, 26), "GBPAGES"},
    {bit(1, 27), "RDTSCP"},   {bit(3, 16), "REP_GOOD"},  {bit(3, 18), "LFENCE_RDTSC"}, {bit(3, 21), "ALWAYS"},
    {bit(4, 17), "PCID"},     {bit(4, 22), "MOVBE"},     {bit(4, 23), "POPCNT"},       {bit(4, 26), "XSAVE"},
    {bit(4, 30), "RDRAND"},   {bit(7, 12), "RETPOLINE"}, {bit(8, 15), "VMMCALL"},      {bit(8, 16), "XENPV"},
    {bit(8, 18), "VMCALL"},   {bit(9, 0), "FSGSBASE"},   {bit(9, 9), "ERMS"},          {bit(9, 10), "INVPCID"},
    {bit(9, 18), "RDSEED"},   {bit(9, 20), "SMAP"},      {bit(9, 23), "CLFLUSHOPT"},   {bit(9, 24), "CLWB"},
    {bit(10, 0), "XSAVEOPT"}, {bit(10, 1), "XSAVEC"},    {bit(10, 3), "XSAVES"},       {bit(16, 2), "UMIP"},
    {bit(16, 3), "PKU"},      {bit(16, 16), "LA57"},     {bit(16, 22), "RDPID"},       {bit(18, 4), "FSRM"},
    {bit(18, 20), "IBT"},
};

int rank(PatchKind kind) { return kind == PatchKind::alternative || kind == PatchKind::replacement ? 0 : 1; }

}  // namespace

const PatchSite* LinuxPatches::at(u64 address) const {
  auto after =
      std::upper_bound(sites.begin(), sites.end(), address, [](u64 a, const PatchSite& s) { return a < s.address; });
  const PatchSite* best = nullptr;
  unsigned looked = 0;
  while (after != sites.begin()) {
    --after;
    if (address - after->address > kLongestPatch || looked++ == kMostAtOnePlace) break;
    if (after->end() > address && (!best || rank(after->kind) < rank(best->kind))) best = &*after;
  }
  return best;
}

LinuxPatches read_linux_patches(Image& image) {
  LinuxPatches out;
  Reader{image, out}.read();
  std::stable_sort(out.sites.begin(), out.sites.end(),
                   [](const PatchSite& a, const PatchSite& b) { return a.address < b.address; });
  return out;
}

std::string_view feature_name(u16 feature) {
  for (const FeatureName& f : kFeatures)
    if (f.feature == feature) return f.name;
  return {};
}

const char* name_of(PatchKind kind) {
  switch (kind) {
    case PatchKind::alternative:
      return "alternative";
    case PatchKind::replacement:
      return "replacement";
    case PatchKind::paravirt:
      return "paravirt";
    case PatchKind::retpoline:
      return "retpoline";
    case PatchKind::return_thunk:
      return "return-thunk";
    case PatchKind::smp_lock:
      return "smp-lock";
    case PatchKind::static_call:
      return "static-call";
    case PatchKind::jump_label:
      return "jump-label";
  }
  return "";
}

std::string describe(const PatchSite& site) {
  const auto feature = [&] {
    const auto name = feature_name(site.feature);
    return fmt::format("{}X86_FEATURE {}*32+{}{}", site.inverted ? "not " : "", site.feature / 32, site.feature % 32,
                       name.empty() ? std::string{} : fmt::format(" ({})", name));
  };
  switch (site.kind) {
    case PatchKind::alternative:
      return fmt::format("alternative: replaced when {}", feature());
    case PatchKind::replacement:
      return fmt::format("alternative: put in place when {}", feature());
    case PatchKind::paravirt:
      return "paravirt: a call that is rewritten at boot";
    case PatchKind::retpoline:
      return "retpoline: may become a plain indirect branch";
    case PatchKind::return_thunk:
      return "return thunk: may become a plain RET";
    case PatchKind::smp_lock:
      return "LOCK prefix: taken out on one CPU";
    case PatchKind::static_call:
      return "static call: the target is written at run time";
    case PatchKind::jump_label:
      return "jump label: a NOP or a jump, at run time";
  }
  return {};
}

}  // namespace trapline::scan
