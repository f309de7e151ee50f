#include "core/channel_bus.h"

#include <algorithm>

#include "base/trace.h"
#include "channel/trace_sink.h"
#include "cpu/code_map.h"

namespace trapline::core {

namespace {

std::atomic<u64> g_chipset_deadline{~u64{0}};

channel::Request of(channel::RequestKind kind) {
  channel::Request r;
  r.kind = static_cast<u32>(kind);
  return r;
}

u64 low_bytes(unsigned size) { return size >= 8 ? ~u64{0} : (u64{1} << size * 8) - 1; }

}  // namespace

ChannelBus::ChannelBus(channel::VcpuPages& pages, u32 vcpus, bool instructions_clock)
    : pages_{pages}, patience_{channel::Spin::longest_for(vcpus)}, instructions_clock_{instructions_clock} {}

u64 ChannelBus::chipset_deadline_ns() { return g_chipset_deadline.load(std::memory_order_relaxed); }

u64 ChannelBus::call(cpu::Vcpu& cpu, channel::Request request) {
  if (trace::mask) channel::flush_trace();  // lines of the two processes stay in order
  if (instructions_clock_) request.now_ns = cpu.clock->tsc_to_ns(cpu.vm_tsc());
  const u64 asked_at = __rdtsc();
  request.think = asked_at - resumed_at_;
  pages_.request = request;
  pages_.turn.store(static_cast<u32>(channel::Turn::requested));  // seq_cst: before the look at server_sleeps
  if (pages_.server_sleeps.load()) channel::futex_wake(pages_.turn);
  await_reply(cpu);
  resumed_at_ = __rdtsc();
  cpu.count.requests++, cpu.count.request_ticks += resumed_at_ - asked_at;
  const channel::Reply reply = pages_.reply;
  if (instructions_clock_) {
    // An event came nearer than the slice in progress reaches: let the loop plan anew.
    if (reply.deadline_ns < g_chipset_deadline.exchange(reply.deadline_ns, std::memory_order_relaxed))
      pages_.attention.fetch_or(cpu::attention::kick, std::memory_order_release);
  }
  return reply.value;
}

void ChannelBus::await_reply(cpu::Vcpu& cpu) {
  const auto replied = [&] {
    if (pages_.attention.load(std::memory_order_relaxed) & cpu::attention::smp_request) [[unlikely]]
      cpu.code->serve(cpu);  // another vCPU waits for this one meanwhile
    return pages_.turn.load(std::memory_order_acquire) == static_cast<u32>(channel::Turn::replied);
  };
  if (patience_.wait(replied)) return;
  const u64 since = __rdtsc();
  cpu.code->park(cpu);
  pages_.client_sleeps.store(1);
  while (pages_.turn.load() != static_cast<u32>(channel::Turn::replied))
    channel::futex_wait(pages_.turn, static_cast<u32>(channel::Turn::requested));
  pages_.client_sleeps.store(0, std::memory_order_relaxed);
  cpu.code->unpark(cpu);
  cpu.slept_ticks += __rdtsc() - since;
}

u32 ChannelBus::port_read(cpu::Vcpu& cpu, u16 port, unsigned size) {
  channel::Request r = of(channel::RequestKind::port_read);
  r.port = port, r.size = static_cast<u16>(size);
  return static_cast<u32>(call(cpu, r) & low_bytes(size));
}

void ChannelBus::port_write(cpu::Vcpu& cpu, u16 port, unsigned size, u32 value) {
  channel::Request r = of(channel::RequestKind::port_write);
  r.port = port, r.size = static_cast<u16>(size), r.value = value;
  call(cpu, r);
}

void ChannelBus::port_read_many(cpu::Vcpu& cpu, u16 port, unsigned size, u32 count, u8* out) {
  while (count > 0) {
    channel::Request r = of(channel::RequestKind::port_read_many);
    r.port = port, r.size = static_cast<u16>(size), r.count = std::min(count, channel::kBulkBytes / size);
    call(cpu, r);
    std::memcpy(out, pages_.bulk, u64{r.count} * size);
    out += u64{r.count} * size;
    count -= r.count;
  }
}

void ChannelBus::port_write_many(cpu::Vcpu& cpu, u16 port, unsigned size, u32 count, const u8* in) {
  while (count > 0) {
    channel::Request r = of(channel::RequestKind::port_write_many);
    r.port = port, r.size = static_cast<u16>(size), r.count = std::min(count, channel::kBulkBytes / size);
    std::memcpy(pages_.bulk, in, u64{r.count} * size);
    call(cpu, r);
    in += u64{r.count} * size;
    count -= r.count;
  }
}

u64 ChannelBus::mmio_read(cpu::Vcpu& cpu, Gpa gpa, unsigned size) {
  channel::Request r = of(channel::RequestKind::mmio_read);
  r.address = gpa, r.size = static_cast<u16>(size);
  return call(cpu, r) & low_bytes(size);
}

void ChannelBus::mmio_write(cpu::Vcpu& cpu, Gpa gpa, unsigned size, u64 value) {
  channel::Request r = of(channel::RequestKind::mmio_write);
  r.address = gpa, r.size = static_cast<u16>(size), r.value = value;
  call(cpu, r);
}

u8 ChannelBus::pic_acknowledge(cpu::Vcpu& cpu) {
  return static_cast<u8>(call(cpu, of(channel::RequestKind::pic_acknowledge)));
}

void ChannelBus::ioapic_eoi(cpu::Vcpu& cpu, u8 vector) {
  channel::Request r = of(channel::RequestKind::ioapic_eoi);
  r.value = vector;
  call(cpu, r);
}

void ChannelBus::numeric_error(cpu::Vcpu& cpu) { call(cpu, of(channel::RequestKind::numeric_error)); }
void ChannelBus::tick(cpu::Vcpu& cpu) { call(cpu, of(channel::RequestKind::tick)); }
void ChannelBus::idle(cpu::Vcpu& cpu) { call(cpu, of(channel::RequestKind::idle)); }

}  // namespace trapline::core
