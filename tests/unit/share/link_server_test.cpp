// Several requests of one link at once. A page that a userfaultfd holds back makes a read as slow as the test likes.
#include "share/link_server.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <random>
#include <thread>

#include "unit/share/client.h"

namespace trapline::share::test {
namespace {

using channel::ShareLink;
using channel::ShareTurn;

std::vector<u8> message(Message type, u16 tag, const Body& body) {
  Body whole;
  whole.w(static_cast<u32>(kHeader + body.bytes().size())).b(static_cast<u8>(type)).h(tag);
  return whole.raw(body.bytes().data(), body.bytes().size()).bytes();
}

struct Link : testing::Test {
  Place place;
  ShareLink* memory = static_cast<ShareLink*>(
      ::mmap(nullptr, sizeof(ShareLink), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ShareLink& link = *new (memory) ShareLink;
  int folder = ::open(place.folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  Server server{folder, {}};
  LinkServer serves{link, server};
  u64 posted = 0;
  int faults = -1;

  ~Link() override {
    if (faults >= 0) ::close(faults);
    ::close(folder);
    ::munmap(memory, sizeof(ShareLink));
  }
  void post(unsigned slot, Message type, u16 tag, const Body& body) {
    const auto bytes = message(type, tag, body);
    std::copy(bytes.begin(), bytes.end(), link.slots[slot].request);
    link.slots[slot].request_length = static_cast<u32>(bytes.size());
    link.slots[slot].tag = tag;
    link.slots[slot].order = ++posted;
    link.slots[slot].turn.set(ShareTurn::requested);
  }
  u8 type_of_reply(unsigned slot) const { return link.slots[slot].reply[4]; }
  void ask(unsigned slot, Message type, const Body& body) {
    post(slot, type, 1, body);
    serves.answer(slot);
    ASSERT_EQ(type_of_reply(slot), static_cast<u8>(type) + 1);
  }
  void open_a_file() {
    std::ofstream{place.folder / "file"} << "content";
    ask(1, Message::version, Body{}.w(512 * KiB).s("9P2000.L"));
    ask(1, Message::attach, Body{}.w(0).w(kNoFid).s("").s("").w(~u32{0}));
    ask(1, Message::walk, Body{}.w(0).w(1).h(1).s("file"));
    ask(1, Message::lopen, Body{}.w(1).w(O_RDWR));
  }
  // Whoever writes into the slot's reply waits from now on.
  bool hold_back(unsigned slot) {
    faults = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC));
    uffdio_api api{};
    api.api = UFFD_API;
    if (faults < 0 || ::ioctl(faults, UFFDIO_API, &api) != 0) return false;
    uffdio_register area{};
    area.range = {reinterpret_cast<u64>(link.slots[slot].reply), kPageSize};
    area.mode = UFFDIO_REGISTER_MODE_MISSING;
    return ::ioctl(faults, UFFDIO_REGISTER, &area) == 0;
  }
  void await_fault() const {
    uffd_msg event{};
    EXPECT_EQ(::read(faults, &event, sizeof event), static_cast<ssize_t>(sizeof event));
  }
  void let_go(unsigned slot) const {
    uffdio_zeropage page{};
    page.range = {reinterpret_cast<u64>(link.slots[slot].reply), kPageSize};
    EXPECT_EQ(::ioctl(faults, UFFDIO_ZEROPAGE, &page), 0);
  }
};

TEST_F(Link, ASlowReadHoldsNobodyAndItsFlushWaits) {
  open_a_file();
  if (!hold_back(0)) GTEST_SKIP() << "no userfaultfd for the kernel's accesses here: that takes root";
  post(0, Message::read, 5, Body{}.w(1).q(0).w(100));
  std::thread reader{[&] { serves.answer(0); }};
  await_fault();
  // The same fid and others, names and data.
  ask(1, Message::getattr, Body{}.w(1).q(~u64{0}));
  ask(1, Message::read, Body{}.w(1).q(0).w(100));
  ask(1, Message::write, Body{}.w(1).q(0).w(1).b('C'));
  ask(1, Message::mkdir, Body{}.w(0).s("made").w(0755).w(0));
  ask(1, Message::renameat, Body{}.w(0).s("file").w(0).s("moved"));
  ask(1, Message::clunk, Body{}.w(1));

  post(2, Message::flush, 6, Body{}.h(5));
  std::thread flusher{[&] {
    serves.answer(2);
    EXPECT_EQ(link.slots[0].turn.get(), ShareTurn::replied) << "Rflush before the answer that it is about";
  }};
  // Of what is not there, of what is newer, of itself: nothing to wait for.
  for (const u16 tag : {u16{77}, u16{1}, u16{8}}) {
    post(3, Message::flush, 8, Body{}.h(tag));
    serves.answer(3);
    EXPECT_EQ(type_of_reply(3), static_cast<u8>(Message::flush) + 1);
  }
  ask(1, Message::walk, Body{}.w(0).w(1).h(1).s("moved"));
  let_go(0);
  reader.join();
  flusher.join();
  EXPECT_EQ(type_of_reply(0), static_cast<u8>(Message::read) + 1);
  EXPECT_EQ(link.slots[0].reply_length, kHeader + kDataHeader + 7);
}

// Whatever threads do to the same fids and names, what they hold is let go of in the end.
TEST_F(Link, ThreadsOnTheSameFidsAndNames) {
  open_a_file();
  const auto body = [](std::minstd_rand& random, Message& type) {
    const auto fid = [&] { return static_cast<u32>(random() % 5); };
    const auto name = [&] { return std::string_view{"abc"}.substr(random() % 3, 1); };
    switch (random() % 12) {
      case 0:
        return type = Message::walk, Body{}.w(0).w(fid()).h(1).s(name());
      case 1:
        return type = Message::walk, Body{}.w(fid()).w(fid()).h(0);
      case 2:
        return type = Message::lopen, Body{}.w(fid()).w(O_RDWR);
      case 3:
        return type = Message::lcreate, Body{}.w(fid()).s(name()).w(O_RDWR).w(0644).w(0);
      case 4:
        return type = Message::mkdir, Body{}.w(0).s(name()).w(0755).w(0);
      case 5:
        return type = Message::unlinkat, Body{}.w(0).s(name()).w(random() % 2 ? kRemoveDirectory : 0);
      case 6:
        return type = Message::renameat, Body{}.w(0).s(name()).w(random() % 2 ? fid() : 0).s(name());
      case 7:
        return type = Message::read, Body{}.w(fid()).q(0).w(64);
      case 8:
        return type = Message::write, Body{}.w(fid()).q(0).w(2).b('x').b('y');
      case 9:
        return type = Message::readdir, Body{}.w(fid()).q(0).w(4096);
      case 10:
        return type = Message::remove, Body{}.w(1 + fid());
      default:
        return type = Message::clunk, Body{}.w(1 + fid());
    }
  };
  std::vector<std::thread> threads;
  for (unsigned slot = 0; slot < 4; slot++)
    threads.emplace_back([&, slot] {
      std::minstd_rand random{slot + 1};
      std::vector<u8> reply(64 * KiB);
      for (int i = 0; i < 3000; i++) {
        Message type{};
        const Body asked = body(random, type);
        EXPECT_NE(server.serve(message(type, static_cast<u16>(slot), asked), reply), 0u);
      }
    });
  for (auto& thread : threads) thread.join();
  ask(1, Message::version, Body{}.w(512 * KiB).s("9P2000.L"));
  EXPECT_EQ(server.fids(), 0u);
  EXPECT_EQ(server.nodes().count(), 0u);
}

}  // namespace
}  // namespace trapline::share::test
