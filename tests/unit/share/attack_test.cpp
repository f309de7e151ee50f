// What a guest tries in order to get out of the folder, to stop the server, or to confuse it. Each would succeed if the
// server did what a plain one does.
#include <sys/sysmacros.h>

#include <random>

#include "unit/share/client.h"

namespace trapline::share::test {
namespace {

namespace fs = std::filesystem;

struct ShareAttack : testing::Test {
  Place place;
  Client client{place.folder};
  fs::path path(const char* name) { return place.folder / name; }
};

TEST_F(ShareAttack, DotDotEndsAtTheFolder) {
  fs::create_directory(path("d"));
  const u64 root = client.attributes(0)->qid_path;
  ASSERT_EQ(client.walk(1, {"..", "..", ".."}), 0);
  EXPECT_EQ(client.attributes(1)->qid_path, root);
  ASSERT_EQ(client.walk(2, {"d", "..", "..", ".."}), 0);
  EXPECT_EQ(client.attributes(2)->qid_path, root);
  EXPECT_EQ(client.walk(3, {"..", "secret"}), ENOENT);
}

TEST_F(ShareAttack, ANameIsOneComponent) {
  fs::create_directories(path("d/e"));
  const std::string longest(256, 'x');
  for (const std::string& name : {std::string{"../secret"}, std::string{"/etc/passwd"}, std::string{"d/e"},
                                  std::string{"."}, std::string{}, std::string{"a\0b", 3}, longest}) {
    EXPECT_NE(client.walk(1, {name}), 0) << name;
    client.walk(2, {});
    EXPECT_NE(client.create(2, name, O_RDWR), 0) << name;
    client.clunk(2);
    EXPECT_NE(client.mkdir(0, name), 0) << name;
    EXPECT_NE(client.symlink(0, name, "x"), 0) << name;
    EXPECT_NE(client.mknod(0, name, S_IFIFO | 0600), 0) << name;
    EXPECT_NE(client.unlink(0, name), 0) << name;
    EXPECT_NE(client.rename(0, name, 0, "y"), 0) << name;
    EXPECT_NE(client.rename(0, "d", 0, name), 0) << name;
    client.walk(3, {"d"});
    EXPECT_NE(client.link(0, 3, name), 0) << name;
    client.clunk(3);
  }
  for (const char* up : {".."}) {
    EXPECT_NE(client.mkdir(0, up), 0);
    EXPECT_NE(client.unlink(0, up, kRemoveDirectory), 0);
    EXPECT_NE(client.rename(0, "d", 0, up), 0);
    EXPECT_NE(client.rename(0, up, 0, "y"), 0);
  }
}

TEST_F(ShareAttack, LinksAreNotFollowed) {
  ASSERT_EQ(client.symlink(0, "file", (place.outside / "secret").c_str()), 0);
  ASSERT_EQ(client.symlink(0, "up", ".."), 0);
  ASSERT_EQ(client.walk(1, {"file"}), 0);
  EXPECT_EQ(client.attributes(1)->qid_type, qid_type::symlink);
  EXPECT_EQ(client.open(1, O_RDONLY), ELOOP);
  EXPECT_EQ(client.walk(2, {"up", "secret"}), ENOENT);
  ASSERT_EQ(client.walk(2, {"up"}), 0);
  EXPECT_EQ(client.open(2, O_RDONLY), ELOOP);
  EXPECT_EQ(client.walk(3, {"secret"}, 2), ENOTDIR);
  client.walk(4, {});
  EXPECT_EQ(client.create(4, "file", O_RDWR | open_bit::truncate), ELOOP);
  EXPECT_NE(client.mkdir(2, "made"), 0);
  EXPECT_NE(client.create(2, "made", O_RDWR), 0);
  EXPECT_NE(client.rename(2, "secret", 0, "mine"), 0);
  EXPECT_EQ(client.setattr(1, setattr_bit::mode, 0777), EOPNOTSUPP);
  EXPECT_NE(client.setattr(1, setattr_bit::size, 0, 0), 0);
  EXPECT_EQ(content(place.outside / "secret"), "secret");
  ASSERT_EQ(client.link(0, 1, "again"), 0);
  EXPECT_TRUE(fs::is_symlink(path("again"))) << "a link to the link, not to the secret";
}

// The name is a directory when it is walked to, and a link by the time it is used: the host's other processes, and
// guests that share the folder, can do so at any moment.
TEST_F(ShareAttack, ANameThatTurnsIntoALinkLeadsNowhere) {
  Client few{place.folder, {.most_open = 16}};
  for (Client* c : {&client, &few}) {
    fs::remove_all(path("d"));
    fs::create_directories(path("d/sub"));
    std::ofstream{path("d/secret")} << "public";
    ASSERT_EQ(c->walk(1, {"d"}), 0);
    ASSERT_EQ(c->walk(2, {"d", "secret"}), 0);
    ASSERT_EQ(c->walk(3, {"d", "sub"}), 0);
    fs::rename(path("d"), path("gone"));
    fs::create_symlink(place.outside, path("d"));
    if (c->open(2, O_RDONLY) == 0) {
      EXPECT_EQ(c->read(2, 0, 100), "public");
    }
    if (c->walk(4, {"secret"}, 1) == 0 && c->open(4, O_RDONLY) == 0) {
      EXPECT_EQ(c->read(4, 0, 100), "public");
    }
    c->mkdir(1, "made");
    c->unlink(1, "secret");
    c->setattr(2, setattr_bit::mode, 0);
    EXPECT_FALSE(fs::exists(place.outside / "made"));
    EXPECT_EQ(content(place.outside / "secret"), "secret");
    fs::remove(path("d"));
    fs::remove_all(path("gone"));
    for (u32 fid : {1u, 2u, 3u, 4u}) c->clunk(fid);
  }
}

TEST_F(ShareAttack, AFileThatWasReplacedIsAnother) {
  std::ofstream{path("f")} << "old";
  ASSERT_EQ(client.walk(1, {"f"}), 0);
  std::ofstream{path("g")} << "new";
  fs::rename(path("g"), path("f"));
  EXPECT_EQ(client.open(1, O_RDONLY), ENOENT);
  ASSERT_EQ(client.walk(2, {"f"}), 0);
  ASSERT_EQ(client.open(2, O_RDONLY), 0);
  EXPECT_EQ(client.read(2, 0, 9), "new");
}

// The host moves a directory out of another, then the guest moves the other into it: in the server's memory each would
// be inside the other, for ever.
TEST_F(ShareAttack, NoRingOfDirectories) {
  fs::create_directories(path("x/y"));
  ASSERT_EQ(client.walk(1, {"x", "y"}), 0);
  ASSERT_EQ(client.mkdir(1, "z"), 0) << "its descriptor is open from here on";
  fs::rename(path("x/y"), path("y"));
  ASSERT_EQ(client.rename(0, "x", 1, "x"), 0);
  client.walk(2, {"z"}, 1);
  client.walk(3, {"..", ".."}, 1);
  client.mkdir(1, "more");
  for (u32 fid : {1u, 2u, 3u}) client.clunk(fid);
  EXPECT_EQ(client.server().nodes().count(), 0u);
  EXPECT_TRUE(fs::exists(path("y/x")));
}

TEST_F(ShareAttack, PipesDoNotHangAndDevicesAreNotOpened) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR}) {
    client.walk(1, {"pipe"});
    EXPECT_EQ(client.open(1, static_cast<u32>(flags)), ENXIO);
    client.clunk(1);
    client.walk(2, {});
    EXPECT_EQ(client.create(2, "pipe", static_cast<u32>(flags)), ENXIO);
    client.clunk(2);
  }
  client.walk(1, {"pipe"});
  EXPECT_EQ(client.setattr(1, setattr_bit::size, 0, 0), ENXIO);
  for (const u32 type : {u32{S_IFCHR}, u32{S_IFBLK}, u32{S_IFDIR}, u32{S_IFLNK}, 0u})
    EXPECT_EQ(client.mknod(0, "node", type | 0666), EPERM) << type;
  EXPECT_FALSE(fs::exists(path("node")));
  if (::mknod(path("null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0) {
    client.walk(9, {"null"});
    EXPECT_EQ(client.open(9, O_RDONLY), ENXIO);
    EXPECT_NE(client.open(9, O_WRONLY | open_bit::truncate), 0);
  }
}

// A program that others run with the sharing user's powers is not a guest's to make.
TEST_F(ShareAttack, NoPowersAreLent) {
  client.walk(1, {});
  ASSERT_EQ(client.create(1, "f", O_RDWR, 06777), 0);
  client.setattr(1, setattr_bit::mode, 06755);
  client.walk(2, {"f"});
  client.setattr(2, setattr_bit::mode, 06711);
  ASSERT_EQ(client.mknod(0, "n", S_IFREG | 06777), 0);
  for (const char* name : {"f", "n"}) {
    struct stat st {};
    ::stat(path(name).c_str(), &st);
    EXPECT_EQ(st.st_mode & (S_ISUID | S_ISGID), 0u) << name;
  }
  EXPECT_EQ(client.mkdir(0, "d", 07777), 0);
  client.walk(3, {"d"});
  EXPECT_EQ(client.setattr(3, setattr_bit::mode, 07777), 0);
  struct stat st {};
  ::stat(path("d").c_str(), &st);
  EXPECT_EQ(st.st_mode & 07777, 03777u) << "a directory's group is handed down, which lends nothing";
}

TEST_F(ShareAttack, DeepPathsAreReachedAndRemoved) {
  constexpr u32 kDeep = 3000;  // three times what a path may have
  u32 at = 0;
  for (u32 i = 1; i <= kDeep; i++) {
    ASSERT_EQ(client.mkdir(at, "deeper"), 0) << i;
    ASSERT_EQ(client.walk(i, {"deeper"}, at), 0) << i;
    at = i;
  }
  ASSERT_EQ(client.walk(kDeep + 1, {}, at), 0);
  ASSERT_EQ(client.create(kDeep + 1, "f", O_RDWR), 0);
  EXPECT_EQ(client.write(kDeep + 1, 0, "bottom"), 0);
  EXPECT_EQ(client.unlink(at, "f"), 0);
  client.clunk(kDeep + 1);
  for (u32 i = kDeep; i >= 1; i--) {
    client.clunk(i);
    ASSERT_EQ(client.unlink(i - 1, "deeper", kRemoveDirectory), 0) << i;
  }
  EXPECT_EQ(client.server().nodes().count(), 0u);
}

TEST_F(ShareAttack, BrokenMessagesAreAnsweredWithErrors) {
  // Lengths that lie, of the message and within it.
  for (const u32 size : {0u, 6u, 8u, 100u, ~u32{0}}) {
    const auto reply = client.exchange(Body{}.w(size).b(static_cast<u8>(Message::walk)).h(1).bytes());
    ASSERT_EQ(reply.size(), 11u);
    EXPECT_EQ(reply[4], static_cast<u8>(Message::lerror) + 1);
  }
  EXPECT_EQ(client.exchange({}).size(), 11u);
  EXPECT_NE(client.call(Message::walk, Body{}.w(0).w(1).h(0xffff)).error, 0);
  EXPECT_NE(client.call(Message::walk, Body{}.w(0).w(1).h(2).s("a").h(0xffff).b('x')).error, 0);
  EXPECT_NE(client.call(Message::walk, Body{}.w(0).w(1).h(0).b(0)).error, 0) << "more than there should be";
  client.walk(1, {});
  client.create(1, "f", O_RDWR);
  EXPECT_NE(client.call(Message::write, Body{}.w(1).q(0).w(~u32{0}).b(1)).error, 0);
  EXPECT_NE(client.call(Message::write, Body{}.w(1).q(~u64{0} - 1).w(1).b(1)).error, 0);
  EXPECT_NE(client.call(Message::read, Body{}.w(1).q(~u64{0}).w(~u32{0})).error, 0);
  EXPECT_EQ(client.call(static_cast<Message>(99), Body{}).error, EOPNOTSUPP);
  EXPECT_EQ(client.call(Message::auth, Body{}.w(9).s("").s("").w(0)).error, EOPNOTSUPP);
  EXPECT_EQ(fs::file_size(path("f")), 0u);
}

TEST_F(ShareAttack, AnyMessageLeavesTheServerWhole) {
  std::mt19937 random{13};
  constexpr u8 kTypes[] = {8,  12, 14, 16, 18, 20, 22,  24,  26,  30,  32,  40,  50,  52,
                           54, 70, 72, 74, 76, 99, 100, 104, 108, 110, 116, 118, 120, 122};
  const char* const names[] = {"a", "b", "..", ".", "", "c/d", "secret"};
  for (int i = 0; i < 60'000; i++) {
    Body body;
    const unsigned parts = random() % 8;
    for (unsigned p = 0; p < parts; p++) switch (random() % 5) {
        case 0:
          body.w(random() % 6);
          break;
        case 1:
          body.s(names[random() % std::size(names)]);
          break;
        case 2:
          body.q(random() % 3 ? random() % 100 : ~u64{0});
          break;
        case 3:
          body.h(static_cast<u16>(random() % 4));
          break;
        default:
          body.w(static_cast<u32>(random()));
          break;
      }
    Body whole;
    whole.w(static_cast<u32>(kHeader + body.bytes().size())).b(kTypes[random() % std::size(kTypes)]).h(1);
    whole.raw(body.bytes().data(), body.bytes().size());
    const auto reply = client.exchange(whole.bytes());
    ASSERT_GE(reply.size(), kHeader);
    ASSERT_LE(reply.size(), 512 * KiB);
    if (i % 1000 == 0) client.call(Message::attach, Body{}.w(0).w(kNoFid).s("").s("").w(0));
  }
  EXPECT_EQ(content(place.outside / "secret"), "secret");
  std::size_t beside = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator{place.outside}) beside++;
  EXPECT_EQ(beside, 2u) << "the folder and the secret";
}

}  // namespace
}  // namespace trapline::share::test
