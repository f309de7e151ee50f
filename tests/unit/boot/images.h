// Synthesized kernels for the boot loader's tests: small, whole, and easy to damage in one place.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "boot/boot.h"

namespace trapline::boot::testing {

using Image = std::vector<std::byte>;

inline Bytes view(const Image& image) { return image; }

template <class T>
void set(Image& image, u64 at, T value) {
  if (image.size() < at + sizeof value) image.resize(at + sizeof value);
  std::memcpy(image.data() + at, &value, sizeof value);
}

// Protocol 2.15, 64-bit entry, relocatable, prefers 16 MiB and needs 8 MiB there. The code is `code_size` bytes of
// 0xc0.
inline Image bzimage(u32 code_size = 0x1000) {
  Image k(1024 + code_size, std::byte{0xc0});
  std::fill(k.begin(), k.begin() + 1024, std::byte{0});
  set<u8>(k, 0x1f1, 1);  // setup_sects
  set<u32>(k, 0x1f4, code_size / 16);
  set<u16>(k, 0x1fe, 0xaa55);
  set<u16>(k, 0x200, 0x6aeb);  // jump over the header
  set<u32>(k, 0x202, 0x53726448);
  set<u16>(k, 0x206, 0x20f);
  set<u8>(k, 0x211, 1);
  set<u32>(k, 0x214, 0x100000);
  set<u32>(k, 0x22c, 0x7fffffff);
  set<u32>(k, 0x230, 0x200000);
  set<u8>(k, 0x234, 1);
  set<u16>(k, 0x236, 3);
  set<u32>(k, 0x238, 2047);
  set<u64>(k, 0x258, 0x1000000);
  set<u32>(k, 0x260, 0x800000);
  return k;
}

struct Segment {
  u32 paddr = 0x100000, vaddr = 0x100000;
  std::string bytes = "kernel code";
  u32 memory = 0x2000;
};

struct XenNote {
  u32 type;
  u64 value;
};

// ELF32 or ELF64 with the given PT_LOAD segments and, if `note` is not 0, a PVH note naming that entry; `xen`: others of
// Xen's, with numbers of 64 bits.
inline Image elf(bool is64, u64 entry, const std::vector<Segment>& segments, u32 note = 0,
                 const std::vector<XenNote>& xen = {}) {
  const bool has_notes = note != 0 || !xen.empty();
  const u64 header = is64 ? 64 : 52, ph = is64 ? 56 : 32, count = segments.size() + (has_notes ? 1 : 0);
  Image k(header + ph * count);
  set<u32>(k, 0, 0x464c457f);
  set<u8>(k, 4, is64 ? 2 : 1);
  set<u8>(k, 5, 1);
  set<u16>(k, 16, 2);
  set<u16>(k, 18, is64 ? 62 : 3);
  const auto address = [&](u64 at, u64 value) {
    is64 ? set<u64>(k, at, value) : set<u32>(k, at, static_cast<u32>(value));
  };
  address(24, entry);
  address(is64 ? 32 : 28, header);
  set<u16>(k, is64 ? 54 : 42, static_cast<u16>(ph));
  set<u16>(k, is64 ? 56 : 44, static_cast<u16>(count));
  const auto program_header = [&](u64 i, u32 type, u64 offset, u64 vaddr, u64 paddr, u64 file, u64 memory) {
    const u64 at = header + i * ph;
    set<u32>(k, at, type);
    if (is64) {
      const u64 fields[] = {offset, vaddr, paddr, file, memory};
      for (unsigned f = 0; f < 5; f++) set<u64>(k, at + 8 + 8 * f, fields[f]);
    } else {
      const u64 fields[] = {offset, vaddr, paddr, file, memory};
      for (unsigned f = 0; f < 5; f++) set<u32>(k, at + 4 + 4 * f, static_cast<u32>(fields[f]));
    }
  };
  u64 i = 0;
  for (const Segment& s : segments) {
    const u64 offset = k.size();
    k.resize(offset + s.bytes.size());
    std::copy_n(reinterpret_cast<const std::byte*>(s.bytes.data()), s.bytes.size(),
                k.begin() + static_cast<std::ptrdiff_t>(offset));
    program_header(i++, 1, offset, s.vaddr, s.paddr, s.bytes.size(), s.memory);
  }
  if (has_notes) {
    k.resize((k.size() + 3) & ~u64{3});
    const u64 offset = k.size();
    // Another note first: the walk has to step over it.
    for (u32 w : {u32{4}, u32{3}, u32{1}, u32{0x00554e47}, u32{0}}) set<u32>(k, k.size(), w);
    if (note)
      for (u32 w : {u32{4}, u32{4}, u32{18}, u32{0x006e6558}, note}) set<u32>(k, k.size(), w);
    for (const XenNote& n : xen) {
      for (u32 w : {u32{4}, u32{8}, n.type, u32{0x006e6558}}) set<u32>(k, k.size(), w);
      set<u64>(k, k.size(), n.value);
    }
    program_header(i, 4, offset, 0, 0, k.size() - offset, k.size() - offset);
  }
  return k;
}

// A flat binary of `size` bytes with a multiboot 1 header at 16 that loads it at 1 MiB, entry at its offset 64, 8 KiB
// of memory.
inline Image multiboot1_flat(u32 flags = 0x10003, u32 size = 0x400) {
  Image k(size, std::byte{0x90});
  const u32 base = 0x100000;
  const u32 header[] = {
      0x1badb002, flags, 0u - 0x1badb002 - flags, base + 16, base, base + size, base + 0x2000, base + 64, 1, 80, 25, 0};
  std::memcpy(k.data() + 16, header, sizeof header);
  return k;
}

// A multiboot 1 header inside the first segment of an ELF.
inline std::string multiboot1_header(u32 flags = 3) {
  const u32 header[] = {0x1badb002, flags, 0u - 0x1badb002 - flags};
  return std::string(reinterpret_cast<const char*>(header), sizeof header);
}

// The bytes of a multiboot 2 header with these tags (each padded to 8 by the caller through tag2()) and the end tag.
inline std::string tag2(u16 type, u16 flags, std::initializer_list<u32> values) {
  std::string t(8 + 4 * values.size(), '\0');
  const u32 size = static_cast<u32>(t.size());
  std::memcpy(t.data(), &type, 2);
  std::memcpy(t.data() + 2, &flags, 2);
  std::memcpy(t.data() + 4, &size, 4);
  if (values.size()) std::memcpy(t.data() + 8, std::data(values), 4 * values.size());
  t.resize((t.size() + 7) & ~std::size_t{7});
  return t;
}
inline std::string multiboot2_header(const std::string& tags) {
  std::string h(16, '\0');
  h += tags + tag2(0, 0, {});
  const u32 length = static_cast<u32>(h.size());
  const u32 head[] = {0xe85250d6, 0, length, 0u - 0xe85250d6 - length};
  std::memcpy(h.data(), head, sizeof head);
  return h;
}
inline Image multiboot2_flat(const std::string& more_tags = "") {
  const u32 base = 0x100000;
  const std::string header = multiboot2_header(tag2(2, 0, {base + 32, base, base + 0x400, base + 0x2000}) +
                                               tag2(3, 0, {base + 8}) + more_tags);
  Image k(0x400, std::byte{0x90});
  std::memcpy(k.data() + 32, header.data(), header.size());
  return k;
}

}  // namespace trapline::boot::testing
