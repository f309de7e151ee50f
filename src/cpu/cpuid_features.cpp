// Which feature bits the guest sees: the host's and the virtualized ones, then what --cpu-features asks for, then
// dependencies.
#include <cpuid.h>
#include <fmt/format.h>

#include <optional>

#include "cpu/cpuid.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

namespace {

enum class Source : u8 { host, soft, intel, amd, never };

struct Row {
  Feature id;
  std::string_view name;
  FeatureBit at;
  Source source;
  Feature needs;
};

constexpr Row kRows[] = {
#define FEATURE(id, name, word, bit, source, needs) \
  {Feature::id, name, {FeatureWord::word, bit}, Source::source, Feature::needs},
#include "cpu/cpuid_features.inc"
#undef FEATURE
};

struct WordPlace {
  u32 leaf, subleaf;
  u32 CpuidRegs::*reg;
};
constexpr WordPlace kPlaces[] = {
    {1, 0, &CpuidRegs::edx},          {1, 0, &CpuidRegs::ecx},          {6, 0, &CpuidRegs::eax},
    {7, 0, &CpuidRegs::ebx},          {7, 0, &CpuidRegs::ecx},          {7, 0, &CpuidRegs::edx},
    {7, 1, &CpuidRegs::eax},          {7, 2, &CpuidRegs::edx},          {0xd, 1, &CpuidRegs::eax},
    {0x80000001, 0, &CpuidRegs::ecx}, {0x80000001, 0, &CpuidRegs::edx}, {0x80000007, 0, &CpuidRegs::edx},
    {0x80000008, 0, &CpuidRegs::ebx}, {0x80000021, 0, &CpuidRegs::eax}, {0x80000021, 0, &CpuidRegs::ecx},
};
static_assert(std::size(kPlaces) == static_cast<u8>(FeatureWord::count));

using Words = std::array<u32, static_cast<u8>(FeatureWord::count)>;

bool get(const Words& words, FeatureBit f) { return words[static_cast<u8>(f.word)] >> f.bit & 1; }
void put(Words& words, FeatureBit f, bool on) {
  u32& w = words[static_cast<u8>(f.word)];
  w = on ? w | 1u << f.bit : w & ~(1u << f.bit);
}

const Row& row(Feature id) { return kRows[static_cast<u8>(id)]; }

const Row* find(std::string_view name) {
  if (name == "sse3") name = "pni";
  if (name == "lzcnt") name = "abm";
  for (const Row& r : kRows)
    if (r.name == name) return &r;
  return nullptr;
}

// The host's words; AVX and AVX-512 count only when its kernel has enabled their state.
Words host_words(const HostCpu& host) {
  Words words{};
  const u32 max_basic = host.cpuid(0, 0).eax, max_extended = host.cpuid(0x80000000, 0).eax;
  for (std::size_t i = 0; i < words.size(); i++) {
    const WordPlace& p = kPlaces[i];
    if (p.leaf > (p.leaf & 0x80000000 ? max_extended : max_basic)) continue;
    if (p.leaf == 7 && p.subleaf > host.cpuid(7, 0).eax) continue;
    words[i] = host.cpuid(p.leaf, p.subleaf).*p.reg;
  }
  if ((host.xcr0 & 6) != 6) put(words, row(Feature::avx).at, false);
  if ((host.xcr0 & 0xe6) != 0xe6) put(words, row(Feature::avx512f).at, false);
  return words;
}

bool available(const Row& r, const Words& host, bool intel) {
  switch (r.source) {
    case Source::host:
      return get(host, r.at);
    case Source::soft:
      return true;
    case Source::intel:
      return intel;
    case Source::amd:
      return !intel;
    default:
      return false;
  }
}

// Takes away what lost the feature it needs, until nothing more goes.
void drop_dependants(Words& words) {
  for (bool changed = true; changed;) {
    changed = false;
    for (const Row& r : kRows) {
      if (r.needs == Feature::none || !get(words, r.at) || get(words, row(r.needs).at)) continue;
      put(words, r.at, false);
      changed = true;
    }
  }
}

std::string why_unavailable(const Row& r) {
  switch (r.source) {
    case Source::host:
      return fmt::format("this host's CPU has no '{}'", r.name);
    case Source::intel:
      return fmt::format("'{}' belongs to Intel processors, and this host's is none", r.name);
    case Source::amd:
      return fmt::format("'{}' belongs to AMD processors, and this host's is none", r.name);
    default:
      return fmt::format("'{}' is not virtualized", r.name);
  }
}

}  // namespace

HostCpu HostCpu::real() {
  HostCpu host;
  host.cpuid = [](u32 leaf, u32 subleaf) {
    CpuidRegs r;
    __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
    return r;
  };
  if (host.cpuid(1, 0).ecx & 1u << 27) {  // OSXSAVE
    u32 low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    host.xcr0 = u64{high} << 32 | low;
  }
  alignas(16) u8 image[512] = {};
  asm volatile("fxsave64 %0" : "=m"(image));
  u32 mask;
  __builtin_memcpy(&mask, image + 28, 4);
  host.mxcsr_mask = mask ? mask : 0xffbf;  // SDM Vol. 1 11.6.6
  return host;
}

Result<void, std::string> Cpuid::choose_features(const HostCpu& host) {
  const Words offered_by_host = host_words(host);
  words_ = {};
  for (const Row& r : kRows) put(words_, r.at, available(r, offered_by_host, intel_));

  std::vector<const Row*> wanted;
  for (std::string_view rest = config_.features; !rest.empty();) {
    const std::size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
    if (item.size() < 2 || (item[0] != '+' && item[0] != '-'))
      return Err{fmt::format("'{}' is not of the form +feature or -feature", item)};
    const Row* r = find(item.substr(1));
    if (!r) return Err{fmt::format("unknown CPU feature '{}': use a flag's name as in /proc/cpuinfo", item.substr(1))};
    const bool on = item[0] == '+';
    if (on && !available(*r, offered_by_host, intel_)) return Err{why_unavailable(*r)};
    put(words_, r->at, on);
    std::erase(wanted, r);
    if (on) wanted.push_back(r);
  }
  drop_dependants(words_);
  for (const Row* r : wanted)
    if (!get(words_, r->at)) return Err{fmt::format("'{}' needs '{}', which is off", r->name, row(r->needs).name)};
  return {};
}

bool Cpuid::has(std::string_view feature) const {
  const Row* r = find(feature);
  return r && get(words_, r->at);
}

void Cpuid::derive_register_bits() {
  const auto bit = [this](Feature f, u64 value) { return has(f) ? value : 0; };
  cr4_allowed_ = cr4::tsd | cr4::pce | bit(Feature::de, cr4::de) | bit(Feature::pse, cr4::pse) |
                 bit(Feature::pae, cr4::pae) | bit(Feature::mce, cr4::mce) | bit(Feature::pge, cr4::pge) |
                 bit(Feature::fxsr, cr4::osfxsr) | bit(Feature::sse, cr4::osxmmexcpt) | bit(Feature::umip, cr4::umip) |
                 bit(Feature::fsgsbase, cr4::fsgsbase) | bit(Feature::pcid, cr4::pcide) |
                 bit(Feature::xsave, cr4::osxsave) | bit(Feature::smep, cr4::smep) | bit(Feature::smap, cr4::smap);
  efer_allowed_ = bit(Feature::syscall, efer::sce) | bit(Feature::lm, efer::lme | efer::lma) |
                  bit(Feature::nx, efer::nxe) | bit(Feature::fxsr_opt, efer::ffxsr) |
                  bit(Feature::autoibrs, efer::autoibrs);
  xcr0_allowed_ = 3 | bit(Feature::avx, 4) | bit(Feature::avx512f, 0xe0);
}

}  // namespace trapline::cpu
