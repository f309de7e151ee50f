// blkif, front to disk: what a front end may ask, and what one that lies is told.
#include "para/xen/backend/block.h"

#include <deque>

#include "devices/virtio/blk.h"
#include "xen_machine.h"

namespace trapline::para::xen {
namespace {

constexpr u64 kBytes = 256 * 512;

struct MemoryDisk final : virtio::Disk {
  Facts known{.bytes = kBytes, .read_only = false, .discards = true, .serial = ""};
  std::vector<u8> bytes = std::vector<u8>(kBytes, 0xee);
  std::vector<virtio::DiskJob::Kind> seen;
  std::deque<std::unique_ptr<virtio::DiskJob>> waiting;
  bool holds = false;
  Listener* listener = nullptr;

  const Facts& facts() const override { return known; }
  void attach(Listener& l) override { listener = &l; }
  void submit(std::unique_ptr<virtio::DiskJob> job) override {
    waiting.push_back(std::move(job));
    if (!holds) finish();
  }
  void finish() {
    using Kind = virtio::DiskJob::Kind;
    for (; !waiting.empty(); waiting.pop_front()) {
      virtio::DiskJob& job = *waiting.front();
      seen.push_back(job.kind);
      u64 at = job.offset;
      for (const iovec& v : job.data) {
        if (job.kind == Kind::read) std::memcpy(v.iov_base, &bytes.at(at), v.iov_len);
        if (job.kind == Kind::write) std::memcpy(&bytes.at(at), v.iov_base, v.iov_len);
        at += v.iov_len;
      }
      if (job.kind == Kind::discard) std::fill_n(&bytes.at(job.offset), job.bytes, u8{0});
      job.done(0);
    }
    if (holds) listener->some_done();
  }
  void go() override {}
  void settle() override {}
};

struct BlockTest : XenMachineTest {
  static constexpr u64 kRing = 32, kData = 64;
  static constexpr u32 kRingRef = 9, kDataRef = 20;  // data frame n is granted as kDataRef + n
  const std::string front = "device/vbd/51712", back = "/local/domain/0/backend/vbd/1/51712";
  MemoryDisk* disk = new MemoryDisk;
  blkif_sring* ring = nullptr;
  blkif_front_ring mine{};
  Port event = 0;

  // `adjust`: before the device is plugged.
  void boot(bool read_only = false) {
    disk->known.read_only = read_only;
    if (read_only) disk->known.discards = false;
    bus.plug(std::make_unique<virtio::Blk>(std::unique_ptr<virtio::Disk>(disk), 1), dma);
    domain.back_ends().set_up(cpu);
    for (u32 n = 0; n < 40; n++) give(kDataRef + n, mfn(kData + n));
  }
  void connect() {
    ring = reinterpret_cast<blkif_sring*>(ram.host(Gpa{at(kRing)}));
    SHARED_RING_INIT(ring);
    FRONT_RING_INIT(&mine, ring, kPageSize);
    give(kRingRef, mfn(kRing));
    event = port();
    write(front + "/ring-ref", std::to_string(kRingRef));
    write(front + "/event-channel", std::to_string(event));
    write(front + "/protocol", "x86_64-abi");
    write(front + "/state", "3");
  }
  void add(const blkif_request& request) { *RING_GET_REQUEST(&mine, mine.req_prod_pvt++) = request; }
  void go() {
    ring->req_prod = mine.req_prod_pvt;
    send(event);
  }
  blkif_request transfer(u8 operation, u64 sector, std::vector<blkif_request_segment> segments) {
    blkif_request r{};
    r.operation = operation;
    r.nr_segments = static_cast<u8>(segments.size());
    r.id = 0x1234000 + mine.req_prod_pvt;
    r.sector_number = sector;
    std::copy(segments.begin(), segments.end(), r.seg);
    return r;
  }
  // The answer to the oldest request that has none; 99: there is none.
  int answer() {
    if (mine.rsp_cons == ring->rsp_prod) return 99;
    return RING_GET_RESPONSE(&mine, mine.rsp_cons++)->status;
  }
  int ask(const blkif_request& request) {
    add(request);
    go();
    return answer();
  }
  u8* data(u32 n) { return reinterpret_cast<u8*>(ram.host(Gpa{at(kData + n)})); }
};

TEST_F(BlockTest, IsAnnouncedAndConnects) {
  boot();
  EXPECT_EQ(read(back + "/state"), "2");
  EXPECT_EQ(read(back + "/sectors"), "256");
  EXPECT_EQ(read(back + "/mode"), "w");
  EXPECT_EQ(read("/local/domain/1/" + front + "/backend"), back);
  EXPECT_EQ(read("/local/domain/1/" + front + "/virtual-device"), "51712");
  connect();
  EXPECT_EQ(read(back + "/state"), "4");
  EXPECT_TRUE(in_use(kRingRef));
  write(front + "/state", "5");
  EXPECT_EQ(read(back + "/state"), "5");
  write(front + "/state", "6");
  EXPECT_EQ(read(back + "/state"), "6");
  EXPECT_FALSE(in_use(kRingRef));
  write(front + "/state", "1");
  EXPECT_EQ(read(back + "/state"), "2") << "and it may come back";
  connect();
  EXPECT_EQ(read(back + "/state"), "4");
  EXPECT_EQ(ask(transfer(BLKIF_OP_READ, 0, {{kDataRef, 0, 0}})), BLKIF_RSP_OKAY);
}

TEST_F(BlockTest, ReadsAndWritesWhatIsGranted) {
  boot();
  connect();
  std::memset(data(0), 0x11, kPageSize);
  std::memset(data(1), 0x22, kPageSize);
  EXPECT_EQ(ask(transfer(BLKIF_OP_WRITE, 8, {{kDataRef, 0, 7}, {kDataRef + 1, 2, 3}})), BLKIF_RSP_OKAY);
  EXPECT_EQ(disk->bytes[8 * 512 - 1], 0xee);
  EXPECT_EQ(disk->bytes[8 * 512], 0x11);
  EXPECT_EQ(disk->bytes[16 * 512], 0x22);
  EXPECT_EQ(disk->bytes[18 * 512], 0xee);
  EXPECT_EQ(ask(transfer(BLKIF_OP_READ, 15, {{kDataRef + 2, 1, 2}})), BLKIF_RSP_OKAY);
  EXPECT_EQ(data(2)[511], 0);
  EXPECT_EQ(data(2)[512], 0x11);
  EXPECT_EQ(data(2)[1024], 0x22);
  EXPECT_EQ(data(2)[1536], 0);
  EXPECT_FALSE(in_use(kDataRef + 2));
  EXPECT_EQ(domain.frames()[frame(kData + 2)].types, 1u) << "the guest's own mapping";
  EXPECT_EQ(ask(transfer(BLKIF_OP_FLUSH_DISKCACHE, 0, {})), BLKIF_RSP_OKAY);
  EXPECT_EQ(disk->seen.back(), virtio::DiskJob::Kind::flush);
  EXPECT_TRUE(domain.events().pending(event));
}

TEST_F(BlockTest, DiscardsAndTakesIndirectRequests) {
  boot();
  connect();
  blkif_request r{};
  blkif_request_discard d{};
  d.operation = BLKIF_OP_DISCARD, d.id = 7, d.sector_number = 16, d.nr_sectors = 8;
  std::memcpy(&r, &d, sizeof d);
  EXPECT_EQ(ask(r), BLKIF_RSP_OKAY);
  EXPECT_EQ(disk->bytes[16 * 512], 0);
  d.flag = BLKIF_DISCARD_SECURE;
  std::memcpy(&r, &d, sizeof d);
  EXPECT_EQ(ask(r), BLKIF_RSP_EOPNOTSUPP);
  d.flag = 0, d.nr_sectors = u64{1} << 40;
  std::memcpy(&r, &d, sizeof d);
  EXPECT_EQ(ask(r), BLKIF_RSP_ERROR);

  auto* list = reinterpret_cast<blkif_request_segment*>(data(39));
  for (u32 n = 0; n < 31; n++) list[n] = {kDataRef + n, 0, 7}, std::memset(data(n), static_cast<int>(n), kPageSize);
  blkif_request_indirect i{};
  i.operation = BLKIF_OP_INDIRECT, i.indirect_op = BLKIF_OP_WRITE, i.nr_segments = 31, i.id = 8;
  i.indirect_grefs[0] = kDataRef + 39;
  std::memcpy(&r, &i, sizeof i);
  EXPECT_EQ(ask(r), BLKIF_RSP_OKAY);
  EXPECT_EQ(RING_GET_RESPONSE(&mine, mine.rsp_cons - 1)->operation, BLKIF_OP_WRITE) << "not as indirect";
  EXPECT_EQ(disk->bytes[30 * 4096], 30);
  for (const u16 count : {u16{0}, u16{33}, u16{0xffff}}) {
    i.nr_segments = count;
    std::memcpy(&r, &i, sizeof i);
    EXPECT_EQ(ask(r), BLKIF_RSP_ERROR) << count;
  }
  i.nr_segments = 1, i.indirect_op = BLKIF_OP_FLUSH_DISKCACHE;
  std::memcpy(&r, &i, sizeof i);
  EXPECT_EQ(ask(r), BLKIF_RSP_ERROR);
}

TEST_F(BlockTest, AReadOnlyDiskIsNotWritten) {
  boot(true);
  connect();
  EXPECT_EQ(read(back + "/mode"), "r");
  EXPECT_EQ(read(back + "/info"), "4");
  EXPECT_EQ(read(back + "/feature-discard"), "0");
  EXPECT_EQ(ask(transfer(BLKIF_OP_WRITE, 0, {{kDataRef, 0, 7}})), BLKIF_RSP_ERROR);
  EXPECT_EQ(disk->bytes[0], 0xee);
  EXPECT_EQ(ask(transfer(BLKIF_OP_READ, 0, {{kDataRef, 0, 7}})), BLKIF_RSP_OKAY);
}

TEST_F(BlockTest, WhatCannotBeIsAnErrorAndNoMore) {
  boot();
  connect();
  const auto refused = [this](const blkif_request& r) { return ask(r) == BLKIF_RSP_ERROR; };
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 0, {}))) << "no segment";
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 0, {{kDataRef, 0, 8}}))) << "past the page";
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 0, {{kDataRef, 255, 255}})));
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 0, {{kDataRef, 5, 4}}))) << "backwards";
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 256, {{kDataRef, 0, 0}}))) << "past the disk";
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, ~u64{0}, {{kDataRef, 0, 7}})));
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 0, {{5, 0, 7}}))) << "not granted";
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 0, {{~0u, 0, 7}})));
  blkif_request many = transfer(BLKIF_OP_READ, 0, {{kDataRef, 0, 7}});
  many.nr_segments = BLKIF_MAX_SEGMENTS_PER_REQUEST + 1;
  EXPECT_TRUE(refused(many));
  EXPECT_EQ(ask(transfer(BLKIF_OP_WRITE_BARRIER, 0, {})), BLKIF_RSP_EOPNOTSUPP);
  EXPECT_EQ(ask(transfer(77, 0, {})), BLKIF_RSP_EOPNOTSUPP);

  // Frames that may not be written to: granted to read, a page table, not the guest's, the hypervisor's.
  give(100, mfn(kData), GTF_permit_access | GTF_readonly);
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 0, {{100, 0, 7}})));
  EXPECT_EQ(ask(transfer(BLKIF_OP_WRITE, 0, {{100, 0, 7}})), BLKIF_RSP_OKAY);
  for (const u64 frame :
       {mfn(kL1), mfn(kL4), layout.m2p.raw, layout.grants.raw, layout.backends.raw, u64{0}, u64{0xffffffff}}) {
    give(101, frame);
    EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 0, {{101, 0, 7}}))) << frame;
  }
  give(102, mfn(kData), GTF_permit_access, kDomain);
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 0, {{102, 0, 7}}))) << "granted to another";
  // A bad one among good ones: nothing is held.
  EXPECT_TRUE(refused(transfer(BLKIF_OP_READ, 0, {{kDataRef, 0, 7}, {kDataRef + 1, 0, 7}, {5, 0, 7}})));
  EXPECT_FALSE(in_use(kDataRef));
  EXPECT_EQ(domain.frames()[frame(kData)].types, 1u);
  EXPECT_EQ(read(back + "/state"), "4");
}

TEST_F(BlockTest, WhatIsInFlightIsHeld) {
  boot();
  disk->holds = true;
  connect();
  EXPECT_EQ(ask(transfer(BLKIF_OP_READ, 0, {{kDataRef, 0, 7}})), 99);
  EXPECT_TRUE(in_use(kDataRef));
  // It does not become a page table by the guest giving up its own mapping.
  EXPECT_EQ(update(at(kL1) + 8 * kData, 0), 0);
  EXPECT_NE(extended(MMUEXT_PIN_L1_TABLE, mfn(kData)), 0);
  // A front end that leaves meanwhile is waited for.
  write(front + "/state", "6");
  EXPECT_EQ(read(back + "/state"), "4");
  write(front + "/state", "1");
  EXPECT_EQ(read(back + "/state"), "4");
  EXPECT_TRUE(in_use(kRingRef));
  disk->finish();
  take_interrupts();
  EXPECT_EQ(read(back + "/state"), "2");
  EXPECT_FALSE(in_use(kRingRef));
  EXPECT_FALSE(in_use(kDataRef));
  EXPECT_EQ(domain.frames()[frame(kData)].types, 0u);
}

TEST_F(BlockTest, AFullRingIsServedWhole) {
  boot();
  disk->holds = true;
  connect();
  for (u32 round = 0; round < 3; round++) {
    for (u32 n = 0; n < RING_SIZE(&mine); n++) add(transfer(BLKIF_OP_WRITE, n, {{kDataRef + n, 0, 0}}));
    go();
    EXPECT_EQ(answer(), 99);
    disk->finish();
    take_interrupts();
    for (u32 n = 0; n < RING_SIZE(&mine); n++) EXPECT_EQ(answer(), BLKIF_RSP_OKAY) << n;
  }
  EXPECT_EQ(RING_SIZE(&mine), 32u);
}

TEST_F(BlockTest, ARingThatLiesEndsTheConversation) {
  boot();
  disk->holds = true;
  connect();
  add(transfer(BLKIF_OP_READ, 0, {{kDataRef, 0, 7}}));
  go();
  for (const u32 producer : {33u, 0x80000000u}) {
    ring->req_prod = producer;
    send(event);
    EXPECT_NE(read(back + "/error"), "-");
    EXPECT_EQ(read(back + "/state"), "4") << "until the disk is done";
  }
  disk->finish();
  take_interrupts();
  EXPECT_EQ(read(back + "/state"), "6");
  EXPECT_FALSE(in_use(kRingRef));
  EXPECT_FALSE(in_use(kDataRef));
  send(event);
  write(front + "/state", "1");
  connect();
  EXPECT_EQ(read(back + "/state"), "4") << "it may start over";
}

TEST_F(BlockTest, WhatTheStoreSaysIsChecked) {
  boot();
  const auto state = [this](const std::string& node, const std::string& value) {
    write(front + "/state", "1");
    EXPECT_EQ(read(back + "/state"), "2");
    ring = reinterpret_cast<blkif_sring*>(ram.host(Gpa{at(kRing)}));
    give(kRingRef, mfn(kRing));
    write(front + "/protocol", "x86_64-abi");
    write(front + "/ring-ref", std::to_string(kRingRef));
    event = port();
    write(front + "/event-channel", std::to_string(event));
    write(front + "/" + node, value);
    write(front + "/state", "3");
    return read(back + "/state");
  };
  for (const char* value : {"", "x", "-1", "5", "4294967296", "99999999999999999999", "9x"}) {
    EXPECT_EQ(state("ring-ref", value), "6") << value;
    EXPECT_FALSE(in_use(kRingRef));
  }
  for (const char* value : {"", "x", "0", "1", "4095", "4096", "4294967295"})
    EXPECT_EQ(state("event-channel", value), "6") << value;
  EXPECT_EQ(state("protocol", "x86_32-abi"), "6");
  EXPECT_NE(read("/local/domain/0/error/backend/vbd/1/51712/error").find("x86_32-abi"), std::string::npos);
  EXPECT_EQ(state("nothing", ""), "4");
  // A port that the guest closes and makes something else of is not the back end's any more.
  const evtchn_close closes{event};
  EXPECT_EQ(call(__HYPERVISOR_event_channel_op, {EVTCHNOP_close, given(closes)}), 0);
  domain.raise_if_connected(event, Consumer::block, 0);
  EXPECT_FALSE(domain.events().pending(event));
  for (const char* value : {"9", "-1", "", "x", "4000000000"}) write(front + "/state", value);
  EXPECT_EQ(read(back + "/state"), "6") << "no state is the end of one";
}

TEST_F(BlockTest, AFrontEndWithoutItsNodesIsGone) {
  boot();
  connect();
  const std::string payload = front + '\0';
  const xsd_sockmsg header{XS_RM, 1, 0, static_cast<u32>(payload.size())};
  domain.store().handle(std::string(reinterpret_cast<const char*>(&header), sizeof header) + payload, out);
  domain.back_ends().store_changed(cpu);
  EXPECT_EQ(read(back + "/state"), "6");
  EXPECT_FALSE(in_use(kRingRef));
}

TEST_F(BlockTest, HasOneForEachDisk) {
  bus.plug(std::make_unique<virtio::Blk>(std::make_unique<MemoryDisk>(), 2), dma);
  boot();
  EXPECT_EQ(read("/local/domain/0/backend/vbd/1/51712/dev"), "xvda");
  EXPECT_EQ(read("/local/domain/0/backend/vbd/1/51728/dev"), "xvdb");
  EXPECT_EQ(read("/local/domain/1/device/vbd/51728/state"), "1");
}

}  // namespace
}  // namespace trapline::para::xen
