#include "fuzz/forms.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "fuzz/encode.h"

namespace trapline::fuzz {

namespace {

const ZydisDecoder& decoder() {
  static const ZydisDecoder d = [] {
    ZydisDecoder it;
    ZydisDecoderInit(&it, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return it;
  }();
  return d;
}

bool host_has(const std::string& extension) {
  __builtin_cpu_init();
  static const std::set<std::string> kNever{"AVX512ER", "AVX512PF", "AVX512_4FMAPS", "AVX512_4VNNIW"};  // Xeon Phi
  if (kNever.contains(extension)) return false;
  if (extension == "AVX512_VP2INTERSECT") return __builtin_cpu_supports("avx512vp2intersect");
  if (extension.starts_with("AVX512") || extension == "AVX_VNNI") return __builtin_cpu_supports("avx512f");
  if (extension == "AVX") return __builtin_cpu_supports("avx");
  if (extension.starts_with("AVX2") || extension == "FMA") return __builtin_cpu_supports("avx2");
  return true;
}

// Relative weights: general code first, then what has many instructions. What the host lacks or forbids is #UD or #GP
// on both sides; some of that is enough.
unsigned weight_of(const std::string& extension) {
  if (!host_has(extension)) return 1;
  static const std::map<std::string, unsigned> kWeights = {
      {"integer", 330}, {"X87", 120},     {"MMX", 50},         {"SSE", 45},      {"SSE2", 60}, {"SSE3", 12},
      {"SSSE3", 20},    {"SSE4", 40},     {"AVX", 60},         {"AVX2", 50},     {"FMA", 25},  {"AVX2 gather", 12},
      {"BMI1", 15},     {"BMI2", 20},     {"ADX", 8},          {"LZCNT", 6},     {"MOVBE", 6}, {"AVX512F", 60},
      {"AVX512BW", 30}, {"AVX512DQ", 20}, {"AVX512_FP16", 20}, {"privileged", 6}};
  const auto it = kWeights.find(extension);
  return it != kWeights.end() ? it->second : 8;
}

class Collector {
 public:
  void try_form(Form form) {
    Decoded d;
    if (!decodes(form, {}, d) && !decodes(form, gather(), d)) return;
    form.mnemonic = d.insn.mnemonic;
    const auto key =
        std::tuple(form.encoding, form.map, form.opcode, form.pp, form.w, form.l, form.memory(), form.mnemonic);
    if (!seen_.insert(key).second) return;
    found_[extension_of(d.insn)][form.mnemonic].push_back(form);
  }
  std::vector<Extension> take() {
    std::vector<Extension> out;
    for (auto& [name, mnemonics] : found_) {
      Extension e{name, weight_of(name), {}};
      for (auto& [mnemonic, forms] : mnemonics) e.by_mnemonic.push_back(std::move(forms));
      out.push_back(std::move(e));
    }
    return out;
  }

 private:
  // Gathers and scatters decode only with a vector index, in EVEX also only with a mask.
  static Choices gather() {
    Choices c;
    c.memory.has_index = true;
    c.memory.index = 7;
    c.vvvv = 6;
    c.mask = 1;
    return c;
  }
  static bool decodes(const Form& form, Choices choices, Decoded& d) {
    if (form.encoding != Encoding::evex)
      choices.mask = 0;
    else
      choices.vvvv = 0;
    Encoder encoder(form, choices);
    return decode(encoder.bytes(), 15, d) && admissible(d);
  }

  std::set<std::tuple<Encoding, u8, u8, u8, bool, u8, bool, ZydisMnemonic>> seen_;
  std::map<std::string, std::map<ZydisMnemonic, std::vector<Form>>> found_;
};

// ModRM bytes to try: in register forms the whole byte may be part of the opcode (x87, 0F 01), in memory forms the reg
// field.
void try_modrms(Collector& c, Form form, bool all_registers) {
  for (unsigned reg = 0; reg < 8; reg++) {
    form.modrm = static_cast<u8>(0x80 | reg << 3 | 3);
    c.try_form(form);
    for (unsigned rm = 0; rm < (all_registers ? 8u : 1u); rm++) {
      form.modrm = static_cast<u8>(0xc0 | reg << 3 | rm);
      c.try_form(form);
    }
  }
}

bool is_legacy_prefix(u8 opcode) {
  switch (opcode) {
    case 0x0f:
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
      return true;
    default:
      return opcode >> 4 == 4;  // REX
  }
}

void collect_legacy(Collector& c) {
  for (unsigned map = 0; map < 4; map++)
    for (unsigned opcode = 0; opcode < 256; opcode++) {
      if (map == 0 && (is_legacy_prefix(static_cast<u8>(opcode)) || opcode == 0xc4 || opcode == 0xc5 || opcode == 0x62))
        continue;
      for (unsigned variant = 0; variant < 8; variant++) {
        Form f;
        f.map = static_cast<u8>(map);
        f.opcode = static_cast<u8>(opcode);
        f.pp = variant & 3;
        f.w = variant & 4;
        try_modrms(c, f, map < 2);
      }
    }
}

void collect_vector(Collector& c, Encoding encoding, std::initializer_list<u8> maps, unsigned lengths) {
  for (const u8 map : maps)
    for (unsigned opcode = 0; opcode < 256; opcode++)
      for (unsigned variant = 0; variant < 8 * lengths; variant++) {
        Form f;
        f.encoding = encoding;
        f.map = map;
        f.opcode = static_cast<u8>(opcode);
        f.pp = variant & 3;
        f.w = variant & 4;
        f.l = static_cast<u8>(variant >> 3);
        try_modrms(c, f, false);
      }
}

}  // namespace

bool decode(const u8* bytes, std::size_t size, Decoded& out) {
  return ZYAN_SUCCESS(
      ZydisDecoderDecodeFull(&decoder(), bytes, std::min<std::size_t>(size, 15), &out.insn, out.operands.data()));
}

Forms::Forms() {
  Collector c;
  collect_legacy(c);
  collect_vector(c, Encoding::vex, {1, 2, 3}, 2);
  collect_vector(c, Encoding::evex, {1, 2, 3, 5, 6}, 3);
  extensions_ = c.take();
  for (const Extension& e : extensions_) total_weight_ += e.weight;
}

std::size_t Forms::draw_extension(Rng& rng) const {
  u64 at = rng.below(total_weight_);
  for (std::size_t i = 0;; i++) {
    if (at < extensions_[i].weight) return i;
    at -= extensions_[i].weight;
  }
}

const Form& Forms::draw(Rng& rng, std::size_t extension) const {
  const auto& mnemonics = extensions_[extension].by_mnemonic;
  const auto& forms = mnemonics[rng.below(mnemonics.size())];
  return forms[rng.below(forms.size())];
}

std::size_t Forms::form_count() const {
  std::size_t n = 0;
  for (const Extension& e : extensions_)
    for (const auto& forms : e.by_mnemonic) n += forms.size();
  return n;
}

}  // namespace trapline::fuzz
