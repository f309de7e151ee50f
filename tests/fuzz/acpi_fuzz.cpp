// The ACPI table writer over CPU counts and memory sizes: every table that the root pointer leads to lies in the
// tables' area and sums to zero (ACPI 6.4, 5.2).
#include <cstring>
#include <map>

#include "base/invariant.h"
#include "boot/acpi_area.h"

using namespace trapline;

namespace {

constexpr u64 kMemory[] = {MiB, 64 * MiB, 3 * GiB, 3 * GiB + kPageSize, 16 * GiB};

template <class T>
T at(const GuestMemory& ram, u64 gpa) {
  const auto bytes = ram.bytes(Gpa{gpa}, sizeof(T));
  INVARIANT(bytes, "{:#x} is not RAM", gpa);
  T v;
  std::memcpy(&v, bytes->data(), sizeof v);
  return v;
}

void check_sum(const GuestMemory& ram, u64 gpa, u64 size) {
  INVARIANT(gpa >= boot::kAcpiTablesStart.raw && size <= boot::kAcpiTablesEnd.raw - gpa,
            "table {:#x}+{:#x} is outside of its area", gpa, size);
  u8 sum = 0;
  for (u64 i = 0; i < size; i++) sum = static_cast<u8>(sum + at<u8>(ram, gpa + i));
  INVARIANT(sum == 0, "table {:#x}+{:#x} sums to {:#x}", gpa, size, sum);
}

void check_table(const GuestMemory& ram, u64 gpa) {
  const u32 size = at<u32>(ram, gpa + 4);
  INVARIANT(size >= 36, "table {:#x} has {} bytes", gpa, size);
  check_sum(ram, gpa, size);
  if (at<u32>(ram, gpa) == 0x50434146) check_table(ram, at<u32>(ram, gpa + 40));  // FACP -> DSDT
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size < 4) return 0;
  u16 cpus, pages;
  std::memcpy(&cpus, data, 2);
  std::memcpy(&pages, data + 2, 2);
  static std::map<u64, GuestMemory> kept;  // mapping anew for each input would take most of the time
  const u64 memory = kMemory[pages % std::size(kMemory)];
  if (!kept.contains(memory)) kept[memory] = *GuestMemory::anonymous(memory);
  GuestMemory* ram = &kept[memory];
  const u64 rsdp = boot::write_acpi_tables(*ram, cpus % 1024 + 1).raw;
  INVARIANT(rsdp % 16 == 0, "root pointer at {:#x}", rsdp);
  check_sum(*ram, rsdp, 20);
  check_sum(*ram, rsdp, at<u32>(*ram, rsdp + 20));
  for (const auto& [root, width] :
       {std::pair{u64{at<u32>(*ram, rsdp + 16)}, 4u}, std::pair{at<u64>(*ram, rsdp + 24), 8u}}) {
    check_table(*ram, root);
    const u32 length = at<u32>(*ram, root + 4);
    for (u32 entry = 36; entry + width <= length; entry += width)
      check_table(*ram, width == 8 ? at<u64>(*ram, root + entry) : at<u32>(*ram, root + entry));
  }
  return 0;
}
