// Which frames of guest RAM hold code that an engine has decoded, VM-wide, so that writes to them are noticed.
//
// A block records generation(frame) before it calls mark(), reads its bytes after, and is stale once the number has
// moved: engines compare on entry to a block. The order matters: written() forgets the lines of a frame that it
// invalidates. mark() makes every vCPU give up its write-TLB entries for the frame before it returns (a rendezvous
// through attention::smp_request; parked vCPUs answer before they run again), so that a later guest write takes the
// MMU's slow path, which calls written(). Lines of 64 bytes are told apart: data beside code does not invalidate.
//
// Any thread may call generation(), has_code() and written() (DMA by devices does, through a thread of the core: core/device_writes.h);
// mark(), serve(), park() and unpark() are for the vCPU's own thread. vCPUs start unparked: one whose thread does not
// run, sleeps or has ended must be parked, or markers wait for it for ever. Never sleep between unpark() and park() on
// something that another vCPU's mark() precedes.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "base/addr.h"
#include "base/guest_memory.h"
#include "base/types.h"

namespace trapline::cpu {

struct Vcpu;

class CodeMap {
 public:
  // `lines`: zeroed words, one for each frame, that others may read (channel/code_writes.h); null: memory of its own.
  explicit CodeMap(const GuestMemory& ram, std::atomic<u64>* lines = nullptr);
  ~CodeMap();
  CodeMap(const CodeMap&) = delete;

  void add_vcpu(Vcpu* cpu);  // before vCPU threads start

  const std::atomic<u32>& generation(u64 frame) const { return generation_[frame]; }
  bool has_code(u64 frame) const { return lines_[frame].load(std::memory_order_acquire) != 0; }

  // `self` is about to decode [offset, offset+length) of `frame`. On return no vCPU has a write entry for it.
  void mark(Vcpu& self, u64 frame, u32 offset, u32 length);
  // The same, and the generation that holds while the lines stay marked: a write that cleared them in the middle of
  // mark() would go unnoticed from then on.
  u32 mark_and_number(Vcpu& self, u64 frame, u32 offset, u32 length);
  // On return no vCPU has a write entry for the frame, whatever it holds.
  void drop_writers(Vcpu& self, u64 frame);
  // The same for every entry of a linear page, and for every entry that there is.
  void flush_page_everywhere(Vcpu& self, Gva linear);
  void flush_everywhere(Vcpu& self);
  // From now on every overwriting of decoded code sets attention::code_changed on all vCPUs (engines whose code does
  // not compare generations ask for it) and moves epoch().
  void watch() { watched_.store(true); }
  u64 epoch() const { return epoch_.load(std::memory_order_acquire); }
  // The frames that were overwritten after epoch() was `since` and until it was `until` (appended, some perhaps twice).
  // False: too many to be told apart, look at all.
  bool overwritten(u64 since, u64 until, std::vector<u64>& frames) const;
  // Bytes were written (call it after they were). True when they hit decoded code: the generation has moved. The range
  // may run on into the frames that follow.
  bool written(u64 frame, u32 offset, u64 length);
  // The frame is about to be written to a good deal: what was decoded of it is not to be kept even where its bytes stay,
  // and nothing of it is marked any more. Any thread.
  void give_up(u64 frame);
  // The generation since which that holds; generations before it are given up. 0: never.
  u32 given_up(u64 frame) const { return given_up_[frame].load(std::memory_order_acquire); }
  // The vCPU thread answers attention::smp_request. Also called before a halted vCPU runs again.
  void serve(Vcpu& self);
  // Around sleeping (halt, channel waits): a parked vCPU is not waited for; unpark serves first.
  void park(Vcpu& self);
  void unpark(Vcpu& self);
  // `self` spins: it gives its host CPU away, if there is another vCPU that it may be waiting for. On a busy host that
  // takes milliseconds, and a vCPU that is alone waits for time alone (udelay).
  void step_aside(Vcpu& self);

 private:
  struct Impl;
  bool written_in_frame(u64 frame, u64 lines);
  void rendezvous(Vcpu& self, u64 frame, u64 lines);
  void ask_all(Vcpu& self, u64 request);
  void call_all(Vcpu& self, u64 request);
  void tell_watchers(u64 frame);
  std::atomic<bool> watched_{false};
  std::atomic<u64> epoch_{0};
  // The last changes, each with its number, so that a reader knows one that is not written yet, or written over.
  static constexpr u64 kLog = 256;
  static constexpr unsigned kFrameBits = 28;  // 1 TiB of RAM
  static constexpr u64 log_entry(u64 number, u64 frame) { return number << kFrameBits | frame; }
  std::atomic<u64> log_[kLog] = {};
  std::atomic<u32>* generation_;
  std::atomic<u32>* given_up_;
  std::atomic<u64>* lines_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trapline::cpu
