#include "monitor/gdb_registers.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstring>

#include "monitor/gdb_packet.h"

namespace trapline::monitor::gdb {

using channel::DebugRegisters;

namespace {

constexpr const char* kCore = "org.gnu.gdb.i386.core";
constexpr const char* kSse = "org.gnu.gdb.i386.sse";
constexpr const char* kAvx = "org.gnu.gdb.i386.avx";
constexpr const char* kSegments = "org.gnu.gdb.i386.segments";
constexpr const char* kSystem = "org.trapline.system";

// Names and numbers of the packet protocol against those of encodings.
constexpr struct {
  const char *wide, *narrow;
  u8 wide_index, narrow_index;
} kGpr[8] = {{"rax", "eax", 0, 0}, {"rbx", "ecx", 3, 1}, {"rcx", "edx", 1, 2}, {"rdx", "ebx", 2, 3},
             {"rsi", "esp", 6, 4}, {"rdi", "ebp", 7, 5}, {"rbp", "esi", 5, 6}, {"rsp", "edi", 4, 7}};
constexpr struct {
  const char* name;
  u8 index;  // isa::Seg
} kSegment[6] = {{"cs", 1}, {"ss", 2}, {"ds", 3}, {"es", 0}, {"fs", 4}, {"gs", 5}};

// Offsets in the FXSAVE64 image (SDM Vol. 1 table 10-2).
constexpr unsigned kFcw = 0, kFsw = 2, kFtw = 4, kSt = 32;

constexpr const char* kFlags =
    R"(<flags id="i386_eflags" size="4"><field name="" start="22" end="31"/><field name="ID" start="21" end="21"/>)"
    R"(<field name="VIP" start="20" end="20"/><field name="VIF" start="19" end="19"/><field name="AC" start="18" end="18"/>)"
    R"(<field name="VM" start="17" end="17"/><field name="RF" start="16" end="16"/><field name="NT" start="14" end="14"/>)"
    R"(<field name="IOPL" start="12" end="13"/><field name="OF" start="11" end="11"/><field name="DF" start="10" end="10"/>)"
    R"(<field name="IF" start="9" end="9"/><field name="TF" start="8" end="8"/><field name="SF" start="7" end="7"/>)"
    R"(<field name="ZF" start="6" end="6"/><field name="AF" start="4" end="4"/><field name="PF" start="2" end="2"/>)"
    R"(<field name="" start="1" end="1"/><field name="CF" start="0" end="0"/></flags>)";
constexpr const char* kVectors =
    R"(<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>)"
    R"(<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>)"
    R"(<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>)"
    R"(<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>)"
    R"(<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>)"
    R"(<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>)";

const char* types_of(const char* feature) { return feature == kCore ? kFlags : feature == kSse ? kVectors : ""; }

// The tag of a register in use says what it holds (SDM Vol. 1 8.1.7): 0 valid, 1 zero, 2 special; 3 is empty.
unsigned tag_of(const u8* st) {
  u16 exponent;
  u64 mantissa;
  std::memcpy(&mantissa, st, 8);
  std::memcpy(&exponent, st + 8, 2);
  exponent &= 0x7fff;
  if (exponent == 0) return mantissa == 0 ? 1 : 2;
  return exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

u16 full_tags(const DebugRegisters& r) {
  u16 tags = 0;
  const unsigned top = r.x87.image[kFsw + 1] >> 3 & 7;
  for (unsigned physical = 0; physical < 8; physical++) {
    const unsigned tag =
        r.x87.image[kFtw] >> physical & 1 ? tag_of(r.x87.image + kSt + 16 * ((physical - top) & 7)) : 3;
    tags = static_cast<u16>(tags | tag << (2 * physical));
  }
  return tags;
}

u8 abridged_tags(u16 tags) {
  u8 out = 0;
  for (unsigned i = 0; i < 8; i++)
    if ((tags >> (2 * i) & 3) != 3) out = static_cast<u8>(out | 1 << i);
  return out;
}

}  // namespace

const RegisterLayout& RegisterLayout::of(bool wide) {
  static const RegisterLayout wide_layout{true}, narrow_layout{false};
  return wide ? wide_layout : narrow_layout;
}

RegisterLayout::RegisterLayout(bool wide) {
  add_general(wide);
  add_x87();
  add_vector(wide);
  add_system(wide);
  description_ = describe(wide);
}

#pragma GCC diagnostic ignored "-Winvalid-offsetof"  // derived, but plain data: every compiler in use lays it out so
#define AT(field) offsetof(DebugRegisters, field)

namespace {

std::size_t base_of(unsigned seg) {
  return AT(seg) + seg * sizeof(channel::Segment) + offsetof(channel::Segment, linear_base);
}
std::size_t selector_of(unsigned seg) {
  return AT(seg) + seg * sizeof(channel::Segment) + offsetof(channel::Segment, selector);
}

}  // namespace

void RegisterLayout::add_general(bool wide) {
  const u16 size = wide ? 8 : 4;
  for (unsigned i = 0; i < (wide ? 16u : 8u); i++) {
    const unsigned index = i >= 8 ? i : wide ? kGpr[i].wide_index : kGpr[i].narrow_index;
    const std::string name = i >= 8 ? fmt::format("r{}", i) : wide ? kGpr[i].wide : kGpr[i].narrow;
    const bool stack = index == 4 || index == 5;
    const char* type = stack ? "data_ptr" : wide ? "int64" : "int32";
    registers_.push_back({kCore, name, size, size, AT(gpr) + index * 8, type, true});
  }
  registers_.push_back({kCore, wide ? "rip" : "eip", size, size, AT(pc), "code_ptr", true});
  registers_.push_back({kCore, "eflags", 4, 4, AT(eflags), "i386_eflags", true});
  for (const auto& s : kSegment) registers_.push_back({kCore, s.name, 4, 2, selector_of(s.index), "int32", false});
}

void RegisterLayout::add_x87() {
  for (unsigned i = 0; i < 8; i++)
    registers_.push_back({kCore, fmt::format("st{}", i), 10, 10, AT(x87.image) + kSt + i * 16, "i387_ext", true});
  registers_.push_back({kCore, "fctrl", 4, 2, AT(x87.image) + kFcw, "int", true});
  registers_.push_back({kCore, "fstat", 4, 2, AT(x87.image) + kFsw, "int", true});
  registers_.push_back({kCore, "ftag", 4, 2, AT(x87.image) + kFtw, "int", true, Form::tags});
  registers_.push_back({kCore, "fiseg", 4, 2, AT(x87.fcs), "int", false});
  registers_.push_back({kCore, "fioff", 4, 4, AT(x87.fip), "int", false});
  registers_.push_back({kCore, "foseg", 4, 2, AT(x87.fds), "int", false});
  registers_.push_back({kCore, "fooff", 4, 4, AT(x87.fdp), "int", false});
  registers_.push_back({kCore, "fop", 4, 2, AT(x87.fop), "int", false});
}

void RegisterLayout::add_vector(bool wide) {
  const unsigned n = wide ? 16 : 8;
  for (unsigned i = 0; i < n; i++)
    registers_.push_back({kSse, fmt::format("xmm{}", i), 16, 16, AT(vec.zmm) + i * 64, "vec128", true});
  registers_.push_back({kSse, "mxcsr", 4, 4, AT(vec.mxcsr), "int", true});
  for (unsigned i = 0; i < n; i++)
    registers_.push_back({kAvx, fmt::format("ymm{}h", i), 16, 16, AT(vec.zmm) + i * 64 + 16, "uint128", true});
}

void RegisterLayout::add_system(bool wide) {
  const u16 size = wide ? 8 : 4;
  const char* type = wide ? "uint64" : "uint32";
  // In a 32-bit description GDB knows no segment bases.
  const char* bases = wide ? kSegments : kSystem;
  registers_.push_back({bases, "fs_base", size, size, base_of(4), type, wide});
  registers_.push_back({bases, "gs_base", size, size, base_of(5), type, wide});
  if (wide) registers_.push_back({kSystem, "k_gs_base", size, size, AT(msr.kernel_gs_base), type, true});
  for (unsigned i = 0; i < 4; i++)
    registers_.push_back(
        {kSystem, fmt::format("{}_base", kSegment[i].name), size, size, base_of(kSegment[i].index), type, false});
  const struct {
    const char* name;
    std::size_t offset;
    bool writable;
  } control[] = {{"cr0", AT(cr0), false}, {"cr2", AT(cr2), true},  {"cr3", AT(cr3), false},
                 {"cr4", AT(cr4), false}, {"cr8", AT(cr8), false}, {"efer", AT(efer), false}};
  for (const auto& c : control) registers_.push_back({kSystem, c.name, size, size, c.offset, type, c.writable});
}

#undef AT

std::string RegisterLayout::describe(bool wide) const {
  std::string xml = R"(<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target><architecture>)";
  xml += wide ? "i386:x86-64" : "i386";
  xml += "</architecture>\n";
  const char* feature = nullptr;
  for (const Register& reg : registers_) {
    if (reg.feature != feature) {
      xml +=
          fmt::format("{}<feature name=\"{}\">{}\n", feature ? "</feature>\n" : "", reg.feature, types_of(reg.feature));
      feature = reg.feature;
    }
    xml += fmt::format("<reg name=\"{}\" bitsize=\"{}\" type=\"{}\"{}/>\n", reg.name, reg.bytes * 8, reg.type,
                       feature == kSystem ? " group=\"system\"" : "");
  }
  return xml + "</feature></target>\n";
}

void RegisterLayout::get(const DebugRegisters& r, const Register& reg, u8* out) const {
  std::memset(out, 0, reg.bytes);
  if (reg.form == Form::tags) {
    const u16 tags = full_tags(r);
    std::memcpy(out, &tags, sizeof tags);
  } else {
    std::memcpy(out, reinterpret_cast<const u8*>(&r) + reg.offset, reg.stored);
  }
}

bool RegisterLayout::set(DebugRegisters& r, const Register& reg, const u8* in) const {
  u8 now[16];
  get(r, reg, now);
  if (std::memcmp(now, in, reg.bytes) == 0) return true;
  if (!reg.writable) return false;
  if (reg.form == Form::tags) {
    u16 tags;
    std::memcpy(&tags, in, sizeof tags);
    r.x87.image[kFtw] = abridged_tags(tags);
  } else {
    std::memcpy(reinterpret_cast<u8*>(&r) + reg.offset, in, reg.stored);
  }
  return true;
}

std::string RegisterLayout::read_all(const DebugRegisters& r) const {
  std::string hex;
  for (std::size_t i = 0; i < registers_.size(); i++) hex += *read(r, i);
  return hex;
}

std::optional<std::string> RegisterLayout::read(const DebugRegisters& r, u64 number) const {
  if (number >= registers_.size()) return std::nullopt;
  u8 bytes[16];
  get(r, registers_[number], bytes);
  return to_hex(std::span{bytes, registers_[number].bytes});
}

bool RegisterLayout::write_all(DebugRegisters& r, std::string_view hex) const {
  const auto bytes = from_hex(hex);
  std::size_t all = 0;
  for (const Register& reg : registers_) all += reg.bytes;
  if (!bytes || bytes->size() != all) return false;
  DebugRegisters changed = r;
  const u8* in = bytes->data();
  for (const Register& reg : registers_) {
    if (!set(changed, reg, in)) return false;
    in += reg.bytes;
  }
  r = changed;
  return true;
}

bool RegisterLayout::write(DebugRegisters& r, u64 number, std::string_view hex) const {
  const auto bytes = from_hex(hex);
  if (number >= registers_.size() || !bytes || bytes->size() != registers_[number].bytes) return false;
  return set(r, registers_[number], bytes->data());
}

}  // namespace trapline::monitor::gdb
