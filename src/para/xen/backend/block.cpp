#include "para/xen/backend/block.h"

#include "base/trace.h"

namespace trapline::para::xen {

namespace {

constexpr u32 kSectorBytes = 512, kSectorsPerPage = kPageSize / kSectorBytes;
constexpr u64 kSlotBytes = 1024, kStatus = 0x10, kRange = 0x18, kTable = 0x40;
constexpr u64 kVirtioReadOnly = 1 << 5, kVirtioFlush = 1 << 9, kVirtioDiscard = 1 << 13;  // VIRTIO 1.2, 5.2.3
enum Type : u32 { in = 0, out = 1, flush = 4, discard = 11 };
enum Status : u8 { ok = 0, io_error = 1, unsupported = 2 };
struct Range {
  u64 sector;
  u32 sectors, flags;
};
constexpr u64 kMostAtOnce = 4096;  // requests that one call takes

// As toolstacks number them (docs/man/xen-vbd-interface in Xen's tree).
u32 device_number(u32 index) { return index < 16 ? 202u << 8 | index << 4 : 1u << 28 | index << 8; }

std::string device_name(u32 index) {
  const auto letter = [](u32 n) { return static_cast<char>('a' + n); };
  return index < 26 ? std::string("xvd") + letter(index)
                    : std::string("xvd") + letter(index / 26 - 1) + letter(index % 26);
}

}  // namespace

static_assert(offsetof(blkif_request, id) == offsetof(blkif_request_indirect, id) &&
              offsetof(blkif_request, id) == offsetof(blkif_request_discard, id) &&
              offsetof(blkif_request, nr_segments) == offsetof(blkif_request_indirect, indirect_op));

struct BlockBackEnd::Header {
  u32 type, reserved;
  u64 sector;
};

BlockBackEnd::BlockBackEnd(Domain& domain, GuestMemory& ram, VirtioFunction function, u32 index, u32 instance, Mfn heap)
    : BackEnd{domain, "vbd", device_number(index), Consumer::block, instance},
      ram_{ram},
      function_{function},
      index_{index},
      heap_{heap},
      queue_{ram, gpa(heap), kSlots} {
  static_assert(kSlots * kSlotBytes == (kDiskFrames - 1) * kPageSize);
  static_assert(kTable + (kMostSegments + 2) * sizeof(VirtioDescriptor) <= kSlotBytes);
}

Gpa BlockBackEnd::memory(u16 slot) const { return gpa(heap_ + 1).wrapping_add(slot * kSlotBytes); }

template <class T>
T* BlockBackEnd::at(u16 slot, u64 offset) const {
  return reinterpret_cast<T*>(ram_.host(Gpa{memory(slot).raw + offset}));
}

bool BlockBackEnd::begin(cpu::Vcpu& cpu, u8 vector) {
  if (!function_.begin(cpu, kVirtioReadOnly | kVirtioFlush | kVirtioDiscard)) return false;
  function_.add_queue(cpu, 0, queue_, vector);
  function_.go(cpu);
  sectors_ = function_.config(cpu, 0, 8);
  return true;
}

// -- xenstore

BackEnd::Nodes BlockBackEnd::front_nodes() const {
  return {{"virtual-device", std::to_string(device_number(index_))}, {"device-type", "disk"}};
}

BackEnd::Nodes BlockBackEnd::back_nodes() const {
  const bool read_only = function_.features() & kVirtioReadOnly, discards = function_.features() & kVirtioDiscard;
  Nodes nodes = {{"dev", device_name(index_)},
                 {"type", "phy"},
                 {"device-type", "disk"},
                 {"mode", read_only ? "r" : "w"},
                 {"removable", "0"},
                 {"bootable", "1"},
                 {"sectors", std::to_string(sectors_)},
                 {"sector-size", std::to_string(kSectorBytes)},
                 {"physical-sector-size", std::to_string(kSectorBytes)},
                 {"info", std::to_string(read_only ? VDISK_READONLY : 0)},
                 {"feature-flush-cache", function_.features() & kVirtioFlush ? "1" : "0"},
                 {"feature-barrier", "0"},
                 {"feature-persistent", "0"},
                 {"feature-max-indirect-segments", std::to_string(kMostSegments)},
                 {"feature-discard", discards ? "1" : "0"}};
  if (discards)
    nodes.insert(nodes.end(), {{"discard-granularity", "4096"}, {"discard-alignment", "0"}, {"discard-secure", "0"}});
  return nodes;
}

Result<void, std::string> BlockBackEnd::connect(cpu::Vcpu& cpu) {
  if (auto protocol = check_protocol(cpu); !protocol) return protocol;
  const auto ref = front_number(cpu, "ring-ref");
  if (!ref) return Err{ref.error()};
  if (auto port = connect_port(cpu, "event-channel", &port_); !port) return port;
  if (auto ring = ring_.attach(domain_, cpu, *ref); !ring) {
    disconnect_port(port_);
    return ring;
  }
  return {};
}

void BlockBackEnd::disconnect(cpu::Vcpu& cpu) {
  ring_.detach(domain_, cpu);
  disconnect_port(port_);
}

// -- Requests

Result<void, std::string> BlockBackEnd::serve(cpu::Vcpu& cpu) {
  u64 taken = 0;
  while (!ring_.overrun() && taken < kMostAtOnce) {
    const auto request = ring_.take();
    if (!request) break;
    taken++;
    take(cpu, *request);
  }
  if (queue_.publish()) function_.ring(cpu, 0);
  publish(cpu);
  if (ring_.overrun()) return Err{std::string("the ring's producer is further than the ring is long")};
  if (taken == kMostAtOnce) return Err{std::string("nothing but requests that cannot be served")};
  return {};
}

void BlockBackEnd::take(cpu::Vcpu& cpu, const blkif_request& request) {
  u16 slot = 0;
  while (slots_[slot].busy) slot++;  // there is one: no more are taken than the ring has
  Slot& s = slots_[slot];
  s.segments = 0;
  const i16 status = start(cpu, request, slot);
  // All kinds of request have their id at the same place; an indirect one is answered as what it asks for.
  s.id = request.id;
  s.operation = request.operation == BLKIF_OP_INDIRECT ? request.nr_segments : request.operation;
  if (status != BLKIF_RSP_OKAY) return answer(s.id, s.operation, status);
  s.busy = true;
  in_flight_++;
}

i16 BlockBackEnd::start(cpu::Vcpu& cpu, const blkif_request& request, u16 slot) {
  switch (request.operation) {
    case BLKIF_OP_READ:
    case BLKIF_OP_WRITE: {
      if (request.nr_segments > BLKIF_MAX_SEGMENTS_PER_REQUEST) return BLKIF_RSP_ERROR;
      Transfer t{request.operation == BLKIF_OP_WRITE, request.sector_number, request.nr_segments, {}};
      std::copy_n(request.seg, t.count, t.segments.begin());
      return start_transfer(cpu, t, slot);
    }
    case BLKIF_OP_FLUSH_DISKCACHE:
      if (!(function_.features() & kVirtioFlush) || request.nr_segments != 0) return BLKIF_RSP_EOPNOTSUPP;
      offer(slot, {flush, 0, 0}, {});
      return BLKIF_RSP_OKAY;
    case BLKIF_OP_DISCARD: {
      blkif_request_discard d;
      std::memcpy(&d, &request, sizeof d);
      return start_discard(d, slot);
    }
    case BLKIF_OP_INDIRECT: {
      blkif_request_indirect indirect;
      std::memcpy(&indirect, &request, sizeof indirect);
      return start_indirect(cpu, indirect, slot);
    }
    default:
      return BLKIF_RSP_EOPNOTSUPP;
  }
}

// The frames are held until the answer: for a write as they are, else for writing.
i16 BlockBackEnd::start_transfer(cpu::Vcpu& cpu, const Transfer& t, u16 slot) {
  if (t.count == 0) return BLKIF_RSP_ERROR;
  Slot& s = slots_[slot];
  for (u32 i = 0; i < t.count; i++) {
    const blkif_request_segment& segment = t.segments[i];
    if (segment.first_sect > segment.last_sect || segment.last_sect >= kSectorsPerPage) return BLKIF_RSP_ERROR;
    s.grants[i] = {segment.gref, !t.writes};
  }
  if (!domain_.hold_grants(cpu, {s.grants.data(), t.count})) return BLKIF_RSP_ERROR;
  s.segments = t.count;
  std::array<VirtioDescriptor, kMostSegments> data;
  for (u32 i = 0; i < t.count; i++) {
    const blkif_request_segment& segment = t.segments[i];
    data[i] = {gpa(s.grants[i].frame).wrapping_add(segment.first_sect * kSectorBytes),
               (segment.last_sect - segment.first_sect + 1u) * kSectorBytes,
               t.writes ? u16{0} : VirtioDescriptor::kWrite, 0};
  }
  offer(slot, {t.writes ? out : in, 0, t.sector}, {data.data(), t.count});
  return BLKIF_RSP_OKAY;
}

// The segments are in a page of the guest's: copied once.
i16 BlockBackEnd::start_indirect(cpu::Vcpu& cpu, const blkif_request_indirect& request, u16 slot) {
  const bool writes = request.indirect_op == BLKIF_OP_WRITE;
  if ((!writes && request.indirect_op != BLKIF_OP_READ) || request.nr_segments > kMostSegments) return BLKIF_RSP_ERROR;
  Domain::Held page{request.indirect_grefs[0], false};
  if (!domain_.hold_grants(cpu, {&page, 1})) return BLKIF_RSP_ERROR;
  Transfer t{writes, request.sector_number, request.nr_segments, {}};
  std::memcpy(t.segments.data(), domain_.host(page.frame), t.count * sizeof t.segments[0]);
  domain_.release_grants(cpu, {&page, 1});
  return start_transfer(cpu, t, slot);
}

i16 BlockBackEnd::start_discard(const blkif_request_discard& request, u16 slot) {
  if (!(function_.features() & kVirtioDiscard) || request.flag & BLKIF_DISCARD_SECURE) return BLKIF_RSP_EOPNOTSUPP;
  if (request.nr_sectors > ~u32{0}) return BLKIF_RSP_ERROR;
  *at<Range>(slot, kRange) = {request.sector_number, static_cast<u32>(request.nr_sectors), 0};
  const VirtioDescriptor range{memory(slot).wrapping_add(kRange), sizeof(Range), 0, 0};
  offer(slot, {discard, 0, 0}, {&range, 1});
  return BLKIF_RSP_OKAY;
}

// Header, data, status (5.2.6).
void BlockBackEnd::offer(u16 slot, const Header& header, std::span<const VirtioDescriptor> data) {
  const Gpa base = memory(slot);
  *at<Header>(slot, 0) = header;
  *at<u8>(slot, kStatus) = io_error;
  auto* table = at<VirtioDescriptor>(slot, kTable);
  u16 n = 0;
  const auto add = [&](Gpa address, u32 length, u16 flags) {
    table[n] = {address, length, static_cast<u16>(flags | VirtioDescriptor::kNext), static_cast<u16>(n + 1)};
    n++;
  };
  add(base, sizeof(Header), 0);
  for (const VirtioDescriptor& d : data) add(d.address, d.length, d.flags);
  table[n] = {base.wrapping_add(kStatus), 1, VirtioDescriptor::kWrite, 0};
  queue_.offer(slot, base.wrapping_add(kTable), n + 1u);
}

// -- Answers

void BlockBackEnd::answer(u64 id, u8 operation, i16 status) {
  blkif_response response{};
  response.id = id;
  response.operation = operation;
  response.status = status;
  ring_.answer(response);
}

void BlockBackEnd::publish(cpu::Vcpu& cpu) {
  if (ring_.publish(cpu)) raise(port_);
}

Result<void, std::string> BlockBackEnd::complete(cpu::Vcpu& cpu) {
  while (const auto done = queue_.take()) {
    Slot& s = slots_[done->slot];
    if (!std::exchange(s.busy, false)) continue;
    in_flight_--;
    domain_.release_grants(cpu, {s.grants.data(), s.segments});
    const u8 status = *at<u8>(done->slot, kStatus);
    answer(s.id, s.operation,
           static_cast<i16>(status == ok            ? BLKIF_RSP_OKAY
                            : status == unsupported ? BLKIF_RSP_EOPNOTSUPP
                                                    : BLKIF_RSP_ERROR));
  }
  publish(cpu);
  return {};
}

}  // namespace trapline::para::xen
