#include "scan/jump_table.h"

#include <algorithm>

namespace trapline::scan {

namespace {

using isa::Insn;
using isa::Operand;
using Kind = Operand::Kind;

constexpr unsigned kLookBack = 24;
constexpr u64 kMostEntries = 4096;
constexpr u64 kMostUnbounded = 1024;

struct Placed {
  u64 address;
  Insn insn;
};

// The marked instructions that end right where the next begins, nearest first.
std::vector<Placed> before(CodeMap& map, isa::CodeSize size, u64 address) {
  std::vector<Placed> found;
  const CodeMap::Area* area = map.find(address);
  for (u64 at = address; found.size() < kLookBack;) {
    u64 start = at;
    do {
      if (start == area->section->address || at - start == 15) return found;
      start--;
    } while (!(area->mark(start) & CodeMap::start));
    Placed p{start, {}};
    const Bytes bytes = area->from(start);
    if (isa::decode(bytes.data(), bytes.size(), size, isa::Vendor::intel, p.insn) != isa::DecodeStatus::ok)
      return found;
    if (start + p.insn.length != at) return found;
    found.push_back(p);
    at = start;
  }
  return found;
}

struct Table {
  u64 address = 0;
  unsigned width = 8;     // of an entry
  bool relative = false;  // entries are distances from `from`
  u64 from = 0;
};

class Finder {
 public:
  Finder(const Image& image, CodeMap& map, u64 address, const std::set<u64>& data)
      : image_{image}, map_{map}, address_{address}, data_{data} {}

  std::optional<JumpTargets> find() {
    const CodeMap::Area* area = map_.find(address_);
    const Bytes bytes = area->from(address_);
    if (isa::decode(bytes.data(), bytes.size(), image_.code_size, isa::Vendor::intel, jump_) != isa::DecodeStatus::ok)
      return std::nullopt;
    before_ = before(map_, image_.code_size, address_);
    const auto table = find_table();
    return table ? read(*table) : std::nullopt;
  }

 private:
  // LEA's or MOV's operand: what the relocation says where there is one.
  u64 displaced(const Placed& p) const {
    const u64 next = p.address + p.insn.length;
    const auto at = std::lower_bound(image_.code_relocations.begin(), image_.code_relocations.end(), p.address,
                                     [](const CodeRelocation& r, u64 a) { return r.place < a; });
    if (at != image_.code_relocations.end() && at->place < next)
      return at->relative ? next + (at->value - at->place) : at->value;
    const auto disp = static_cast<u64>(p.insn.mem.disp);
    return p.insn.mem.base == isa::kRegRip ? next + disp : disp;
  }

  std::optional<Table> absolute(const Placed& p) const {
    const isa::MemOperand& m = p.insn.mem;
    const unsigned width = image_.code_size == isa::CodeSize::bits64 ? 8 : 4;
    if (m.base != isa::kNoReg || m.index == isa::kNoReg || m.vsib || 1u << m.scale_log2 != width) return std::nullopt;
    return Table{displaced(p), width, false, 0};
  }

  std::optional<Table> find_table() const {
    if (jump_.op[0].kind == Kind::mem) return absolute({address_, jump_});
    if (jump_.op[0].kind != Kind::gpr) return std::nullopt;
    const Insn* load = nullptr;  // MOVSXD reg, [base + index * 4]
    for (const Placed& p : before_) {
      const Insn& i = p.insn;
      const bool to_reg = i.operand_count >= 2 && i.op[0].kind == Kind::gpr;
      if (!to_reg) continue;
      if (i.mnemonic == ZYDIS_MNEMONIC_MOV && i.op[1].kind == Kind::mem && i.op[0].reg == jump_.op[0].reg && !load)
        return absolute(p);
      if (i.mnemonic == ZYDIS_MNEMONIC_MOVSXD && i.op[1].kind == Kind::mem && i.mem.scale_log2 == 2 && !load) load = &i;
      const bool lea = i.mnemonic == ZYDIS_MNEMONIC_LEA && i.mem.base == isa::kRegRip;
      if (lea && load && i.op[0].reg == load->mem.base) return Table{displaced(p), 4, true, displaced(p)};
      // The LEA may stand between the load and the addition.
      if (lea && !load) {
        for (const Placed& q : before_)
          if (q.address < p.address && q.insn.mnemonic == ZYDIS_MNEMONIC_MOVSXD && q.insn.mem.scale_log2 == 2 &&
              q.insn.mem.base == i.op[0].reg)
            return Table{displaced(p), 4, true, displaced(p)};
      }
    }
    return std::nullopt;
  }

  // CMP x, n with a branch for what is above, or AND x, 2^k - 1.
  std::optional<u64> bound() const {
    bool above = false;
    for (const Placed& p : before_) {
      const Insn& i = p.insn;
      if (i.mnemonic == ZYDIS_MNEMONIC_JNBE || i.mnemonic == ZYDIS_MNEMONIC_JBE) above = true;
      if (i.operand_count < 2 || i.op[1].kind != Kind::imm) continue;
      if (above && i.mnemonic == ZYDIS_MNEMONIC_CMP && i.imm < kMostEntries) return i.imm + 1;
      if (!above && i.mnemonic == ZYDIS_MNEMONIC_AND && i.imm < kMostEntries && (i.imm & (i.imm + 1)) == 0)
        return i.imm + 1;
    }
    return std::nullopt;
  }

  std::optional<u64> entry(const Table& t, u64 index) const {
    const u64 place = t.address + index * t.width;
    const Section* s = image_.section_of(place);
    if (!s) return std::nullopt;
    if (t.relative) {
      const auto distance = load<i32>(s->bytes, place - s->address);
      if (!distance) return std::nullopt;
      return t.from + static_cast<u64>(i64{*distance});
    }
    return load_word(s->bytes, place - s->address, t.width);
  }

  std::pair<u64, u64> function() const {
    const auto after = std::upper_bound(image_.symbols.begin(), image_.symbols.end(), address_,
                                        [](u64 a, const Symbol& s) { return a < s.address; });
    if (after == image_.symbols.begin()) return {0, 0};
    const Symbol& s = *std::prev(after);
    return {s.address, s.size};
  }

  std::optional<JumpTargets> read(const Table& t) const {
    const auto count = bound();
    const Section* code = image_.code_at(address_);
    const auto [start, size] = function();
    JumpTargets found;
    found.bounded = count.has_value();
    const auto other = data_.upper_bound(t.address);
    u64 most = kMostUnbounded;
    if (other != data_.end()) most = std::min(most, (*other - t.address) / t.width);
    for (u64 i = 0; i < count.value_or(most); i++) {
      const auto target = entry(t, i);
      const bool good = target && (count ? code->holds(*target) : *target - start < size);
      if (!good && count) return std::nullopt;
      if (!good) break;
      found.addresses.push_back(*target);
    }
    if (found.addresses.empty()) return std::nullopt;
    return found;
  }

  const Image& image_;
  CodeMap& map_;
  u64 address_;
  const std::set<u64>& data_;
  Insn jump_{};
  std::vector<Placed> before_;
};

}  // namespace

std::optional<JumpTargets> jump_targets(const Image& image, CodeMap& map, u64 address, const std::set<u64>& data) {
  return Finder{image, map, address, data}.find();
}

}  // namespace trapline::scan
