#include "machine/smbios.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "base/guest_memory.h"

namespace trapline::machine {

namespace {

using Bytes = std::vector<u8>;

void put(Bytes& out, u64 value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) out.push_back(static_cast<u8>(value >> 8 * i));
}

constexpr u16 kSystem = 0x100, kEnclosure = 0x300, kProcessor = 0x400, kMemoryArray = 0x1000, kMemoryDevice = 0x1100,
              kArrayMapping = 0x1300, kBoot = 0x2000, kEnd = 0x7f00;

// Structures one behind the other: a header, the formatted part, its strings.
class Structures {
 public:
  void begin(u8 type, u16 handle) {
    start_ = bytes.size();
    put(bytes, type, 1);
    put(bytes, 0, 1);  // length, by end()
    put(bytes, handle, 2);
  }
  void end(std::initializer_list<std::string_view> strings = {}) {
    const std::size_t length = bytes.size() - start_;
    bytes[start_ + 1] = static_cast<u8>(length);
    for (const std::string_view s : strings) {
      bytes.insert(bytes.end(), s.begin(), s.end());
      bytes.push_back(0);
    }
    put(bytes, 0, strings.size() == 0 ? 2 : 1);
    count++;
    largest = std::max(largest, bytes.size() - start_);
  }
  Bytes bytes;
  std::size_t count = 0, largest = 0;

 private:
  std::size_t start_ = 0;
};

void add_system(Structures& s) {
  s.begin(1, kSystem);
  put(s.bytes, 0x000201, 3);  // manufacturer, product, version: string numbers
  put(s.bytes, 0, 1);         // serial number
  put(s.bytes, 0, 8);         // UUID: none
  put(s.bytes, 0, 8);
  put(s.bytes, 6, 1);  // woken by the power switch
  put(s.bytes, 0, 2);  // SKU, family
  s.end({"Trapline", "Trapline PC"});
  s.begin(3, kEnclosure);
  put(s.bytes, 0x01, 1);        // manufacturer
  put(s.bytes, 0x01, 1);        // type: other
  put(s.bytes, 0, 3);           // version, serial, asset tag
  put(s.bytes, 0x03030303, 4);  // states: safe; security: none
  put(s.bytes, 0, 4);
  put(s.bytes, 0, 2);  // height, power cords
  put(s.bytes, 0, 3);  // contained elements, SKU
  s.end({"Trapline"});
}

void add_processors(Structures& s, u32 cpus) {
  s.begin(4, kProcessor);
  put(s.bytes, 0x01, 1);  // socket
  put(s.bytes, 3, 1);     // central processor
  put(s.bytes, 1, 1);     // family: other
  put(s.bytes, 2, 1);     // manufacturer
  put(s.bytes, 0, 8);     // id: CPUID says it
  put(s.bytes, 0, 2);     // version, voltage
  put(s.bytes, 0, 6);     // clocks: unknown
  put(s.bytes, 0x41, 1);  // populated, enabled
  put(s.bytes, 1, 1);     // upgrade: other
  for (unsigned cache = 0; cache < 3; cache++) put(s.bytes, 0xffff, 2);
  put(s.bytes, 0, 3);
  const u64 few = std::min<u32>(cpus, 0xff);  // cores, enabled, threads; the words that follow have the numbers above
  put(s.bytes, few | few << 8 | few << 16, 3);
  put(s.bytes, 0x0004, 2);  // 64-bit
  put(s.bytes, 1, 2);       // family
  for (unsigned i = 0; i < 3; i++) put(s.bytes, cpus, 2);
  s.end({"CPU", "Trapline"});
}

void add_memory(Structures& s, u64 memory) {
  const u64 mib = memory / MiB;
  s.begin(16, kMemoryArray);
  put(s.bytes, 0x060301, 3);    // other location, system memory, multi-bit ECC
  put(s.bytes, 0x80000000, 4);  // capacity: see below
  put(s.bytes, 0xfffe, 2);
  put(s.bytes, 1, 2);
  put(s.bytes, memory, 8);
  s.end();
  s.begin(17, kMemoryDevice);
  put(s.bytes, kMemoryArray, 2);
  put(s.bytes, 0xfffe, 2);
  put(s.bytes, 64, 2);
  put(s.bytes, 64, 2);
  put(s.bytes, mib < 0x7fff ? mib : 0x7fff, 2);
  put(s.bytes, 9, 1);  // DIMM
  put(s.bytes, 0, 1);
  put(s.bytes, 0x0001, 2);  // locator
  put(s.bytes, 7, 1);       // RAM
  put(s.bytes, 2, 2);
  put(s.bytes, 0, 2);
  put(s.bytes, 0x02, 1);
  put(s.bytes, 0, 4);
  put(s.bytes, mib < 0x7fff ? 0 : mib, 4);
  put(s.bytes, 0, 8);
  s.end({"DIMM 0", "Trapline"});
  u16 handle = kArrayMapping;
  const auto mapping = [&](u64 start, u64 size) {
    s.begin(19, handle++);
    put(s.bytes, start / KiB, 4);
    put(s.bytes, (start + size) / KiB - 1, 4);
    put(s.bytes, kMemoryArray, 2);
    put(s.bytes, 1, 1);
    s.end();
  };
  mapping(0, std::min(memory, kPciHoleStart));
  if (memory > kPciHoleStart) mapping(kPciHoleEnd, memory - kPciHoleStart);
}

// The entry point (5.2.1). SeaBIOS puts in the address and both sums.
Bytes anchor(const Structures& s) {
  constexpr std::string_view kAnchor = "_SM_", kIntermediate = "_DMI_";
  Bytes out(kAnchor.begin(), kAnchor.end());
  put(out, 0, 1);
  put(out, 0x1f, 1);
  put(out, 0x0802, 2);  // 2.8
  put(out, s.largest, 2);
  put(out, 0, 6);  // revision, formatted area
  out.insert(out.end(), kIntermediate.begin(), kIntermediate.end());
  put(out, 0, 1);
  put(out, s.bytes.size(), 2);
  put(out, 0, 4);
  put(out, s.count, 2);
  put(out, 0x28, 1);
  return out;
}

}  // namespace

Smbios make_smbios(const Config& config) {
  Structures s;
  add_system(s);
  add_processors(s, config.cpus);
  add_memory(s, config.memory);
  s.begin(32, kBoot);
  put(s.bytes, 0, 7);  // reserved, status: no errors
  s.end();
  s.begin(127, kEnd);
  s.end();
  return {anchor(s), std::move(s.bytes)};
}

}  // namespace trapline::machine
