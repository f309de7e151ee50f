#include "acpi/aml.h"

#include <algorithm>

#include "base/invariant.h"

namespace trapline::acpi::aml {

namespace {

constexpr u8 kNameOp = 0x08, kBytePrefix = 0x0a, kWordPrefix = 0x0b, kDwordPrefix = 0x0c, kStringPrefix = 0x0d,
             kQwordPrefix = 0x0e, kScopeOp = 0x10, kBufferOp = 0x11, kPackageOp = 0x12, kExtPrefix = 0x5b,
             kDeviceOp = 0x82, kDualName = 0x2e, kMultiName = 0x2f;

void append(Bytes& out, const Bytes& more) {
  for (const u8 byte : more) out.push_back(byte);  // GCC 12 warns falsely about a range insert here
}

void put(Bytes& out, u64 value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) out.push_back(static_cast<u8>(value >> 8 * i));
}

// PkgLength counts itself. One byte holds 6 bits; else the lead byte holds 4 and each following one 8 (20.2.4).
Bytes with_length(const Bytes& body) {
  Bytes out;
  if (body.size() + 1 < 0x40) {
    out.push_back(static_cast<u8>(body.size() + 1));
  } else {
    unsigned extra = 1;
    while (extra < 3 && body.size() + 1 + extra >= u64{1} << (4 + 8 * extra)) extra++;
    const u64 total = body.size() + 1 + extra;
    INVARIANT(total < 1u << 28, "AML package of {} bytes", total);
    out.push_back(static_cast<u8>(extra << 6 | (total & 15)));
    put(out, total >> 4, extra);
  }
  append(out, body);
  return out;
}

Bytes path_bytes(std::string_view path) {
  Bytes out, segments;
  unsigned count = 0;
  if (!path.empty() && path.front() == '\\') {
    out.push_back('\\');
    path.remove_prefix(1);
  }
  while (!path.empty()) {
    const std::string_view segment = path.substr(0, path.find('.'));
    INVARIANT(!segment.empty() && segment.size() <= 4, "AML name segment '{}'", segment);
    for (unsigned i = 0; i < 4; i++) segments.push_back(i < segment.size() ? static_cast<u8>(segment[i]) : '_');
    count++;
    path.remove_prefix(std::min(path.size(), segment.size() + 1));
  }
  INVARIANT(count >= 1 && count <= 255, "AML name with {} segments", count);
  if (count == 2) out.push_back(kDualName);
  if (count > 2) {
    out.push_back(kMultiName);
    out.push_back(static_cast<u8>(count));
  }
  append(out, segments);
  return out;
}

Bytes named_block(std::initializer_list<u8> opcode, std::string_view path, const Bytes& body) {
  Bytes inner = path_bytes(path);
  append(inner, body);
  Bytes out{opcode};
  append(out, with_length(inner));
  return out;
}

// Word and double word address space descriptors: `width` 2 or 4.
Bytes window(u8 tag, u8 resource_type, u8 type_flags, unsigned width, u64 first, u64 last) {
  constexpr u8 kProducerFixedMinMax = 0x0c;  // producer, positive decode, _MIF and _MAF
  Bytes out{tag};
  put(out, 3 + 5 * width, 2);
  put(out, resource_type, 1);
  put(out, kProducerFixedMinMax, 1);
  put(out, type_flags, 1);
  put(out, 0, width);  // granularity
  put(out, first, width);
  put(out, last, width);
  put(out, 0, width);  // translation
  put(out, last - first + 1, width);
  return out;
}

constexpr u8 kWordSpace = 0x88, kDwordSpace = 0x87;

}  // namespace

Bytes join(std::initializer_list<Bytes> parts) {
  Bytes out;
  for (const Bytes& part : parts) append(out, part);
  return out;
}

Bytes name(std::string_view path, const Bytes& object) {
  Bytes out{kNameOp};
  append(out, path_bytes(path));
  append(out, object);
  return out;
}

Bytes scope(std::string_view path, const Bytes& body) { return named_block({kScopeOp}, path, body); }
Bytes device(std::string_view path, const Bytes& body) { return named_block({kExtPrefix, kDeviceOp}, path, body); }

Bytes integer(u64 value) {
  if (value <= 1) return {static_cast<u8>(value)};  // ZeroOp, OneOp
  const unsigned width = value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= 0xffffffff ? 4 : 8;
  Bytes out{width == 1 ? kBytePrefix : width == 2 ? kWordPrefix : width == 4 ? kDwordPrefix : kQwordPrefix};
  put(out, value, width);
  return out;
}

Bytes string(std::string_view text) {
  Bytes out{kStringPrefix};
  for (const char c : text) out.push_back(static_cast<u8>(c));
  out.push_back(0);
  return out;
}

// Three letters of five bits and four hexadecimal digits, big-endian (ACPI 6.4, 19.3.4 EISAID).
Bytes eisa_id(std::string_view id) {
  INVARIANT(id.size() == 7, "EISA id '{}'", id);
  const auto letter = [&](unsigned i) { return static_cast<u32>(id[i] - '@') & 31; };
  const auto digit = [&](unsigned i) { return static_cast<u32>(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10) & 15; };
  const u32 value =
      letter(0) << 26 | letter(1) << 21 | letter(2) << 16 | digit(3) << 12 | digit(4) << 8 | digit(5) << 4 | digit(6);
  Bytes out{kDwordPrefix};
  put(out, __builtin_bswap32(value), 4);
  return out;
}

Bytes package(const std::vector<Bytes>& elements) {
  INVARIANT(elements.size() <= 255, "AML package of {} elements", elements.size());
  Bytes body{static_cast<u8>(elements.size())};
  for (const Bytes& element : elements) append(body, element);
  Bytes out{kPackageOp};
  append(out, with_length(body));
  return out;
}

Bytes buffer(const Bytes& contents) {
  Bytes body = integer(contents.size());
  append(body, contents);
  Bytes out{kBufferOp};
  append(out, with_length(body));
  return out;
}

Bytes resources(std::initializer_list<Bytes> descriptors) {
  Bytes out = join(descriptors);
  out.push_back(0x79);  // end tag
  u8 sum = 0;
  for (const u8 byte : out) sum = static_cast<u8>(sum + byte);
  out.push_back(static_cast<u8>(-sum));
  return buffer(out);
}

Bytes io_port(u16 first, u8 length) {
  Bytes out{0x47, 1};
  put(out, first, 2);
  put(out, first, 2);
  put(out, 1, 1);  // alignment
  put(out, length, 1);
  return out;
}

Bytes irq(u8 number) {
  Bytes out{0x22};
  put(out, u64{1} << (number & 15), 2);
  return out;
}

Bytes memory(u32 first, u32 length) {
  constexpr u8 kMemory32Fixed = 0x86, kWritable = 1;
  Bytes out{kMemory32Fixed};
  put(out, 9, 2);
  put(out, kWritable, 1);
  put(out, first, 4);
  put(out, length, 4);
  return out;
}

Bytes interrupt(u32 gsi) {
  constexpr u8 kExtendedInterrupt = 0x89, kConsumer = 1, kActiveLow = 4, kShared = 8;  // and not edge, which is 2
  Bytes out{kExtendedInterrupt};
  put(out, 6, 2);
  put(out, kConsumer | kActiveLow | kShared, 1);
  put(out, 1, 1);
  put(out, gsi, 4);
  return out;
}

Bytes bus_window(u16 first, u16 last) { return window(kWordSpace, 2, 0, 2, first, last); }
Bytes io_window(u16 first, u16 last) {
  return window(kWordSpace, 1, 3, 2, first, last);
}  // the entire range, ISA and not
Bytes memory_window(u32 first, u32 last) {
  return window(kDwordSpace, 0, 1, 4, first, last);
}  // read-write, non-cacheable

}  // namespace trapline::acpi::aml
