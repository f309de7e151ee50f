#include "boot/firmware.h"

#include <array>

#include "boot/loader.h"

namespace trapline::boot {

namespace {

using loader::put;
using loader::put_value;

constexpr u16 kSegment = 0xf000;
constexpr u64 kBase = u64{kSegment} << 4;

// Real-mode code, each piece at an offset of its own in segment F000.
constexpr u16 kFail = 0xf000, kStop = 0xf010, kReturn = 0xf020, kEquipment = 0xf030, kMemorySize = 0xf040,
              kMasterIrq = 0xf050, kSlaveIrq = 0xf080, kReset = 0xfff0;

// A service that is not there: CF=1, AH=86 ("function not supported").
constexpr u8 kFailCode[] = {
    0x55,                    // push bp
    0x89, 0xe5,              // mov bp, sp
    0x80, 0x4e, 0x06, 0x01,  // or byte [bp + 6], 1
    0x5d,                    // pop bp
    0xb4, 0x86,              // mov ah, 0x86
    0xcf,                    // iret
};
// An exception without a handler: the monitor tells that the guest halted, and where.
constexpr u8 kStopCode[] = {
    0xfa,        // cli
    0xf4,        // hlt
    0xeb, 0xfd,  // jmp to the hlt
};
constexpr u8 kReturnCode[] = {0xcf};
// A word of the data area: INT 11 and INT 12 cannot fail.
constexpr std::array<u8, 11> data_word(u8 offset) {
  return {
      0x1e,                // push ds
      0x6a, 0x40,          // push 0x40
      0x1f,                // pop ds
      0xa1, offset, 0x00,  // mov ax, [offset]
      0x1f,                // pop ds
      0xcf,                // iret
      0x90, 0x90,          // nop
  };
}
// IRQs and the exceptions that share their vectors: with nothing in service at the 8259 it was an exception.
constexpr u8 kMasterIrqCode[] = {
    0x50,        // push ax
    0xb0, 0x0b,  // mov al, 0x0b: read the in-service register
    0xe6, 0x20,  // out 0x20, al
    0xe4, 0x20,  // in al, 0x20
    0x84, 0xc0,  // test al, al
    0x74, 0x06,  // jz stop
    0xb0, 0x20,  // mov al, 0x20: end of interrupt
    0xe6, 0x20,  // out 0x20, al
    0x58,        // pop ax
    0xcf,        // iret
    0xfa,        // stop: cli
    0xf4,        // hlt
    0xeb, 0xfd,  // jmp to the hlt
};
constexpr u8 kSlaveIrqCode[] = {
    0x50,        // push ax
    0xb0, 0x20,  // mov al, 0x20
    0xe6, 0xa0,  // out 0xa0, al
    0xe6, 0x20,  // out 0x20, al
    0x58,        // pop ax
    0xcf,        // iret
};
// Where a CPU would start: software jumps there to start over.
constexpr u8 kResetCode[] = {
    0xba, 0xf9, 0x0c,  // mov dx, 0xcf9
    0xb0, 0x06,        // mov al, 6
    0xee,              // out dx, al
    0xfa,              // cli
    0xf4,              // hlt
    0xeb, 0xfd,        // jmp to the hlt
};

u16 handler(unsigned vector) {
  switch (vector) {
    case 0:  // #DE, BOUND, #UD, #NM
    case 5:
    case 6:
    case 7:
      return kStop;
    case 1:  // traps and the NMI
    case 2:
    case 3:
    case 4:
    case 0x1c:  // the timer's and the keyboard's hooks
    case 0x1b:
      return kReturn;
    case 0x11:
      return kEquipment;
    case 0x12:
      return kMemorySize;
    default:
      return vector >= 8 && vector < 16 ? kMasterIrq : vector >= 0x70 && vector < 0x78 ? kSlaveIrq : kFail;
  }
}

// The words that kernels read: COM1's ports, the EBDA's segment, the equipment, the memory below the EBDA in KiB.
void write_data_area(GuestMemory& ram) {
  constexpr u16 kOneSerialPort = 1 << 9;
  put_value<u16>(ram, Gpa{0x400}, 0x3f8);
  put_value<u16>(ram, Gpa{0x40e}, loader::kExtendedBiosData.raw >> 4);
  put_value<u16>(ram, Gpa{0x410}, kOneSerialPort);
  put_value<u16>(ram, Gpa{0x413}, loader::kLowMemoryKiB);
}

}  // namespace

void write_firmware(GuestMemory& ram) {
  const auto code = [&](u16 at, const auto& bytes) { put(ram, Gpa{kBase + at}, std::as_bytes(std::span{bytes})); };
  code(kFail, kFailCode);
  code(kStop, kStopCode);
  code(kReturn, kReturnCode);
  code(kEquipment, data_word(0x10));
  code(kMemorySize, data_word(0x13));
  code(kMasterIrq, kMasterIrqCode);
  code(kSlaveIrq, kSlaveIrqCode);
  code(kReset, kResetCode);
  for (unsigned vector = 0; vector < 256; vector++)
    put_value<u32>(ram, Gpa{4 * vector}, u32{kSegment} << 16 | handler(vector));
  write_data_area(ram);
}

}  // namespace trapline::boot
