#include "engine/patch/user_pages.h"

namespace trapline::engine::patch {

namespace {

constexpr u64 kAddress = 0x000ffffffffff000;

u64 load(const u64* entry) { return __atomic_load_n(entry, __ATOMIC_RELAXED); }

}  // namespace

const u64* UserRegion::table(const cpu::Vcpu& cpu, u64 entry) const {
  const Gpa at{entry & kAddress};
  return cpu.ram->is_ram(at) ? reinterpret_cast<const u64*>(cpu.ram->host(at)) : nullptr;
}

UserRegion::UserRegion(const cpu::Vcpu& cpu, Gpa root, Gva linear) {
  u64 entry = root.raw;
  for (int level = 3; level >= 1; level--) {
    const u64* const here = table(cpu, entry);
    if (!here) return;
    entry = load(here + (linear.raw >> (12 + 9 * level) & 511));
    if (!(entry & kPresent)) return;
    rights_ &= entry;
    nx_ |= entry >> 63;
    if (level <= 2 && (entry & kLarge)) {
      const u64 size = u64{1} << (12 + 9 * level);
      large_ = entry;
      large_base_ = Gpa{(entry & kAddress & ~(size - 1)) | (linear.raw & (size - 1) & ~(u64{2} * MiB - 1))};
      return;
    }
  }
  entries_ = table(cpu, entry);
}

UserPage UserRegion::from(u64 leaf, Gpa gpa) const {
  const u64 rights = rights_ & leaf;
  UserPage p;
  p.gpa = gpa;
  p.present = (leaf & kPresent) && (rights & kUser) && (rights & kAccessed);
  p.writable = p.present && (rights & kWritable) && (leaf & kDirty);
  p.executable = p.present && !nx_ && !(leaf >> 63);
  return p;
}

UserPage UserRegion::page(unsigned index) const {
  if (large_) return from(large_, large_base_.wrapping_add(index * kPageSize));
  if (!entries_) return {};
  const u64 leaf = load(entries_ + index);
  return from(leaf, Gpa{leaf & kAddress});
}

}  // namespace trapline::engine::patch
