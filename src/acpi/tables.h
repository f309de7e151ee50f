// ACPI tables for the machine in machine/chipset.h: RSDP, RSDT/XSDT, FADT, FACS, MADT, DSDT (PCI root, S5, COM1, RTC).
// ACPI 6.4. They are built where they belong nowhere yet: pointers are offsets and checksums 0, and lists say where
// both are, for whoever knows the place, the boot loader here (place) or a firmware (etc/table-loader).
#pragma once

#include <vector>

#include "base/addr.h"

namespace trapline::acpi {

struct Machine {
  u32 cpus = 1;
  bool firmware = false;  // it places PCI memory and has the BIOS's area
  bool keyboard = false;  // behind the i8042
  bool display = false;   // a VGA
  u32 virtio_mmio = 0;    // virtio devices that are not on the PCI bus
};

enum class File : u8 { rsdp, tables };

struct Pointer {
  File in;
  u32 at, bytes;  // where it is; it holds an offset into `tables`
};
struct Checksum {
  File in;
  u32 at, start, length;  // in this order in `checksums`: inner ones first
};

struct Image {
  std::vector<u8> rsdp, tables;  // `tables` is to be aligned to 64 bytes, for the FACS
  std::vector<Pointer> pointers;
  std::vector<Checksum> checksums;
  std::vector<u8>& file(File f) { return f == File::rsdp ? rsdp : tables; }
};

Image build(const Machine& machine);

// Makes pointers and checksums right for `tables` at this address.
void place(Image& image, Gpa tables_at);

}  // namespace trapline::acpi
