#include "fuzz/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "cpu/vcpu.h"
#include "fuzz/encode.h"

namespace trapline::fuzz {

namespace {

using isa::CodeSize;

constexpr u8 kGeneral[] = {0, 1, 2, 8, 9, 10, 11};  // registers free to be written

unsigned gpr_number(ZydisRegister reg) {
  const ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
  return ZydisRegisterGetClass(full) == ZYDIS_REGCLASS_GPR64 ? static_cast<unsigned>(ZydisRegisterGetId(full)) : 16;
}

// Would it destroy a pointer, by a visible operand? The memory operands after it would then fault.
bool destroys_pointer(const Decoded& d) {
  for (unsigned i = 0; i < d.insn.operand_count; i++) {
    const ZydisDecodedOperand& op = d.operands[i];
    if (op.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN || op.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    if (!(op.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) continue;
    const unsigned gpr = gpr_number(op.reg.value);
    if (gpr < 16 && (is_pointer(gpr) || gpr == 4 || gpr == kSmallIndex)) return true;
  }
  return false;
}

const ZydisDecodedOperand* memory_operand(const Decoded& d) {
  for (unsigned i = 0; i < d.insn.operand_count; i++)
    if (d.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
        d.operands[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
      return &d.operands[i];
  return nullptr;
}

bool locked(const Decoded& d) {
  return (d.insn.attributes & ZYDIS_ATTRIB_HAS_LOCK) || (d.insn.mnemonic == ZYDIS_MNEMONIC_XCHG && memory_operand(d));
}

// Where a memory operand of `size` bytes should lie: mostly in the window; sometimes across its end, on the read-only
// page, nowhere.
constexpr u64 kLargestXsave = 2752;

u64 aim(Rng& rng, u64 size, bool atomic, bool aligned) {
  size = size ? size : 1;
  // Which parts of an XSAVE area are touched is the processor's business: it has all its pages or none.
  if (size == kLargestXsave) {
    const u64 choice = rng.below(100);
    if (choice < 75) return place::xsave;
    if (choice < 95) return place::data + (rng.below(place::data_size - size) & ~u64{63});
    return choice < 98 ? place::read_only : rng.next();
  }
  const u64 room = place::data_size > size ? place::data_size - size : 1;
  const u64 inside = place::data + rng.below(room);
  // An atomic access across a cache line is the host's business: it may trap there (split-lock detection).
  if (atomic) return inside & ~u64{63};
  const u64 kind = rng.below(1000);
  if (kind < (aligned ? 950u : 700u)) return inside & ~u64{63};
  if (kind < 960) return inside;
  if (kind < 970) return place::data + place::data_size - rng.below(size + 1);
  if (kind < 977) return place::data - 1 - rng.below(size);
  if (kind < 987) return place::data + kPageSize - rng.below(size + 1);
  if (kind < 997) return place::read_only + (rng.below(kPageSize - 64) & ~u64{15});
  return rng.next();
}

class Generator {
 public:
  Generator(const Forms& forms, Rng& rng, const Registers& start) : forms_{forms}, rng_{rng}, start_{start} {}

  bool wide() const { return forms_.size() == CodeSize::bits64; }
  bool item(std::size_t extension, Item& out) {
    for (unsigned attempt = 0; attempt < 24; attempt++) {
      const Form& form = forms_.draw(rng_, extension);
      if (try_form(form, extension, out)) return true;
    }
    return false;
  }

 private:
  u8 general() {
    if (!wide()) return static_cast<u8>(rng_.percent(88) ? rng_.below(3) : rng_.below(8));
    return rng_.percent(88) ? rng_.pick(kGeneral) : static_cast<u8>(rng_.below(16));
  }

  Choices choose(const Form& f) {
    Choices c;
    const bool vector = f.encoding != Encoding::legacy;
    const unsigned registers = !wide() ? 8 : f.encoding == Encoding::evex ? 32 : 16;
    c.keep_modrm_reg = rng_.percent(20);
    c.keep_modrm_rm = rng_.percent(20);
    c.reg = vector && rng_.percent(70) ? static_cast<u8>(rng_.below(registers)) : general();
    c.rm = vector && rng_.percent(70) ? static_cast<u8>(rng_.below(registers)) : general();
    c.vvvv = rng_.percent(50) ? 0 : static_cast<u8>(rng_.below(registers));
    c.rex = rng_.percent(10) && wide();
    c.short_vex = rng_.percent(50);
    // 16-bit addresses reach nothing that is mapped.
    c.address_prefix = rng_.percent(3) != (forms_.size() == CodeSize::bits16);
    if (rng_.percent(7)) c.segment = rng_.percent(60) ? 0x65 : any_of({0x26, 0x2e, 0x36, 0x3e});
    if (f.encoding == Encoding::legacy && f.memory() && rng_.percent(8)) c.lock = true;
    if (f.encoding == Encoding::evex) {
      c.mask = rng_.percent(40) ? 0 : static_cast<u8>(1 + rng_.below(7));
      c.zeroing = rng_.percent(30);
      c.broadcast = rng_.percent(20);
    }
    choose_memory(c);
    return c;
  }
  u8 any_of(std::initializer_list<u8> items) { return std::data(items)[rng_.below(items.size())]; }

  void choose_memory(Choices& c) {
    using Kind = MemoryForm::Kind;
    MemoryForm& m = c.memory;
    const u64 kind = rng_.below(100);
    m.kind = kind < 62   ? Kind::base_disp32
             : kind < 77 ? Kind::base_disp8
             : kind < 85 ? Kind::base_only
             : kind < 94 ? Kind::rip
                         : Kind::absolute;
    m.base = wide() ? rng_.pick(kPointers) : any_of({3, 5, 6, 7});
    m.has_index = rng_.percent(40);
    m.index = rng_.percent(95) ? (wide() ? kSmallIndex : u8{1}) : static_cast<u8>(rng_.below(wide() ? 16 : 8));
    m.scale = static_cast<u8>(rng_.below(4));
    if (gather_) {
      m.has_index = true;
      if (m.kind == Kind::rip) m.kind = Kind::base_disp32;
      m.index = !wide() ? u8{7} : evex_ ? any_of({7, 15, 23, 31}) : any_of({7, 15});
      c.mask = evex_ ? static_cast<u8>(1 + rng_.below(7)) : 0;
      if (evex_) c.vvvv = 0;
    }
  }

  bool try_form(const Form& form, std::size_t extension, Item& out) {
    const char* name = ZydisMnemonicGetString(form.mnemonic);
    gather_ = std::strstr(name, "gather") || std::strstr(name, "scatter");
    evex_ = form.encoding == Encoding::evex;
    Choices choices = choose(form);
    if (saves_state(form.mnemonic)) {  // by no register: its place is certain
      choices.memory.kind = wide() && rng_.percent(50) ? MemoryForm::Kind::rip : MemoryForm::Kind::absolute;
      choices.memory.has_index = false;
    }
    Encoder encoder(form, choices, forms_.size());
    for (std::size_t i = encoder.size(); i < encoder.size() + 9; i++) encoder.bytes()[i] = static_cast<u8>(rng_.next());
    Decoded d;
    if (!decode(encoder.bytes(), 15, d, forms_.size()) || !admissible(d) || d.insn.mnemonic != form.mnemonic)
      return false;
    if (destroys_pointer(d) && !rng_.percent(4)) return false;
    out = Item{};
    out.length = d.insn.length;
    std::memcpy(out.bytes.data(), encoder.bytes(), d.insn.length);
    out.extension = extension;
    return fix(d, out);
  }

  // Immediates and displacements that must not be any number: branch targets, addresses.
  bool fix(const Decoded& d, Item& out) {
    if (d.insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE && d.insn.raw.imm[0].is_relative) {
      if (wide() && d.insn.raw.imm[0].size == 16) return false;  // 66: vendors differ
      out.fix = Item::Fix::branch;
      out.fix_offset = d.insn.raw.imm[0].offset;
      out.fix_bytes = static_cast<u8>(d.insn.raw.imm[0].size / 8);
      return true;
    }
    if (d.insn.mnemonic == ZYDIS_MNEMONIC_ENTER && rng_.percent(90)) {  // a frame that fits the stack
      u8* imm = out.bytes.data() + d.insn.raw.imm[0].offset;
      imm[0] &= 0x7f;
      imm[1] = 0;
      imm[2] &= 7;
    }
    const ZydisDecodedOperand* m = memory_operand(d);
    return !m || aim_operand(d, *m, out);
  }

  u64 value_of(ZydisRegister reg) const {
    const unsigned n = gpr_number(reg);
    return n < 16 ? start_.gpr[n] : 0;
  }

  bool aim_operand(const Decoded& d, const ZydisDecodedOperand& m, Item& out) {
    const bool atomic = locked(d);
    const bool aligned =
        d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && m.size >= 128;  // most of SSE: else #GP
    const u64 size = saves_state(d.insn.mnemonic) ? kLargestXsave : m.size / 8;
    const u64 target = aim(rng_, size, atomic, aligned) - (m.mem.segment == ZYDIS_REGISTER_GS ? place::gs_base : 0);
    const unsigned disp_bits = d.insn.raw.disp.size;
    if (m.mem.base == ZYDIS_REGISTER_RIP || m.mem.base == ZYDIS_REGISTER_EIP) {
      out.fix = Item::Fix::rip;
      out.fix_offset = d.insn.raw.disp.offset;
      out.fix_bytes = 4;
      out.target = target;
      return true;
    }
    if (disp_bits < 32) return !atomic;  // as the registers and disp8 have it; its alignment is unknown
    const bool vector_index = m.mem.index != ZYDIS_REGISTER_NONE && gpr_number(m.mem.index) == 16;
    const u64 index = vector_index ? 0 : value_of(m.mem.index) * m.mem.scale;
    const u64 disp = target - value_of(m.mem.base) - index;
    std::memcpy(out.bytes.data() + d.insn.raw.disp.offset, &disp, disp_bits / 8);
    return true;
  }

  const Forms& forms_;
  Rng& rng_;
  const Registers& start_;
  bool gather_ = false, evex_ = false;
};

// VMCALL and VMMCALL with prefixes that make them undefined (SDM Vol. 2D VMCALL: NP): a hypervisor below the host may
// see them all the same, and answers as it likes.
bool calls_hypervisor(const Item& item) {
  for (unsigned i = 0; i + 2 < item.length; i++)
    if (item.bytes[i] == 0x0f && item.bytes[i + 1] == 0x01 && (item.bytes[i + 2] == 0xc1 || item.bytes[i + 2] == 0xd9))
      return true;
  return false;
}

// LOCK with MOV to and from CR0 is MOV CR8 where CPUID has AltMovCr8 (8000_0001 ECX[4], APM Vol. 3 MOV CRn), which no
// guest is offered: #GP in ring 3 on the host, #UD in the engine.
bool alternative_cr8(const Item& item) {
  bool lock = false;
  for (unsigned i = 0; i + 1 < item.length; i++) {
    lock |= item.bytes[i] == 0xf0;
    if (lock && item.bytes[i] == 0x0f && (item.bytes[i + 1] == 0x20 || item.bytes[i + 1] == 0x22)) return true;
  }
  return false;
}

// Does this bit of a vector prefix mean nothing to some processors where the decoder requires it clear? Both manuals
// reserve EVEX.b without memory or rounding, EVEX.z without a mask and opmask numbers beyond 7; Intel's processors
// raise #UD, AMD's ignore the bit.
bool reserved_bit(const Decoded& d, unsigned byte, unsigned bit) {
  const auto& raw = d.insn.raw;
  const bool evex = d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
  if (!evex && d.insn.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX) return false;
  const unsigned at = byte - (evex ? raw.evex.offset : raw.vex.offset);
  if (at < 1 || at > 3) return false;
  if (evex && at == 3 && (bit == 7 || bit == 4)) return true;
  if (at == 2 && bit == 7) return true;  // W, where the manuals give one value: VPERMQ with 0 runs on AMD's
  for (unsigned i = 0; i < d.insn.operand_count; i++)
    if (d.operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(d.operands[i].reg.value) == ZYDIS_REGCLASS_MASK &&
        d.operands[i].encoding != ZYDIS_OPERAND_ENCODING_MASK)
      return true;
  return false;
}

// Is it an instruction but for W, as VPERMQ with 0 is, which runs on AMD's processors? Perhaps one that ends in the next
// item's bytes.
bool whole_with_other_w(const Item& item, CodeSize size) {
  for (unsigned at = 0; at + 2 < item.length; at++) {
    if (item.bytes[at] != 0xc4 && item.bytes[at] != 0x62) continue;
    u8 padded[32] = {};
    std::memcpy(padded, item.bytes.data(), item.length);
    padded[at + 2] ^= 0x80;
    Decoded d;
    if (decode(padded, 15, d, size)) return true;
  }
  return false;
}

// Now and then one flipped bit: what the decoder then refuses must be #UD on the host too.
bool mutate(Rng& rng, CodeSize size, Item& item) {
  Item changed = item;
  const unsigned byte = static_cast<unsigned>(rng.below(item.length)), bit = static_cast<unsigned>(rng.below(8));
  changed.bytes[byte] ^= static_cast<u8>(1 << bit);
  for (unsigned i = 0; i < changed.length; i++)
    if (changed.bytes[i] == 0x64) return false;
  if (calls_hypervisor(changed) || alternative_cr8(changed)) return false;
  Decoded d;
  u8 padded[32] = {};
  std::memcpy(padded, changed.bytes.data(), changed.length);
  const bool whole = decode(padded, 15, d, size);
  if (Decoded before; !whole && decode(item.bytes.data(), item.length, before, size) && reserved_bit(before, byte, bit))
    return false;
  if (!whole && whole_with_other_w(changed, size)) return false;
  // Undefined only for what follows it here: the bytes of the next instruction would make another one of it.
  for (unsigned next = 1; !whole && next < 256; next++) {
    padded[changed.length] = static_cast<u8>(next);
    if (decode(padded, 15, d, size)) return false;
  }
  padded[changed.length] = 0;
  if (whole && decode(padded, 15, d, size)) {
    if (!admissible(d) || d.insn.length > changed.length || d.insn.raw.imm[0].is_relative || locked(d)) return false;
    const ZydisMnemonic m = d.insn.mnemonic;
    if (saves_state(m) || m == ZYDIS_MNEMONIC_FXSAVE || m == ZYDIS_MNEMONIC_FXSAVE64) return false;
    changed.length = d.insn.length;
  }
  changed.fix = Item::Fix::none;
  item = changed;
  return true;
}

Item item_of(std::size_t extension, std::initializer_list<u8> bytes) {
  Item item;
  std::copy(bytes.begin(), bytes.end(), item.bytes.begin());
  item.length = static_cast<u8>(bytes.size());
  item.extension = extension;
  return item;
}

// MOV EAX, components; XOR EDX, EDX: only what both sides have, whatever else the host's kernel has enabled.
void name_components(Rng& rng, std::size_t extension, CodeSize size, std::vector<Item>& items) {
  const u8 mask = static_cast<u8>(rng.percent(50) ? 0xe7 : rng.next() & 0xe7);
  const bool narrow = size == CodeSize::bits16;
  items.push_back(narrow ? item_of(extension, {0x66, 0xb8, mask, 0, 0, 0}) : item_of(extension, {0xb8, mask, 0, 0, 0}));
  items.push_back(narrow ? item_of(extension, {0x66, 0x31, 0xd2}) : item_of(extension, {0x31, 0xd2}));
}

// An instruction on what lies `offset` bytes into the memory operand of `item`: one opcode byte, ModRM.reg 0 or 1, an
// immediate. Nothing: the operand has no 32-bit address.
std::optional<Item> beside(const Item& item, CodeSize size, i32 offset, u8 opcode, u8 reg,
                           std::initializer_list<u8> imm) {
  Decoded d;
  if (!decode(item.bytes.data(), item.length, d, size) || d.insn.address_width == 16) return std::nullopt;
  const auto& raw = d.insn.raw;
  Item out = item_of(item.extension, {});
  const auto put = [&](u8 byte) { out.bytes[out.length++] = byte; };
  for (unsigned i = 0; i < raw.prefix_count; i++) {
    const u8 p = raw.prefixes[i].value;
    if (p == 0x67 || p == 0x65 || p == 0x26 || p == 0x2e || p == 0x36 || p == 0x3e) put(p);
  }
  if (size == CodeSize::bits16 && opcode == 0xc7) put(0x66);
  if (d.insn.attributes & ZYDIS_ATTRIB_HAS_REX) put(static_cast<u8>(0x40 | raw.rex.X << 1 | raw.rex.B));
  put(opcode);
  const bool sib = raw.modrm.rm == 4, no_base = raw.modrm.mod == 0 && (raw.modrm.rm == 5 || (sib && raw.sib.base == 5));
  put(static_cast<u8>((no_base ? 0 : 0x80) | reg << 3 | raw.modrm.rm));
  if (sib) put(static_cast<u8>(raw.sib.scale << 6 | raw.sib.index << 3 | raw.sib.base));
  if (item.fix == Item::Fix::rip) {
    out.fix = Item::Fix::rip, out.fix_offset = out.length, out.fix_bytes = 4;
    out.target = item.target + static_cast<u64>(i64{offset});
  }
  const i32 disp = static_cast<i32>(raw.disp.value) + offset;
  for (unsigned i = 0; i < 4; i++) put(static_cast<u8>(disp >> 8 * i));
  for (const u8 byte : imm) put(byte);
  return out;
}

// What FXSAVE and XSAVE store that is the host's own: MXCSR_MASK, of which a guest may have fewer bits, and in
// XSTATE_BV components that the processor believes to be in use though they have their initial values (SDM Vol.
// 1 13.6).
bool blind(const Item& item, CodeSize size, const Extent& extent, std::vector<Item>& items) {
  Decoded d;
  if (!decode(item.bytes.data(), item.length, d, size)) return true;
  const ZydisMnemonic m = d.insn.mnemonic;
  const bool fx = m == ZYDIS_MNEMONIC_FXSAVE || m == ZYDIS_MNEMONIC_FXSAVE64;
  const bool x = m == ZYDIS_MNEMONIC_XSAVE || m == ZYDIS_MNEMONIC_XSAVE64;
  if (!fx && !x) return true;
  if (extent.mxcsr_mask != 0xffff) {
    const auto mask = beside(item, size, 28, 0xc7, 0, {0xff, 0xff, 0, 0});  // mov dword [+28], 0xffff
    if (!mask) return false;
    items.push_back(*mask);
  }
  if (x) {
    const auto in_use = beside(item, size, 512, 0x80, 1, {0xe7});  // or byte [+512], 0xe7
    if (!in_use) return false;
    items.push_back(*in_use);
  }
  return true;
}

bool item_saves_state(const Item& item, CodeSize size) {
  Decoded d;
  return decode(item.bytes.data(), item.length, d, size) && saves_state(d.insn.mnemonic);
}

// Branches that would come between a MOV, XOR and what needs them go to the MOV.
void keep_components(std::vector<Item>& items, CodeSize size) {
  for (Item& item : items)
    if (item.fix == Item::Fix::branch)
      for (unsigned ahead = 0; ahead < 2; ahead++)
        if (item.target + ahead < items.size() && item_saves_state(items[item.target + ahead], size))
          item.target -= 2 - ahead;
}

CodeSize draw_size(Rng& rng, const Extent& extent) {
  const u64 at = rng.below(100);
  if (extent.bits) return static_cast<CodeSize>(extent.bits / 8);
  if (at < 20 && extent.code32) return CodeSize::bits32;
  return at >= 20 && at < 28 && extent.code16 ? CodeSize::bits16 : CodeSize::bits64;
}

}  // namespace

const Forms& AllForms::of(CodeSize size) const {
  std::optional<Forms>& forms = forms_[size == CodeSize::bits64 ? 2 : size == CodeSize::bits32 ? 1 : 0];
  if (!forms) forms.emplace(size);
  return *forms;
}

u64 code_base(CodeSize size, std::size_t slot) {
  return size == CodeSize::bits16 ? place::code + slot * place::slot / place::segment * place::segment : 0;
}

void make_program(const AllForms& all, u64 seed, const Extent& extent, Program& out) {
  Rng rng(seed);
  out.seed = seed;
  out.items.clear();
  out.size = draw_size(rng, extent);
  const Forms& forms = all.of(out.size);
  make_initial(rng, extent, out.size, out.initial);
  Generator generator(forms, rng, out.initial.regs);
  // A few extensions per sequence, so that their instructions meet.
  std::size_t themes[3];
  for (std::size_t& t : themes) t = forms.draw_extension(rng);
  const std::size_t count = 1 + rng.below(kMaxItems - 1);
  u8 group = 0;
  while (out.items.size() < count) {
    Item item;
    const std::size_t extension = rng.percent(20) ? forms.draw_extension(rng) : rng.pick(themes);
    if (!generator.item(extension, item)) continue;
    std::vector<Item> before, after;
    if (item_saves_state(item, out.size)) name_components(rng, extension, out.size, before);
    if (!blind(item, out.size, extent, after)) continue;
    if (out.items.size() + before.size() + 1 + after.size() > kMaxItems) continue;
    if (!before.empty() || !after.empty()) {
      group++;
      for (Item& i : before) i.group = group, out.items.push_back(i);
      item.group = group;
    }
    if (item.fix == Item::Fix::none && item.group == 0 && rng.percent(1)) mutate(rng, out.size, item);
    if (item.fix == Item::Fix::branch) {
      const u64 from = out.items.size() + 1;
      item.target = from + rng.below(4);
      if (item.target > count) item.target = count;
    }
    out.items.push_back(item);
    for (Item& i : after) i.group = group, out.items.push_back(i);
  }
  keep_components(out.items, out.size);
}

std::vector<u8> layout(const std::vector<Item>& items, u64 address, std::vector<u64>* offsets) {
  std::vector<u64> starts;
  u64 size = 0;
  for (const Item& i : items) {
    starts.push_back(size);
    size += i.length;
  }
  starts.push_back(size);
  std::vector<u8> code;
  for (std::size_t n = 0; n < items.size(); n++) {
    Item i = items[n];
    if (i.fix != Item::Fix::none) {
      const u64 next = starts[n + 1];
      const u64 to =
          i.fix == Item::Fix::rip ? i.target - address : starts[std::min<std::size_t>(i.target, items.size())];
      const u64 displacement = to - next;
      std::memcpy(i.bytes.data() + i.fix_offset, &displacement, i.fix_bytes);
    }
    code.insert(code.end(), i.bytes.begin(), i.bytes.begin() + i.length);
  }
  code.push_back(0xcc);
  if (offsets) *offsets = starts;
  return code;
}

std::string listing(const Program& program, u64 address) {
  const std::vector<Item>& items = program.items;
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  std::vector<u64> offsets;
  const std::vector<u8> code = layout(items, address, &offsets);
  std::string out;
  if (program.size != CodeSize::bits64) out = program.size == CodeSize::bits32 ? "  32-bit code\n" : "  16-bit code\n";
  for (std::size_t n = 0; n < items.size(); n++) {
    Decoded d;
    char text[256] = "(bad)";
    const u8* at = code.data() + offsets[n];
    if (decode(at, items[n].length, d, program.size))
      ZydisFormatterFormatInstruction(&formatter, &d.insn, d.operands.data(), d.insn.operand_count_visible, text,
                                      sizeof text, address + offsets[n], nullptr);
    std::string bytes;
    for (unsigned i = 0; i < items[n].length; i++) bytes += fmt::format("{:02x} ", at[i]);
    out += fmt::format("  {:#x}: {:<34} {}\n", address + offsets[n], bytes, text);
  }
  return out;
}

}  // namespace trapline::fuzz
