// The memory that monitor and core share, and the protocol on it.
//
//   one memfd:  [ VmPage | launch parameters | VcpuPages 0 | VcpuPages 1 | ... ]
//
// Requests: a vCPU thread fills `request`, sets turn = requested, wakes the monitor's service thread for this vCPU if
// that sleeps, and waits for turn = replied. One request per vCPU is in flight. Interrupts go the other way without a
// request: inbox bits, then an attention bit, then the sleep word (posted.h). Ends: whoever in the core ends the
// VM claims `report`, fills it in and exits; the monitor reads it when the process is gone.
//
// Everything here is writable by both processes, so each side copies a field once, checks the copy and uses the copy.
// The monitor believes nothing; the core believes replies (the monitor owns it) but masks them to the width asked for.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/types.h"
#include "channel/code_writes.h"
#include "channel/counters.h"
#include "channel/debug_mailbox.h"
#include "channel/doorbell.h"
#include "channel/posted.h"
#include "channel/serial_ring.h"

namespace trapline::channel {

inline constexpr u32 kMaxVcpus = 64;
inline constexpr u32 kBulkBytes = 4096;
inline constexpr u32 kReportBytes = 128 * 1024;
inline constexpr u32 kLaunchBytes = 512 * 1024;

enum class RequestKind : u32 {
  port_read = 1,    // port, size -> value
  port_write,       // port, size, value
  port_read_many,   // port, size, count -> bulk
  port_write_many,  // port, size, count, bulk
  mmio_read,        // address, size -> value
  mmio_write,       // address, size, value
  pic_acknowledge,  // -> value
  ioapic_eoi,       // value: vector
  tick,             // --clock instructions: now_ns has reached the deadline of the chipset, or input may have come
  idle,             // --clock instructions: nothing can happen but input from outside; answered when there is some
  numeric_error,    // FERR# has gone up: IRQ 13
};

struct Request {
  u32 kind = 0;
  u32 count = 0;
  u16 port = 0;
  u16 size = 0;
  u32 reserved = 0;
  Gpa address;
  u64 value = 0;
  u64 now_ns = 0;  // guest time; authoritative under --clock instructions, else unused
  u64 think = 0;   // host TSC ticks since the last reply was seen: tunes the service thread's polling, nothing else
};

struct Reply {
  u64 value = 0;
  u64 deadline_ns = ~u64{0};  // --clock instructions: the chipset's next event
};

enum class Turn : u32 { idle = 0, requested = 1, replied = 2, closed = 3 };

// What one vCPU did, for --stats. Copied out when the core ends.
struct VcpuStats {
  u64 retired = 0;
  Counters count;
  u64 verified_stretches = 0, verified_instructions = 0;  // --verify; of the whole VM, in vCPU 0's
};

enum class EndKind : u32 {
  none = 0,
  stopped,         // the monitor asked for it
  boot_failed,     // text: one line for the user
  guest_crash,     // text: report
  guest_halted,    // no vCPU can ever run again
  host_memory,     // guest RAM could not be allocated
  host_refused,    // something the core needs is missing
  internal_error,  // text: report
  verify_failed,   // text: report
};

struct Report {
  std::atomic<u32> claimed{0};
  std::atomic<u32> kind{0};  // EndKind; stored last
  u32 length = 0;
  char text[kReportBytes] = {};
};

enum class Boots : u32 { unknown, maybe_linux, not_linux };

struct alignas(kPageSize) VmPage {
  std::atomic<u32> stop{0};         // the monitor ends the VM: threads leave the engine and the core exits
  std::atomic<u32> clock_ready{0};  // tsc_khz and tsc_offset are valid; a futex
  u64 tsc_khz = 0, tsc_offset = 0;  // host TSC + offset = guest TSC
  u64 start_ns = 0;                 // --clock instructions: guest time at which the core starts (not 0 after a reset)
  u32 vcpus = 0;
  u32 launch_length = 0;
  std::atomic<u32> boots{0};  // Boots: what the core found the kernel to be
  u32 trace_error = 0;        // errno of the write that ended the core's trace, left as it dies
  alignas(64) SerialRing serial;
  Doorbell doorbells[kDoorbells];
  CodeWrites code_writes;
  alignas(64) DebugMailbox debug;
  alignas(64) Report report;
};

struct alignas(kPageSize) VcpuPages {
  alignas(64) std::atomic<u32> turn{0};
  std::atomic<u32> server_sleeps{0}, client_sleeps{0};
  alignas(64) Request request;
  alignas(64) Reply reply;
  alignas(64) LapicInbox inbox;
  alignas(64) std::atomic<u32> attention{0};
  std::atomic<u32> sleep{0};  // 1 while the vCPU sleeps in a halt; wakers exchange it for 0 and wake
  alignas(64) LapicMirror mirror;
  alignas(64) VcpuStats stats;
  alignas(kPageSize) u8 bulk[kBulkBytes] = {};
};

// Sets attention bits and wakes the vCPU if it sleeps. Any thread of either process.
void kick(VcpuPages& vcpu, u32 attention_bits);
// The same without bits: they were set already.
void wake(VcpuPages& vcpu);

// The mapping. Movable; unmapped at the end.
class Channel {
 public:
  static Result<Channel, std::string> create(u32 vcpus);          // monitor: makes the memfd
  static Result<Channel, std::string> attach(int fd, u32 vcpus);  // core
  Channel() = default;
  Channel(Channel&& o) noexcept;
  Channel& operator=(Channel&& o) noexcept;
  ~Channel();

  VmPage& vm() const { return *reinterpret_cast<VmPage*>(base_); }
  u8* launch() const { return base_ + sizeof(VmPage); }
  VcpuPages& vcpu(u32 index) const {
    return *reinterpret_cast<VcpuPages*>(base_ + sizeof(VmPage) + kLaunchBytes + index * sizeof(VcpuPages));
  }
  u32 vcpus() const { return vcpus_; }
  int fd() const { return fd_; }

 private:
  static u64 bytes(u32 vcpus) { return sizeof(VmPage) + kLaunchBytes + vcpus * sizeof(VcpuPages); }
  u8* base_ = nullptr;
  u32 vcpus_ = 0;
  int fd_ = -1;
};

static_assert(sizeof(VmPage) % kPageSize == 0 && sizeof(VcpuPages) % kPageSize == 0 && kLaunchBytes % kPageSize == 0);

}  // namespace trapline::channel
