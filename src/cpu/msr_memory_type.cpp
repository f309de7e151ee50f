// Intel SDM Vol. 3A 11.11 (MTRRs), 11.12 (PAT).
#include "cpu/msr_memory_type.h"

namespace trapline::cpu {

namespace {

constexpr u32 kCap = 0xfe, kPat = 0x277, kDefType = 0x2ff, kVariableFirst = 0x200, kVariableCount = 8;
constexpr u32 kFixed[11] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
constexpr u64 kUncached = 0, kWriteBack = 6, kEnable = 1u << 11, kFixedEnable = 1u << 10;

// Memory types by number: UC WC - - WT WP WB, and UC- in the PAT alone.
bool mtrr_type(u64 type) { return type == 0 || type == 1 || (type >= 4 && type <= 6); }
bool pat_type(u64 type) { return mtrr_type(type) || type == 7; }

template <class Predicate>
bool every_byte(u64 value, Predicate ok) {
  for (int shift = 0; shift < 64; shift += 8)
    if (!ok(value >> shift & 0xff)) return false;
  return true;
}

int fixed_slot(u32 index) {
  for (int i = 0; i < 11; i++)
    if (kFixed[i] == index) return i;
  return -1;
}

}  // namespace

std::optional<u64> read_memory_type_msr(const Vcpu& cpu, u32 index) {
  if (index == kPat && cpu.cpuid->has(Feature::pat)) return cpu.msr.pat;
  if (!cpu.cpuid->has(Feature::mtrr)) return std::nullopt;
  if (index == kCap) return kVariableCount | 1u << 8 | 1u << 10;  // fixed ranges, write-combining
  if (index == kDefType) return cpu.msr.mtrr_def_type;
  if (const u32 n = index - kVariableFirst; n < kVariableCount * 2)
    return n & 1 ? cpu.msr.mtrr_mask[n / 2] : cpu.msr.mtrr_base[n / 2];
  if (const int slot = fixed_slot(index); slot >= 0) return cpu.msr.mtrr_fixed[slot];
  return std::nullopt;
}

std::optional<bool> write_memory_type_msr(Vcpu& cpu, u32 index, u64 value) {
  if (index == kCap || !read_memory_type_msr(cpu, index)) return std::nullopt;
  if (index == kPat) {
    if (!every_byte(value, pat_type)) return false;
    cpu.msr.pat = value;
    return true;
  }
  if (index == kDefType) {
    if (value & ~(kEnable | kFixedEnable | 0xff) || !mtrr_type(value & 0xff)) return false;
    cpu.msr.mtrr_def_type = value;
    return true;
  }
  if (const u32 n = index - kVariableFirst; n < kVariableCount * 2) {
    const u64 address = (u64{1} << cpu.cpuid->physical_bits()) - kPageSize;
    if (n & 1) {
      if (value & ~(address | kEnable)) return false;
      cpu.msr.mtrr_mask[n / 2] = value;
    } else {
      if (value & ~(address | 0xff) || !mtrr_type(value & 0xff)) return false;
      cpu.msr.mtrr_base[n / 2] = value;
    }
    return true;
  }
  if (!every_byte(value, mtrr_type)) return false;
  cpu.msr.mtrr_fixed[fixed_slot(index)] = value;
  return true;
}

void set_up_mtrrs_as_firmware(Vcpu& cpu) {
  constexpr u64 all_write_back = 0x0606060606060606;
  for (int i = 0; i < 11; i++) cpu.msr.mtrr_fixed[i] = kFixed[i] == 0x259 ? kUncached : all_write_back;  // A0000-BFFFF
  cpu.msr.mtrr_base[0] = kPciHoleStart | kUncached;
  cpu.msr.mtrr_mask[0] = (((u64{1} << cpu.cpuid->physical_bits()) - 1) & ~(kPciHoleEnd - kPciHoleStart - 1)) | kEnable;
  cpu.msr.mtrr_def_type = kEnable | kFixedEnable | kWriteBack;
}

}  // namespace trapline::cpu
