#include "para/xen/store.h"

#include "xen_fixture.h"

namespace trapline::para::xen {
namespace {

struct StoreTest : XenTest {
  std::unique_ptr<Store> store;
  std::string out;
  u32 id = 0;

  void SetUp() override {
    XenTest::SetUp();
    store = std::make_unique<Store>(domain, ram, frame(kStore), 1);
  }
  struct Answer {
    u32 type;
    std::string payload;
    bool operator==(const Answer&) const = default;
  };
  std::vector<Answer> ask(u32 type, const std::string& payload, u32 transaction = 0) {
    const xsd_sockmsg header{type, ++id, transaction, static_cast<u32>(payload.size())};
    std::string request(reinterpret_cast<const char*>(&header), sizeof header);
    out.clear();
    store->handle(request + payload, out);
    std::vector<Answer> answers;
    for (std::size_t at = 0; at < out.size();) {
      xsd_sockmsg h;
      std::memcpy(&h, out.data() + at, sizeof h);
      answers.push_back({h.type, out.substr(at + sizeof h, h.len)});
      at += sizeof h + h.len;
    }
    return answers;
  }
  std::string error(u32 type, const std::string& payload, u32 transaction = 0) {
    const auto answers = ask(type, payload, transaction);
    if (answers.empty() || answers[0].type != XS_ERROR) return "";
    return answers[0].payload.substr(0, answers[0].payload.size() - 1);
  }
  static std::string z(std::string text) { return text + '\0'; }
};

TEST_F(StoreTest, KnowsItsDomain) {
  EXPECT_EQ(ask(XS_READ, z("domid"))[0], (Answer{XS_READ, "1"}));
  EXPECT_EQ(ask(XS_READ, z("/local/domain/1/cpu/1/availability"))[0].payload, "online");
  EXPECT_EQ(ask(XS_GET_DOMAIN_PATH, z("1"))[0].payload, z("/local/domain/1"));
}

TEST_F(StoreTest, AGuestWritesWhatIsItsOwn) {
  EXPECT_EQ(error(XS_WRITE, z("data/x/y") + "value"), "");
  EXPECT_EQ(ask(XS_READ, z("data/x/y"))[0].payload, "value");
  EXPECT_EQ(ask(XS_DIRECTORY, z("data"))[0].payload, z("x"));
  EXPECT_EQ(error(XS_WRITE, z("domid") + "0"), "EACCES");
  EXPECT_EQ(error(XS_WRITE, z("/local/domain/0/x") + "0"), "EACCES");
  EXPECT_EQ(error(XS_RM, z("/local/domain/1/memory")), "EACCES");
  EXPECT_EQ(error(XS_SET_PERMS, z("domid") + z("n1")), "EACCES");
  EXPECT_EQ(error(XS_SET_PERMS, z("data/x") + z("n0")), "EACCES") << "no gifts";
  EXPECT_EQ(error(XS_SET_PERMS, z("data/x") + z("n1") + z("b0")), "");
  EXPECT_EQ(error(XS_RM, z("data/x")), "");
  EXPECT_EQ(error(XS_READ, z("data/x/y")), "ENOENT");
}

TEST_F(StoreTest, PathsAreWellFormedOrRefused) {
  for (const char* path : {"data//x", "data/x/", "data/ ", "/", "data/x\n", "@nobody"})
    EXPECT_NE(error(XS_WRITE, z(path) + "v"), "") << path;
  EXPECT_EQ(error(XS_WRITE, z("data/" + std::string(3100, 'a')) + "v"), "EINVAL");
  EXPECT_EQ(error(999, z("data")), "ENOSYS");
}

TEST_F(StoreTest, ATransactionIsAllOrNothing) {
  const u32 t = static_cast<u32>(std::stoul(ask(XS_TRANSACTION_START, z(""))[0].payload));
  EXPECT_EQ(error(XS_WRITE, z("data/a") + "1", t), "");
  EXPECT_EQ(error(XS_READ, z("data/a")), "ENOENT") << "not yet";
  EXPECT_EQ(ask(XS_READ, z("data/a"), t)[0].payload, "1");
  EXPECT_EQ(error(XS_TRANSACTION_END, z("T"), t), "");
  EXPECT_EQ(ask(XS_READ, z("data/a"))[0].payload, "1");
  const u32 late = static_cast<u32>(std::stoul(ask(XS_TRANSACTION_START, z(""))[0].payload));
  EXPECT_EQ(error(XS_WRITE, z("data/a") + "2", late), "");
  EXPECT_EQ(error(XS_WRITE, z("data/b") + "3"), "");
  EXPECT_EQ(error(XS_TRANSACTION_END, z("T"), late), "EAGAIN");
  EXPECT_EQ(ask(XS_READ, z("data/a"))[0].payload, "1");
  EXPECT_EQ(error(XS_TRANSACTION_END, z("T"), late), "ENOENT");
  for (int i = 0; i < 10; i++) EXPECT_EQ(error(XS_TRANSACTION_START, z("")), "");
  EXPECT_EQ(error(XS_TRANSACTION_START, z("")), "ENOSPC");
}

TEST_F(StoreTest, AWatchTellsOfChangesBelow) {
  const auto first = ask(XS_WATCH, z("data") + z("token"));
  ASSERT_EQ(first.size(), 2u) << "one event at once";
  EXPECT_EQ(first[1], (Answer{XS_WATCH_EVENT, z("data") + z("token")}));
  const auto change = ask(XS_WRITE, z("data/a") + "1");
  ASSERT_EQ(change.size(), 2u);
  EXPECT_EQ(change[1], (Answer{XS_WATCH_EVENT, z("data/a") + z("token")}));
  EXPECT_EQ(error(XS_WATCH, z("data") + z("token")), "EEXIST");
  EXPECT_EQ(error(XS_UNWATCH, z("data") + z("token")), "");
  EXPECT_EQ(ask(XS_WRITE, z("data/a") + "2").size(), 1u);
  EXPECT_EQ(error(XS_UNWATCH, z("data") + z("token")), "ENOENT");
}

TEST_F(StoreTest, AGuestCannotFillIt) {
  std::string last;
  for (int i = 0; i < 3000 && last.empty(); i++) last = error(XS_WRITE, z("data/n" + std::to_string(i)) + "v");
  EXPECT_EQ(last, "ENOSPC");
  EXPECT_LE(store->tree().nodes(), StoreTree::kMostNodes);
  EXPECT_EQ(error(XS_WRITE, z("data/n1") + std::string(3000, 'x')), "ENOSPC");
  for (int i = 0; i < 200; i++) last = error(XS_WATCH, z("data") + z(std::to_string(i)));
  EXPECT_EQ(last, "ENOSPC");
}

TEST_F(StoreTest, ARingThatMakesNoSenseEndsTheConversation) {
  auto* ring = reinterpret_cast<xenstore_domain_interface*>(ram.host(Gpa{at(kStore)}));
  ring->req_prod = 5000;
  store->notified(cpu);
  EXPECT_EQ(ring->error, u32{XENSTORE_ERROR_RINGIDX});
  std::memset(static_cast<void*>(ring), 0, sizeof *ring);
  const xsd_sockmsg header{XS_READ, 1, 0, 1 << 20};
  std::memcpy(ring->req, &header, sizeof header);
  ring->req_prod = sizeof header;
  store->notified(cpu);
  EXPECT_EQ(ring->error, u32{XENSTORE_ERROR_PROTO});
}

}  // namespace
}  // namespace trapline::para::xen
