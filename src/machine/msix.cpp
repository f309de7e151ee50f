#include "machine/msix.h"

#include "base/invariant.h"

namespace trapline::machine {

namespace {
constexpr unsigned kEntryBytes = 16;
constexpr u16 kEnable = 1 << 15, kMaskAll = 1 << 14;
}  // namespace

Msix::Msix(devices::MsiSink& sink, unsigned vectors) : sink_{sink} {
  INVARIANT(vectors >= 1 && vectors <= 64, "{} vectors", vectors);
  s_.table.resize(vectors);
}

// Double words, and both halves of eight bytes; what is narrower is not defined and reads as ones.
u64 Msix::read(u64 offset, unsigned size) {
  if (size == 8) return read(offset, 4) | read(offset + 4, 4) << 32;
  if (size != 4 || offset % 4 != 0) return ~u64{0};
  if (offset - kPending < 8) return s_.pending >> 8 * (offset - kPending) & 0xffffffff;
  const u64 index = offset / kEntryBytes;
  if (index >= s_.table.size()) return 0;
  const Entry& e = s_.table[index];
  const u32 words[] = {e.address, e.address_high, e.data, e.control};
  return words[offset / 4 % 4];
}

void Msix::write(u64 offset, unsigned size, u64 value) {
  if (size == 8) {
    write(offset, 4, value & 0xffffffff);
    return write(offset + 4, 4, value >> 32);
  }
  const u64 index = offset / kEntryBytes;
  if (size != 4 || offset % 4 != 0 || index >= s_.table.size()) return;
  Entry& e = s_.table[index];
  const u32 word = static_cast<u32>(value);
  switch (offset / 4 % 4) {
    case 0:
      e.address = word & ~u32{3};
      break;
    case 1:
      e.address_high = word;
      break;
    case 2:
      e.data = word;
      break;
    default:
      e.control = word & 1;
      send_unmasked();
  }
}

void Msix::control(u16 value) {
  s_.enabled = value & kEnable;
  s_.masked = value & kMaskAll;
  send_unmasked();
}

void Msix::raise(u16 vector) {
  if (vector >= s_.table.size()) return;
  s_.pending |= u64{1} << vector;
  send_unmasked();
}

void Msix::send_unmasked() {
  if (!s_.enabled || s_.masked) return;
  for (unsigned i = 0; i < s_.table.size(); i++) {
    const Entry& e = s_.table[i];
    if (!(s_.pending >> i & 1) || e.control & 1) continue;
    s_.pending &= ~(u64{1} << i);
    sink_.msi(Gpa{u64{e.address_high} << 32 | e.address}, e.data);
  }
}

void Msix::reset() {
  s_.table.assign(s_.table.size(), Entry{});
  s_.pending = 0;
  s_.enabled = s_.masked = false;
}

}  // namespace trapline::machine
