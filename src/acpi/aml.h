// A small assembler for ACPI Machine Language (ACPI 6.4 chapter 20): functions return encoded terms, callers
// concatenate them.
//
//   aml::scope("\\_SB_", aml::device("RTC0", aml::name("_HID", aml::eisa_id("PNP0B00"))))
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace trapline::acpi::aml {

using Bytes = std::vector<u8>;

Bytes join(std::initializer_list<Bytes> parts);

// Names: segments of four characters joined by '.', with an optional leading '\'. Shorter segments are padded with '_'.
Bytes name(std::string_view path, const Bytes& object);
Bytes scope(std::string_view path, const Bytes& body);
Bytes device(std::string_view path, const Bytes& body);

Bytes integer(u64 value);
Bytes string(std::string_view text);                // ASCII without NUL
Bytes eisa_id(std::string_view id);                 // "PNP0A03"
Bytes package(const std::vector<Bytes>& elements);  // at most 255
Bytes buffer(const Bytes& contents);

// Resource descriptors (ACPI 6.4, 6.4); resources() makes the buffer with the end tag.
Bytes resources(std::initializer_list<Bytes> descriptors);
Bytes io_port(u16 first, u8 length);  // fixed, 16-bit decode
Bytes irq(u8 number);                 // edge, active high, exclusive
Bytes memory(u32 first, u32 length);  // fixed, writable
Bytes interrupt(u32 gsi);             // level, active low, shared
// Windows that a bridge forwards; `last` is inclusive.
Bytes bus_window(u16 first, u16 last);
Bytes io_window(u16 first, u16 last);
Bytes memory_window(u32 first, u32 last);

}  // namespace trapline::acpi::aml
