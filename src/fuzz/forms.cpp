#include "fuzz/forms.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "fuzz/encode.h"
#include "isa/prefixes.h"

namespace trapline::fuzz {

namespace {

using isa::CodeSize;

// Code of 16 and 32 bits runs in compatibility mode, on a 32-bit stack.
const ZydisDecoder& decoder(CodeSize size) {
  static const auto make = [](ZydisMachineMode mode, ZydisStackWidth width) {
    ZydisDecoder it;
    ZydisDecoderInit(&it, mode, width);
    return it;
  };
  static const ZydisDecoder d64 = make(ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  static const ZydisDecoder d32 = make(ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
  static const ZydisDecoder d16 = make(ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
  return size == CodeSize::bits64 ? d64 : size == CodeSize::bits32 ? d32 : d16;
}

// Relative weights: general code first, then what has many instructions. What the host lacks or forbids is #UD or #GP
// on both sides; some of that is enough.
unsigned weight_of(const std::string& extension, bool executed) {
  if (!executed) return 1;
  static const std::map<std::string, unsigned> kWeights = {
      {"integer", 330}, {"X87", 120},     {"MMX", 50},         {"SSE", 45},       {"SSE2", 60}, {"SSE3", 12},
      {"SSSE3", 20},    {"SSE4", 40},     {"AVX", 60},         {"AVX2", 50},      {"FMA", 25},  {"AVX2 gather", 12},
      {"BMI1", 15},     {"BMI2", 20},     {"ADX", 8},          {"LZCNT", 6},      {"MOVBE", 6}, {"AVX512F", 60},
      {"AVX512BW", 30}, {"AVX512DQ", 20}, {"AVX512_FP16", 20}, {"privileged", 6}, {"XSAVE", 12}};
  const auto it = kWeights.find(extension);
  return it != kWeights.end() ? it->second : 8;
}

class Collector {
 public:
  explicit Collector(CodeSize size) : size_{size} {}
  CodeSize size() const { return size_; }
  void try_form(Form form) {
    Decoded d;
    if (!decodes(form, plain(), d) && !decodes(form, gather(), d)) return;
    form.mnemonic = d.insn.mnemonic;
    const auto key =
        std::tuple(form.encoding, form.map, form.opcode, form.pp, form.w, form.l, form.memory(), form.mnemonic);
    if (!seen_.insert(key).second) return;
    const std::string extension = extension_of(d.insn);
    found_[extension][form.mnemonic].push_back(form);
    if (host_executes(d.insn)) executed_.insert(extension);
  }
  std::vector<Extension> take() {
    std::vector<Extension> out;
    for (auto& [name, mnemonics] : found_) {
      Extension e{name, weight_of(name, executed_.contains(name)), {}};
      for (auto& [mnemonic, forms] : mnemonics) e.by_mnemonic.push_back(std::move(forms));
      out.push_back(std::move(e));
    }
    return out;
  }

 private:
  // Gathers and scatters decode only with a vector index, in EVEX also only with a mask.
  Choices gather() const {
    Choices c = plain();
    c.memory.has_index = true;
    c.memory.index = 7;
    c.vvvv = 6;
    c.mask = 1;
    return c;
  }
  // Operands of 16-bit code are addressed by 32 bits here.
  Choices plain() const {
    Choices c;
    c.address_prefix = size_ == CodeSize::bits16;
    return c;
  }
  bool decodes(const Form& form, Choices choices, Decoded& d) const {
    if (form.encoding != Encoding::evex)
      choices.mask = 0;
    else
      choices.vvvv = 0;
    Encoder encoder(form, choices, size_);
    return decode(encoder.bytes(), 15, d, size_) && admissible(d);
  }

  CodeSize size_;
  std::set<std::tuple<Encoding, u8, u8, u8, bool, u8, bool, ZydisMnemonic>> seen_;
  std::map<std::string, std::map<ZydisMnemonic, std::vector<Form>>> found_;
  std::set<std::string> executed_;  // extensions of which the host has something
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

void collect_legacy(Collector& c) {
  for (unsigned map = 0; map < 4; map++)
    for (unsigned opcode = 0; opcode < 256; opcode++) {
      if (map == 0 && (opcode == 0x0f || isa::is_prefix(static_cast<u8>(opcode), c.size()))) continue;
      if (map == 0 && (opcode == 0xc4 || opcode == 0xc5)) continue;              // VEX, or LES and LDS
      if (map == 0 && opcode == 0x62 && c.size() == CodeSize::bits64) continue;  // EVEX; elsewhere BOUND, too
      for (unsigned variant = 0; variant < (c.size() == CodeSize::bits64 ? 8u : 4u); variant++) {
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

bool decode(const u8* bytes, std::size_t size, Decoded& out, CodeSize code) {
  return ZYAN_SUCCESS(
      ZydisDecoderDecodeFull(&decoder(code), bytes, std::min<std::size_t>(size, 15), &out.insn, out.operands.data()));
}

Forms::Forms(CodeSize size) : size_{size} {
  Collector c{size};
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
