// What the format loaders share: the request, the RAM, and the names of things for error lines. One loader per file.
#pragma once

#include <string>

#include "boot/boot.h"
#include "boot/elf.h"
#include "boot/memory_map.h"

namespace trapline::boot::loader {

struct LoadContext {
  GuestMemory& ram;
  cpu::Vcpu& cpu;
  const BootRequest& request;
  Placer place;
  Gpa rsdp;  // 0: no ACPI tables
};

using Loaded = Result<BootInfo, std::string>;  // errors without the image's name: boot() puts it in front

inline constexpr const char* kLoaderName = "trapline";
inline constexpr u64 kCommandLineMax = 64 * KiB - 1;  // where the format sets no limit

// Copies into RAM that the Placer handed out: that it is RAM is an invariant.
void put(GuestMemory& ram, Gpa at, Bytes bytes);
void put_image(LoadContext& c, Gpa at, Bytes bytes);  // the same for the larger parts of images
void zero(LoadContext& c, Gpa at, u64 size);
template <class T>
void put_value(GuestMemory& ram, Gpa at, const T& value) {
  put(ram, at, std::as_bytes(std::span{&value, 1}));
}

// Below 640 KiB if there is room, else anywhere below 4 GiB; zeroed. Nothing: no RAM is left.
std::optional<Gpa> place_low(LoadContext& c, u64 size, u64 alignment);
// `text` with a NUL, placed low.
std::optional<Gpa> place_string(LoadContext& c, std::string_view text);
inline std::string no_room(const GuestMemory& ram) {
  return fmt::format("no room is left in {} of guest memory: {}", human_size(ram.size()),
                     memory_remedy(2 * ram.size()));
}

// Claims and copies all segments, `delta` away from where they are linked. Error: not RAM, overlap, above 4 GiB.
Result<void, std::string> load_segments(LoadContext& c, const ElfImage& elf, u64 delta);
// Why [start, start + size) of the image could not be claimed.
std::string claim_error(const LoadContext& c, Placer::Claim why, const std::string& what, Gpa start, u64 size);

bool is_bzimage(Bytes image);
Loaded load_linux(LoadContext& c);
Loaded load_pvh(LoadContext& c, const ElfImage& elf, Gpa entry);
std::optional<u64> find_multiboot1(Bytes image);  // the header's offset
Loaded load_multiboot1(LoadContext& c, u64 header);
std::optional<u64> find_multiboot2(Bytes image);
Loaded load_multiboot2(LoadContext& c, u64 header);

}  // namespace trapline::boot::loader
