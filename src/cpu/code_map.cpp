// Lock order: the rendezvous lock is the only one; a vCPU that waits for it keeps answering requests, so no two markers
// wait for each other.
#include "cpu/code_map.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <thread>

#include "base/host_refused.h"
#include "base/invariant.h"
#include "base/trace.h"
#include "channel/futex.h"
#include "cpu/clock.h"
#include "cpu/hypervisor.h"
#include "cpu/mmu.h"

namespace trapline::cpu {

namespace {

constexpr u32 kLineBytes = 64;

// The lines of one frame that [offset, offset + length) touches; the range ends inside the frame.
u64 line_mask(u32 offset, u64 length) {
  if (length == 0) return 0;
  const u64 first = offset / kLineBytes, last = (offset + length - 1) / kLineBytes;
  return (~u64{0} >> (63 - (last - first))) << first;
}

// Zeroed and untouched until used: a VM of 16 GiB has four million frames.
template <class T>
T* reserve(u64 count) {
  void* p =
      mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw HostRefused{
        fmt::format("no address space for {} bytes of code map: raise its limit (ulimit -v)", count * sizeof(T))};
  return static_cast<T*>(p);
}

// Spins briefly, then lets others run: the vCPU waited for may have no host CPU.
class Backoff {
 public:
  void pause() {
    if (++rounds_ < 256)
      _mm_pause();
    else
      std::this_thread::yield();
  }

 private:
  unsigned rounds_ = 0;
};

// Sets attention bits, and wakes a vCPU that sleeps while its guest code runs elsewhere.
void call(Vcpu& cpu, u32 bits) {
  cpu.attention->fetch_or(bits);
  if (cpu.sleep_word && cpu.sleep_word->load() == 1 && cpu.sleep_word->exchange(0) == 1)
    channel::futex_wake(*cpu.sleep_word);
}

// What a rendezvous asks of each vCPU: to give up its write entries for a frame, which is the number; or more.
constexpr u64 kFlushPage = u64{1} << 62, kFlushAll = u64{1} << 63;

void obey(Vcpu& cpu, u64 request) {
  if ((request & kFlushAll) && cpu.hypervisor)
    cpu.hypervisor->flush(cpu);
  else if (request & kFlushAll)
    tlb_flush_all_nonglobal(cpu);
  else if (request & kFlushPage)
    tlb_flush_page(cpu, Gva{request << 12});
  else
    tlb_drop_write(cpu, Gpa{request * kPageSize});
}

}  // namespace

struct CodeMap::Impl {
  // Requests are numbered from 1. A vCPU that was parked may have several to answer; beyond kRing it gives up all its
  // write entries.
  static constexpr u64 kRing = 64;
  struct alignas(64) Member {
    Vcpu* cpu = nullptr;
    std::atomic<u64> answered{0};  // the last request it has answered; written by its own thread
    std::atomic<bool> parked{false};
  };
  u64 frames = 0;
  bool own_lines = true;
  std::vector<std::unique_ptr<Member>> members;
  std::atomic<u32> busy{
      0};  // the rendezvous lock; held from before a frame's first line is set until every vCPU has answered
  std::atomic<u64> requests{0};
  std::atomic<u64> ring[kRing] = {};

  Member* member(const Vcpu& cpu) {
    for (auto& m : members)
      if (m->cpu == &cpu) return m.get();
    return nullptr;
  }
  void answer(Member& m);
};

// Drops what the requests since the last answer name.
void CodeMap::Impl::answer(Member& m) {
  const u64 last = requests.load();
  const u64 before = m.answered.load(std::memory_order_relaxed);
  if (last == before) return;
  if (last - before < kRing) {
    for (u64 i = before + 1; i <= last; i++) obey(*m.cpu, ring[i % kRing].load(std::memory_order_relaxed));
  } else if (m.cpu->hypervisor) {
    tlb_flush_all(*m.cpu);  // they may have been of any kind
  } else {
    tlb_drop_all_write(*m.cpu);
  }
  m.answered.store(last, std::memory_order_release);
}

CodeMap::CodeMap(const GuestMemory& ram, std::atomic<u64>* lines) : impl_{std::make_unique<Impl>()} {
  impl_->frames = ram.frames();
  generation_ = reserve<std::atomic<u32>>(impl_->frames);
  given_up_ = reserve<std::atomic<u32>>(impl_->frames);
  impl_->own_lines = lines == nullptr;
  lines_ = lines != nullptr ? lines : reserve<std::atomic<u64>>(impl_->frames);
}

CodeMap::~CodeMap() {
  munmap(generation_, impl_->frames * sizeof *generation_);
  munmap(given_up_, impl_->frames * sizeof *given_up_);
  if (impl_->own_lines) munmap(lines_, impl_->frames * sizeof *lines_);
}

void CodeMap::add_vcpu(Vcpu* cpu) {
  impl_->members.push_back(std::make_unique<Impl::Member>());
  impl_->members.back()->cpu = cpu;
}

void CodeMap::mark(Vcpu& self, u64 frame, u32 offset, u32 length) {
  if (frame >= impl_->frames || offset >= kPageSize) return;
  const u64 lines = line_mask(offset, std::min<u64>(length, kPageSize - offset));
  u64 old = lines_[frame].load(std::memory_order_acquire);
  while (old != 0) {
    // No write entry for it is left, unless its rendezvous is still under way: then join that.
    const bool set =
        (old & lines) == lines ||
        lines_[frame].compare_exchange_weak(old, old | lines, std::memory_order_acq_rel, std::memory_order_acquire);
    if (set && impl_->busy.load() == 0) return;
    if (set) break;
  }
  if (impl_->members.size() <= 1) {
    lines_[frame].fetch_or(lines, std::memory_order_acq_rel);
    tlb_drop_write(self, Gpa{frame * kPageSize});
    return;
  }
  rendezvous(self, frame, lines);
}

u32 CodeMap::mark_and_number(Vcpu& self, u64 frame, u32 offset, u32 length) {
  const u64 lines = line_mask(offset, std::min<u64>(length, kPageSize - offset));
  for (;;) {
    mark(self, frame, offset, length);
    // written() clears the lines before it moves the number: with the lines still there, this one is of before.
    const u32 number = generation_[frame].load(std::memory_order_acquire);
    if ((lines_[frame].load(std::memory_order_acquire) & lines) == lines) return number;
  }
}

void CodeMap::rendezvous(Vcpu& self, u64 frame, u64 lines) {
  Impl& m = *impl_;
  Backoff backoff;
  for (u32 free = 0; !m.busy.compare_exchange_weak(free, 1); free = 0) {
    serve(self);
    backoff.pause();
  }
  const u64 old = lines_[frame].fetch_or(lines, std::memory_order_acq_rel);
  if (old == 0) call_all(self, frame);
  m.busy.store(0);
}

// The caller holds the rendezvous lock.
void CodeMap::call_all(Vcpu& self, u64 request) {
  Impl& m = *impl_;
  const u64 number = m.requests.load(std::memory_order_relaxed) + 1;
  m.ring[number % Impl::kRing].store(request, std::memory_order_relaxed);
  m.requests.store(number);
  for (auto& other : m.members)
    if (other->cpu != &self) call(*other->cpu, attention::smp_request);
  if (Impl::Member* me = m.member(self))
    m.answer(*me);
  else
    obey(self, request);
  for (auto& other : m.members)
    for (Backoff b;
         other->cpu != &self && !other->parked.load() && other->answered.load(std::memory_order_acquire) < number;)
      b.pause();
}

void CodeMap::ask_all(Vcpu& self, u64 request) {
  if (impl_->members.size() <= 1) return obey(self, request);
  Backoff backoff;
  for (u32 free = 0; !impl_->busy.compare_exchange_weak(free, 1); free = 0) {
    serve(self);
    backoff.pause();
  }
  call_all(self, request);
  impl_->busy.store(0);
}

void CodeMap::drop_writers(Vcpu& self, u64 frame) { ask_all(self, frame); }
void CodeMap::flush_page_everywhere(Vcpu& self, Gva linear) { ask_all(self, kFlushPage | linear.raw >> 12); }
void CodeMap::flush_everywhere(Vcpu& self) { ask_all(self, kFlushAll); }

bool CodeMap::written(u64 frame, u32 offset, u64 length) {
  if (offset >= kPageSize) return false;
  bool hit = false;
  while (length != 0 && frame < impl_->frames) {
    const u64 n = std::min<u64>(length, kPageSize - offset);
    if (has_code(frame) && written_in_frame(frame, line_mask(offset, n))) hit = true;
    length -= n;
    offset = 0;
    frame++;
  }
  return hit;
}

bool CodeMap::written_in_frame(u64 frame, u64 lines) {
  u64 old = lines_[frame].load(std::memory_order_acquire);
  do {
    if (!(old & lines)) return false;
  } while (!lines_[frame].compare_exchange_weak(old, 0, std::memory_order_acq_rel, std::memory_order_acquire));
  // The lines first: who marks after this has the rendezvous to itself; who marked before has recorded the old number.
  generation_[frame].fetch_add(1, std::memory_order_acq_rel);
  tell_watchers(frame);
  TRACE(blocks, "code in frame {:#x} is overwritten", frame);
  return true;
}

void CodeMap::give_up(u64 frame) {
  if (frame >= impl_->frames || lines_[frame].exchange(0, std::memory_order_acq_rel) == 0) return;
  // Before the number moves: who sees the new one must see this too. If somebody else moves it in between, what was
  // decoded is compared once more, which is no harm.
  given_up_[frame].store(generation_[frame].load(std::memory_order_acquire) + 1, std::memory_order_release);
  generation_[frame].fetch_add(1, std::memory_order_acq_rel);
  tell_watchers(frame);
  TRACE(blocks, "code in frame {:#x} is given up", frame);
}

void CodeMap::tell_watchers(u64 frame) {
  const u64 number = epoch_.fetch_add(1, std::memory_order_acq_rel) + 1;
  log_[number % kLog].store(log_entry(number, frame), std::memory_order_release);
  if (!watched_.load(std::memory_order_relaxed)) return;
  for (auto& m : impl_->members) call(*m->cpu, attention::code_changed);
}

bool CodeMap::overwritten(u64 since, u64 until, std::vector<u64>& frames) const {
  if (until - since > kLog) return false;
  for (u64 number = since + 1; number <= until; number++) {
    const u64 entry = log_[number % kLog].load(std::memory_order_acquire);
    const u64 frame = entry & ((u64{1} << kFrameBits) - 1);
    if (entry != log_entry(number, frame)) return false;
    frames.push_back(frame);
  }
  return true;
}

void CodeMap::serve(Vcpu& self) {
  self.attention->fetch_and(~attention::smp_request, std::memory_order_acquire);
  if (Impl::Member* me = impl_->member(self)) impl_->answer(*me);
}

void CodeMap::park(Vcpu& self) {
  if (Impl::Member* me = impl_->member(self)) me->parked.store(true);
}

void CodeMap::unpark(Vcpu& self) {
  Impl::Member* me = impl_->member(self);
  if (!me) return;
  // Markers that still saw us parked have numbered their request before this store: answer() sees it.
  me->parked.store(false);
  serve(self);
}

void CodeMap::step_aside(Vcpu& self) {
  if (impl_->members.size() <= 1) return;
  self.count.yields++;
  // Who shares a CPU with the vCPU that it waits for must sleep: a yield lets that one run until the host's next tick,
  // and whoever waits for the waiter waits as long. Shorter, and the sleeper is back before the other has run.
  constexpr u64 kSleepNs = 20'000;
  static std::atomic<u32> nobody_wakes{0};
  const bool share = impl_->members.size() > channel::usable_cpus() && !(self.clock && self.clock->instructions);
  if (share)
    channel::futex_wait(nobody_wakes, 0, kSleepNs);
  else
    std::this_thread::yield();
}

}  // namespace trapline::cpu
