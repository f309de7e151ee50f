#include "devices/virtio/blk.h"

#include <array>
#include <cstddef>

namespace trapline::devices::virtio {

namespace {

constexpr u64 kSector = 512;
constexpr u16 kQueueSize = 256;
constexpr u32 kSegments = kQueueSize - 2;  // beside the header and the status
constexpr u32 kMostRange = 1u << 22;       // sectors: 2 GiB
constexpr std::size_t kSerialBytes = 20;

// 5.2.3
constexpr u64 kSegMax = 1 << 2, kReadOnly = 1 << 5, kBlockSize = 1 << 6, kFlush = 1 << 9, kMultiQueue = 1 << 12,
              kDiscard = 1 << 13, kWriteZeroes = 1 << 14;
// 5.2.6
enum Type : u32 { in = 0, out = 1, flush = 4, get_id = 8, discard = 11, write_zeroes = 13 };
enum Status : u8 { ok = 0, io_error = 1, unsupported = 2 };

struct Range {
  u64 sector;
  u32 sectors;
  u32 flags;  // bit 0: unmap
};
constexpr u32 kUnmap = 1;

// 5.2.4
struct Config {
  u64 capacity;
  u32 size_max, seg_max;
  u16 cylinders;
  u8 heads, sectors;
  u32 block_size;
  u8 physical_block_exponent, alignment_offset;
  u16 minimum_io;
  u32 optimal_io;
  u8 writeback, unused0;
  u16 queues;
  u32 most_discard_sectors, most_discard_ranges, discard_alignment;
  u32 most_zeroes_sectors, most_zeroes_ranges;
  u8 zeroes_may_unmap;
  std::array<u8, 7> unused1;
};
static_assert(sizeof(Config) == 64 && offsetof(Config, queues) == 34 && offsetof(Config, zeroes_may_unmap) == 56);

u64 features_of(const Disk::Facts& disk) {
  u64 features = kSegMax | kBlockSize | kFlush | kMultiQueue;
  if (disk.read_only) return features | kReadOnly;
  features |= kWriteZeroes;
  return disk.discards ? features | kDiscard : features;
}

// Segments as the kernel takes them: `bytes` of them, from the first on.
std::vector<iovec> vectors(std::span<const Segment> segments, u64 skip, u64 bytes) {
  std::vector<iovec> all;
  all.reserve(segments.size());
  for (const Segment& s : segments) {
    if (skip >= s.bytes.size()) {
      skip -= s.bytes.size();
      continue;
    }
    const u64 n = std::min<u64>(bytes, s.bytes.size() - skip);
    if (n == 0) break;
    all.push_back({s.bytes.data() + skip, n});
    skip = 0;
    bytes -= n;
  }
  return all;
}

}  // namespace

struct Blk::Job final : DiskJob {
  Job(Blk& o, unsigned q, Request&& r) : owner{o}, queue{q}, request{std::move(r)} {}
  void done(int error) override {
    owner.answer(queue, std::move(request), error ? io_error : ok, kind == Kind::read && !error ? bytes : 0);
  }
  Blk& owner;
  unsigned queue;
  Request request;
};

Blk::Blk(std::unique_ptr<Disk> disk, unsigned queues)
    : Backend{{.type = 2,
               .name = "virtio-blk",
               .class_code = 0x010000,
               .features = features_of(disk->facts()),
               .queues = std::vector<u16>(queues, kQueueSize)}},
      disk_{std::move(disk)} {
  disk_->attach(*this);
}

void Blk::read_config(u64 offset, std::span<u8> out) const {
  const Disk::Facts& disk = disk_->facts();
  Config c{};
  c.capacity = disk.bytes / kSector;
  c.seg_max = kSegments;
  c.block_size = kSector;
  c.writeback = 1;
  c.queues = static_cast<u16>(kind().queues.size());
  if (disk.discards) c.most_discard_sectors = kMostRange, c.most_discard_ranges = 1, c.discard_alignment = 8;
  if (!disk.read_only) c.most_zeroes_sectors = kMostRange, c.most_zeroes_ranges = 1, c.zeroes_may_unmap = disk.discards;
  copy_config(c, offset, out);
}

// 5.2.6.2: without FLUSH the driver takes what is done for safe.
void Blk::start(u64 features) { through_ = !(features & kFlush); }

void Blk::serve(unsigned index) {
  serve_all(queue(index), [&](Request&& request) { handle(index, std::move(request)); });
  disk_->go();
  some_done();
}

bool Blk::inside(u64 sector, u64 bytes) const {
  const u64 capacity = disk_->facts().bytes;
  return bytes % kSector == 0 && sector <= capacity / kSector && bytes <= capacity - sector * kSector;
}

void Blk::handle(unsigned index, Request&& request) {
  Header header;
  if (request.writable_bytes() == 0) {  // nowhere to put a status
    queue(index).complete(std::move(request), 0);
    return;
  }
  if (!request.read(0, header)) return answer(index, std::move(request), io_error, 0);
  if (header.type == get_id) return answer_id(index, std::move(request));
  auto job = std::make_unique<Job>(*this, index, std::move(request));
  bool can_be = false, known = true;
  switch (header.type) {
    case in:
    case out:
      can_be = set_up_transfer(*job, header);
      break;
    case flush:
      can_be = true;
      break;
    case discard:
    case write_zeroes:
      known = kind().features & (header.type == discard ? kDiscard : kWriteZeroes);
      can_be = known && set_up_range(*job, header);
      break;
    default:
      known = false;
  }
  if (!can_be) return answer(index, std::move(job->request), known ? io_error : unsupported, 0);
  disk_->submit(std::move(job));
}

bool Blk::set_up_transfer(Job& job, const Header& header) {
  const Request& r = job.request;
  const bool reads = header.type == in;
  job.kind = reads ? DiskJob::Kind::read : DiskJob::Kind::write;
  job.through = through_;
  job.bytes = reads ? r.writable_bytes() - 1 : r.readable_bytes() - sizeof header;
  if ((!reads && disk_->facts().read_only) || !inside(header.sector, job.bytes)) return false;
  job.offset = header.sector * kSector;
  job.data = reads ? vectors(r.writable(), 0, job.bytes) : vectors(r.readable(), sizeof header, job.bytes);
  return true;
}

bool Blk::set_up_range(Job& job, const Header& header) {
  Range range;
  const bool discards = header.type == discard;
  const Request& r = job.request;
  if (r.readable_bytes() != sizeof header + sizeof range || !r.read(sizeof header, range)) return false;
  if (range.flags & ~(discards ? 0 : kUnmap) || range.sectors > kMostRange) return false;
  job.kind = discards ? DiskJob::Kind::discard : DiskJob::Kind::write_zeroes;
  job.bytes = u64{range.sectors} * kSector;
  job.through = through_;
  job.unmap = range.flags & kUnmap && disk_->facts().discards;
  if (!inside(range.sector, job.bytes)) return false;
  job.offset = range.sector * kSector;
  return true;
}

void Blk::answer_id(unsigned index, Request&& request) {
  std::array<char, kSerialBytes> id{};
  const std::string& serial = disk_->facts().serial;
  std::copy_n(serial.begin(), std::min(serial.size(), id.size()), id.begin());
  const bool fits = request.writable_bytes() == kSerialBytes + 1;
  if (fits) request.write(0, id);
  answer(index, std::move(request), fits ? ok : io_error, fits ? kSerialBytes : 0);
}

// The status is the last byte. Errors count no data: the driver looks at the status first.
void Blk::answer(unsigned index, Request&& request, u8 status, u64 written) {
  request.write(request.writable_bytes() - 1, status);
  queue(index).complete(std::move(request), static_cast<u32>(written + 1));
  told_.fetch_or(u64{1} << index, std::memory_order_release);
}

void Blk::some_done() {
  const u64 queues = told_.exchange(0, std::memory_order_acquire);
  for (unsigned i = 0; i < kind().queues.size(); i++)
    if (queues >> i & 1) queue(i).signal();
}

}  // namespace trapline::devices::virtio
