// netif, front to wire: frames both ways, and what a front end that lies is told.
#include "para/xen/backend/network.h"

#include "devices/virtio/net.h"
#include "para/xen/backend/checksum.h"
#include "xen_machine.h"

namespace trapline::para::xen {
namespace {

struct Wire final : virtio::FrameSink {
  std::vector<std::string> sent;
  void send(std::span<const iovec> frame) override {
    std::string all;
    for (const iovec& v : frame) all.append(static_cast<const char*>(v.iov_base), v.iov_len);
    sent.push_back(all);
  }
};

struct NetworkTest : XenMachineTest {
  static constexpr u64 kTx = 32, kRx = 33, kData = 64;
  static constexpr u32 kTxRef = 9, kRxRef = 10, kDataRef = 20;
  const std::string front = "device/vif/0", back = "/local/domain/0/backend/vif/1/0";
  Wire wire;
  virtio::Net* net = nullptr;
  netif_tx_sring* tx_ring = nullptr;
  netif_rx_sring* rx_ring = nullptr;
  netif_tx_front_ring tx{};
  netif_rx_front_ring rx{};
  Port event = 0;

  void SetUp() override {
    XenMachineTest::SetUp();
    auto made = std::make_unique<virtio::Net>(virtio::Net::Settings{{0x52, 0x54, 0, 1, 2, 3}, 1500}, wire, [] {});
    net = made.get();
    bus.plug(std::move(made), dma);
    domain.back_ends().set_up(cpu);
    for (u32 n = 0; n < 40; n++) give(kDataRef + n, mfn(kData + n));
  }
  void connect() {
    tx_ring = reinterpret_cast<netif_tx_sring*>(ram.host(Gpa{at(kTx)}));
    rx_ring = reinterpret_cast<netif_rx_sring*>(ram.host(Gpa{at(kRx)}));
    XEN_FRONT_RING_INIT(&tx, tx_ring, kPageSize);
    XEN_FRONT_RING_INIT(&rx, rx_ring, kPageSize);
    give(kTxRef, mfn(kTx)), give(kRxRef, mfn(kRx));
    event = port();
    write(front + "/tx-ring-ref", std::to_string(kTxRef));
    write(front + "/rx-ring-ref", std::to_string(kRxRef));
    write(front + "/event-channel", std::to_string(event));
    write(front + "/request-rx-copy", "1");
    write(front + "/state", "4");
  }
  u8* data(u32 n) { return reinterpret_cast<u8*>(ram.host(Gpa{at(kData + n)})); }
  void add(u32 ref, u32 offset, u32 size, u32 flags = 0) {
    netif_tx_request r{};
    r.gref = ref, r.offset = static_cast<u16>(offset), r.size = static_cast<u16>(size);
    r.flags = static_cast<u16>(flags), r.id = static_cast<u16>(tx.req_prod_pvt);
    *RING_GET_REQUEST(&tx, tx.req_prod_pvt++) = r;
  }
  void go() {
    tx_ring->req_prod = tx.req_prod_pvt;
    rx_ring->req_prod = rx.req_prod_pvt;
    send(event);
  }
  int answer() { return tx.rsp_cons == tx_ring->rsp_prod ? 99 : RING_GET_RESPONSE(&tx, tx.rsp_cons++)->status; }
  void room(u32 ref) {
    netif_rx_request r{};
    r.id = static_cast<u16>(rx.req_prod_pvt), r.gref = ref;
    *RING_GET_REQUEST(&rx, rx.req_prod_pvt++) = r;
  }
  int received() { return rx.rsp_cons == rx_ring->rsp_prod ? 0 : RING_GET_RESPONSE(&rx, rx.rsp_cons++)->status; }
  bool arrives(const std::string& frame) {
    const bool taken = net->deliver(std::as_bytes(std::span{frame}));
    take_interrupts();
    return taken;
  }
};

TEST_F(NetworkTest, IsAnnouncedAndConnects) {
  EXPECT_EQ(read(back + "/state"), "2");
  EXPECT_EQ(read(back + "/feature-rx-copy"), "1");
  EXPECT_EQ(read("/local/domain/1/" + front + "/mac"), "52:54:00:01:02:03");
  connect();
  EXPECT_EQ(read(back + "/state"), "4");
  EXPECT_TRUE(in_use(kTxRef) && in_use(kRxRef));
  write(front + "/state", "6");
  EXPECT_EQ(read(back + "/state"), "6");
  EXPECT_FALSE(in_use(kTxRef) || in_use(kRxRef));
  write(front + "/state", "1");
  connect();
  EXPECT_EQ(read(back + "/state"), "4");
}

TEST_F(NetworkTest, SendsFramesInOnePieceAndInSeveral) {
  connect();
  std::memset(data(0), 'a', kPageSize);
  std::memset(data(1), 'b', kPageSize);
  add(kDataRef, 100, 60);
  add(kDataRef, 4086, 110, NETTXF_more_data), add(kDataRef + 1, 0, 100);
  go();
  ASSERT_EQ(wire.sent.size(), 2u);
  EXPECT_EQ(wire.sent[0], std::string(60, 'a'));
  EXPECT_EQ(wire.sent[1], std::string(10, 'a') + std::string(100, 'b'));
  for (int n = 0; n < 3; n++) EXPECT_EQ(answer(), NETIF_RSP_OKAY);
  EXPECT_FALSE(in_use(kDataRef));
  EXPECT_TRUE(domain.events().pending(event));
  // More than there are buffers, several times round the ring.
  for (int round = 0; round < 10; round++) {
    for (int n = 0; n < 200; n++) add(kDataRef, 0, 60);
    for (int n = 0; n < 4; n++) go();
    for (int n = 0; n < 200; n++) ASSERT_EQ(answer(), NETIF_RSP_OKAY);
  }
  EXPECT_EQ(wire.sent.size(), 2002u);
}

TEST_F(NetworkTest, FramesArriveInOrderAndWaitForRoom) {
  connect();
  for (u32 n = 0; n < 3; n++) EXPECT_TRUE(arrives(std::string(60 + n, static_cast<char>('x' + n))));
  EXPECT_EQ(received(), 0);
  room(kDataRef), room(kDataRef + 1);
  go();
  EXPECT_EQ(received(), 60);
  EXPECT_EQ(received(), 61);
  EXPECT_EQ(data(1)[60], 'y');
  EXPECT_EQ(received(), 0);
  room(5), room(kDataRef + 2);
  go();
  EXPECT_EQ(received(), NETIF_RSP_ERROR) << "not granted";
  EXPECT_TRUE(arrives(std::string(1514, 'w')));
  EXPECT_EQ(received(), 1514);
  // Nobody takes them: the wire waits, and goes on when somebody does.
  int waiting = 0;
  while (waiting < 1000 && arrives(std::string(60, 'q'))) waiting++;
  EXPECT_EQ(waiting, 64);
  for (int n = 0; n < waiting; n++) room(kDataRef);
  go();
  for (int n = 0; n < waiting; n++) EXPECT_EQ(received(), 60);
  EXPECT_TRUE(arrives(std::string(60, 'q')));
}

TEST_F(NetworkTest, FramesThatCannotBeAreErrors) {
  connect();
  const auto refused = [this] {
    go();
    return answer() == NETIF_RSP_ERROR && wire.sent.empty();
  };
  add(kDataRef, 0, 13);
  EXPECT_TRUE(refused()) << "no Ethernet header";
  add(kDataRef, 0, 2021);
  EXPECT_TRUE(refused()) << "longer than a frame";
  add(kDataRef, 4000, 97);
  EXPECT_TRUE(refused()) << "past the page";
  add(5, 0, 60);
  EXPECT_TRUE(refused()) << "not granted";
  add(kDataRef, 0, 60, NETTXF_more_data), add(kDataRef, 0, 61);
  EXPECT_TRUE(refused()) << "a piece longer than the whole";
  EXPECT_EQ(answer(), NETIF_RSP_ERROR);
  add(kDataRef, 0, 60, NETTXF_extra_info), add(0, 0, 0);
  EXPECT_TRUE(refused()) << "an extra that was not offered";
  EXPECT_EQ(answer(), NETIF_RSP_NULL);
  // A page table may not be written to.
  give(100, mfn(kL1));
  room(100);
  EXPECT_TRUE(arrives(std::string(60, 'x')));
  go();
  EXPECT_EQ(received(), NETIF_RSP_ERROR);
  EXPECT_EQ(read(back + "/state"), "4");
}

TEST_F(NetworkTest, RingsThatLieEndTheConversation) {
  const auto ends = [this](auto lie) {
    write(front + "/state", "1");
    connect();
    EXPECT_EQ(read(back + "/state"), "4");
    lie();
    send(event);
    EXPECT_FALSE(in_use(kTxRef) || in_use(kRxRef));
    return read(back + "/state") == "6";
  };
  EXPECT_TRUE(ends([this] { tx_ring->req_prod = 257; }));
  EXPECT_TRUE(ends([this] { rx_ring->req_prod = 0x80000000; }));
  EXPECT_TRUE(ends([this] { add(kDataRef, 0, 60, NETTXF_more_data), tx_ring->req_prod = 1; })) << "half a frame";
  EXPECT_TRUE(ends([this] {
    for (int n = 0; n < 30; n++) add(kDataRef, 0, 60, NETTXF_more_data);
    tx_ring->req_prod = 30;
  })) << "too many pieces";
  write(front + "/state", "1");
  write(front + "/request-rx-copy", "0");
  write(front + "/state", "4");
  EXPECT_EQ(read(back + "/state"), "6");
}

// A checksum over all, the right one included, is ffff.
u32 folded(std::span<const u8> bytes, u32 value) {
  for (std::size_t i = 0; i < bytes.size(); i++) value += i % 2 ? bytes[i] : bytes[i] << 8;
  while (value >> 16) value = (value & 0xffff) + (value >> 16);
  return value;
}

TEST(Checksum, IsFilledInForTcpAndUdp) {
  for (const u8 protocol : {u8{6}, u8{17}})
    for (const std::size_t payload : {0u, 1u, 2u, 700u}) {
      std::vector<u8> frame(14 + 20 + 20 + payload);
      for (std::size_t i = 0; i < frame.size(); i++) frame[i] = static_cast<u8>(i * 37);
      u8* ip = &frame[14];
      const std::size_t total = frame.size() - 14;
      frame[12] = 8, frame[13] = 0, ip[0] = 0x45, ip[2] = static_cast<u8>(total >> 8), ip[3] = static_cast<u8>(total);
      ip[6] = 0x40, ip[7] = 0, ip[9] = protocol;
      ASSERT_TRUE(fill_checksum(frame));
      const u32 pseudo = folded({ip + 12, 8}, protocol + static_cast<u32>(total - 20));
      EXPECT_EQ(folded(std::span{frame}.subspan(34), pseudo), 0xffffu) << int{protocol} << " " << payload;
    }
}

TEST(Checksum, IsNotWhereItCannotBe) {
  const auto fails = [](auto change) {
    std::vector<u8> frame(60, 0);
    frame[12] = 8, frame[14] = 0x45, frame[17] = 46, frame[23] = 6;
    change(frame);
    const std::vector<u8> before = frame;
    return !fill_checksum(frame) && frame == before;
  };
  EXPECT_FALSE(fails([](auto&) {}));
  EXPECT_TRUE(fails([](auto& f) { f.resize(20); }));
  EXPECT_TRUE(fails([](auto& f) { f[12] = 0x86; }));
  EXPECT_TRUE(fails([](auto& f) { f[14] = 0x44; })) << "header too short";
  EXPECT_TRUE(fails([](auto& f) { f[14] = 0x4f; })) << "header longer than the packet";
  EXPECT_TRUE(fails([](auto& f) { f[17] = 47; })) << "packet longer than the frame";
  EXPECT_TRUE(fails([](auto& f) { f[17] = 30; })) << "no room for a header of TCP's";
  EXPECT_TRUE(fails([](auto& f) { f[20] = 0x20; })) << "a fragment";
  EXPECT_TRUE(fails([](auto& f) { f[23] = 1; })) << "ICMP";
}

}  // namespace
}  // namespace trapline::para::xen
