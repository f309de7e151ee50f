#include "share/server.h"

#include <fmt/format.h>
#include <sys/xattr.h>

#include <algorithm>
#include <set>

#include "unit/share/client.h"

namespace trapline::share::test {
namespace {

namespace fs = std::filesystem;

struct Share : testing::Test {
  Place place;
  Client client{place.folder};
  fs::path path(const char* name) { return place.folder / name; }
};

TEST_F(Share, AgreesOnAVersionAndAMessageLength) {
  Answer answer = client.call(Message::version, Body{}.w(1 << 30).s("9P2000.L"));
  Reader in = answer.reader();
  EXPECT_EQ(in.word(), 512 * KiB);
  EXPECT_EQ(in.string(), "9P2000.L");
  answer = client.call(Message::version, Body{}.w(8192).s("9P2000.u"));
  in = answer.reader();
  EXPECT_EQ(in.word(), 8192u);
  EXPECT_EQ(in.string(), "unknown");
  EXPECT_NE(client.call(Message::version, Body{}.w(100).s("9P2000.L")).error, 0);
}

TEST_F(Share, ANewVersionLetsGoOfTheOldSession) {
  ASSERT_EQ(client.walk(1, {}), 0);
  client.call(Message::version, Body{}.w(8192).s("9P2000.L"));
  EXPECT_EQ(client.server().fids(), 0u);
  EXPECT_EQ(client.clunk(1), EBADF);
}

TEST_F(Share, CreatesWritesAndReads) {
  ASSERT_EQ(client.walk(1, {}), 0);
  ASSERT_EQ(client.create(1, "new", O_RDWR, 0640), 0);
  EXPECT_EQ(client.write(1, 0, "hello world"), 0);
  EXPECT_EQ(client.write(1, 6, "there"), 0);
  EXPECT_EQ(client.read(1, 0, 100), "hello there");
  EXPECT_EQ(client.read(1, 6, 3), "the");
  EXPECT_EQ(client.read(1, 100, 3), "");
  EXPECT_EQ(content(path("new")), "hello there");
  const auto a = client.attributes(1);
  ASSERT_TRUE(a);
  EXPECT_EQ(a->mode, S_IFREG | 0640u);
  EXPECT_EQ(a->size, 11u);
  EXPECT_EQ(a->uid, ::geteuid());
  EXPECT_EQ(client.clunk(1), 0);
}

TEST_F(Share, CreatingWhatExistsOpensIt) {
  std::ofstream{path("old")} << "content";
  client.walk(1, {});
  EXPECT_EQ(client.create(1, "old", O_RDWR | open_bit::exclusive), EEXIST);
  ASSERT_EQ(client.create(1, "old", O_RDWR), 0);
  EXPECT_EQ(client.read(1, 0, 100), "content");
  client.walk(2, {});
  ASSERT_EQ(client.create(2, "old", O_RDWR | open_bit::truncate), 0);
  EXPECT_EQ(content(path("old")), "");
}

TEST_F(Share, AppendsWhereTheEndIs) {
  std::ofstream{path("log")} << "one ";
  client.walk(1, {"log"});
  ASSERT_EQ(client.open(1, O_WRONLY | open_bit::append), 0);
  EXPECT_EQ(client.write(1, 0, "two"), 0);
  EXPECT_EQ(content(path("log")), "one two");
}

TEST_F(Share, WalksAsFarAsThereIsSomething) {
  fs::create_directories(path("a/b"));
  EXPECT_EQ(client.walk(1, {"none"}), ENOENT);
  const Answer answer = client.call(Message::walk, Body{}.w(0).w(1).h(3).s("a").s("none").s("b"));
  EXPECT_EQ(answer.error, 0);
  EXPECT_EQ(answer.reader().half(), 1);
  EXPECT_EQ(client.clunk(1), EBADF) << "a walk in part makes no fid";
  EXPECT_EQ(client.walk(1, {"a", "b"}), 0);
  EXPECT_EQ(client.walk(1, {"a"}), EBADF) << "a fid that is taken";
  EXPECT_EQ(client.walk(2, {"a"}, 1), ENOENT);
  EXPECT_EQ(client.walk(2, {".."}, 1), 0);
}

TEST_F(Share, ListsADirectoryInPiecesOfAnySize) {
  std::set<std::string> expected{".", ".."};
  for (int i = 0; i < 3000; i++) {
    const std::string name = fmt::format("{:x>{}}", i, 1 + i % 100);
    std::ofstream{path(name.c_str())};
    expected.insert(name);
  }
  client.walk(1, {});
  ASSERT_EQ(client.open(1, O_RDONLY), 0);
  for (const u32 count : {300u, 1000u, 8192u, 60000u}) {
    const auto names = client.list(1, count);
    EXPECT_EQ(names.size(), expected.size()) << count;
    EXPECT_EQ(std::set<std::string>(names.begin(), names.end()), expected) << count;
  }
  EXPECT_EQ(client.call(Message::readdir, Body{}.w(1).q(0).w(10)).error, EINVAL);
}

TEST_F(Share, ChangesAttributes) {
  std::ofstream{path("file")} << "0123456789";
  client.walk(1, {"file"});
  EXPECT_EQ(client.setattr(1, setattr_bit::mode, 0600), 0);
  EXPECT_EQ(client.setattr(1, setattr_bit::size, 0, 4), 0);
  EXPECT_EQ(client.setattr(1, setattr_bit::mtime | setattr_bit::mtime_set, 0, 0, 1'000'000), 0);
  struct stat st {};
  ::stat(path("file").c_str(), &st);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  EXPECT_EQ(st.st_size, 4);
  EXPECT_EQ(st.st_mtim.tv_sec, 1'000'000);
  EXPECT_EQ(client.setattr(1, setattr_bit::mode, 0), 0) << "and back, without a right to open it";
  EXPECT_EQ(client.setattr(1, setattr_bit::mode, 0644), 0);
}

TEST_F(Share, ChangesTheTimesOfALinkItself) {
  std::ofstream{place.outside / "target"};
  fs::create_symlink(place.outside / "target", path("link"));
  struct stat before {
  }, after{};
  ::stat((place.outside / "target").c_str(), &before);
  client.walk(1, {"link"});
  EXPECT_EQ(client.setattr(1, setattr_bit::mtime | setattr_bit::mtime_set, 0, 0, 1234), 0);
  ::stat((place.outside / "target").c_str(), &after);
  EXPECT_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
  ::lstat(path("link").c_str(), &after);
  EXPECT_EQ(after.st_mtim.tv_sec, 1234);
}

TEST_F(Share, MakesAndMovesAndRemovesNames) {
  EXPECT_EQ(client.mkdir(0, "d", 0750), 0);
  EXPECT_EQ(client.mkdir(0, "d"), EEXIST);
  EXPECT_EQ(client.symlink(0, "s", "../anything"), 0);
  EXPECT_EQ(client.mknod(0, "pipe", S_IFIFO | 0600), 0);
  EXPECT_EQ(client.mknod(0, "socket", S_IFSOCK | 0600), 0);
  std::ofstream{path("f")} << "text";
  client.walk(1, {"f"});
  client.walk(2, {"d"});
  EXPECT_EQ(client.link(2, 1, "hard"), 0);
  EXPECT_EQ(client.attributes(1)->links, 2u);
  EXPECT_EQ(client.rename(0, "f", 2, "moved"), 0);
  EXPECT_EQ(client.attributes(1)->size, 4u) << "the fid goes with its file";
  EXPECT_EQ(content(path("d/moved")), "text");
  EXPECT_EQ(client.unlink(0, "d", kRemoveDirectory), ENOTEMPTY);
  EXPECT_EQ(client.unlink(2, "moved"), 0);
  EXPECT_EQ(client.unlink(2, "hard"), 0);
  EXPECT_EQ(client.unlink(0, "d"), EISDIR);
  EXPECT_EQ(client.unlink(0, "d", kRemoveDirectory), 0);
  const Answer link = (client.walk(3, {"s"}), client.call(Message::readlink, Body{}.w(3)));
  EXPECT_EQ(link.reader().string(), "../anything");
  EXPECT_EQ(client.call(Message::remove, Body{}.w(3)).error, 0);
  EXPECT_EQ(client.clunk(3), EBADF);
  EXPECT_FALSE(fs::exists(fs::symlink_status(path("s"))));
}

TEST_F(Share, RenamedDirectoriesTakeWhatIsBelowAlong) {
  fs::create_directories(path("a/b/c"));
  std::ofstream{path("a/b/c/f")} << "deep";
  client.walk(1, {"a", "b", "c", "f"});
  client.walk(2, {"a", "b", "c"});
  ASSERT_EQ(client.rename(0, "a", 0, "z"), 0);
  EXPECT_EQ(client.open(1, O_RDONLY), 0);
  EXPECT_EQ(client.read(1, 0, 10), "deep");
  EXPECT_EQ(client.walk(3, {"f"}, 2), 0);
  EXPECT_EQ(client.walk(4, {"..", "..", "b", "c", "f"}, 2), 0);
  EXPECT_EQ(client.walk(5, {"a"}), ENOENT);
}

TEST_F(Share, AnUnlinkedFileLivesOnWhileItIsOpen) {
  std::ofstream{path("f")} << "still here";
  client.walk(1, {"f"});
  ASSERT_EQ(client.open(1, O_RDONLY), 0);
  ASSERT_EQ(client.unlink(0, "f"), 0);
  EXPECT_EQ(client.read(1, 0, 100), "still here");
  EXPECT_EQ(client.attributes(1)->links, 0u);
  EXPECT_EQ(client.clunk(1), 0);
}

TEST_F(Share, KeepsAttributesOfUsersAndNoOthers) {
  std::ofstream{path("f")};
  if (::setxattr(path("f").c_str(), "user.probe", "x", 1, 0) != 0) GTEST_SKIP() << "no user attributes here";
  ::removexattr(path("f").c_str(), "user.probe");
  client.walk(1, {"f"});
  client.walk(2, {}, 1);
  ASSERT_EQ(client.call(Message::xattrcreate, Body{}.w(2).s("user.colour").q(4).w(0)).error, 0);
  EXPECT_EQ(client.write(2, 0, "bl"), 0);
  EXPECT_EQ(client.write(2, 2, "ue"), 0);
  EXPECT_EQ(client.write(2, 4, "!"), EINVAL);
  EXPECT_EQ(client.clunk(2), 0);
  const Answer value = client.call(Message::xattrwalk, Body{}.w(1).w(3).s("user.colour"));
  EXPECT_EQ(value.reader().quad(), 4u);
  EXPECT_EQ(client.read(3, 0, 100), "blue");
  EXPECT_EQ(client.call(Message::xattrwalk, Body{}.w(1).w(4).s("")).reader().quad(), sizeof "user.colour");
  EXPECT_EQ(client.read(4, 0, 100), std::string("user.colour\0", 12));
  client.walk(5, {}, 1);
  EXPECT_EQ(client.call(Message::xattrcreate, Body{}.w(5).s("security.capability").q(4).w(0)).error, EPERM);
  EXPECT_EQ(client.call(Message::xattrcreate, Body{}.w(5).s("trusted.x").q(4).w(0)).error, EPERM);
  EXPECT_EQ(client.call(Message::xattrcreate, Body{}.w(5).s("user.big").q(1 << 30).w(0)).error, E2BIG);
  EXPECT_EQ(client.call(Message::xattrwalk, Body{}.w(1).w(6).s("security.capability")).error, EOPNOTSUPP);
}

TEST_F(Share, SaysWhatTheFileSystemHas) {
  const Answer answer = client.call(Message::statfs, Body{}.w(0));
  ASSERT_EQ(answer.error, 0);
  Reader in = answer.reader();
  EXPECT_EQ(in.word(), kStatfsMagic);
  EXPECT_GT(in.word(), 0u);
  EXPECT_GT(in.quad(), 0u);
}

TEST_F(Share, LocksAndSyncs) {
  client.walk(1, {});
  client.create(1, "f", O_RDWR);
  EXPECT_EQ(client.call(Message::fsync, Body{}.w(1).w(0)).error, 0);
  EXPECT_EQ(client.call(Message::fsync, Body{}.w(1).w(1)).error, 0);
  EXPECT_EQ(client.call(Message::lock, Body{}.w(1).b(1).w(0).q(0).q(0).w(9).s("c")).reader().byte(), kLockSuccess);
  EXPECT_EQ(client.call(Message::getlock, Body{}.w(1).b(1).q(0).q(0).w(9).s("c")).reader().byte(), kLockTypeUnlock);
  EXPECT_EQ(client.call(Message::flush, Body{}.h(1)).error, 0);
}

TEST(ReadOnlyShare, ShowsAllAndChangesNothing) {
  Place place;
  std::ofstream{place.folder / "f"} << "text";
  fs::create_directory(place.folder / "d");
  Client client{place.folder, {.readonly = true}};
  client.walk(1, {"f"});
  EXPECT_EQ(client.open(1, O_RDWR), EROFS);
  EXPECT_EQ(client.open(1, O_RDONLY | open_bit::truncate), EROFS);
  ASSERT_EQ(client.open(1, O_RDONLY), 0);
  EXPECT_EQ(client.read(1, 0, 9), "text");
  client.walk(2, {});
  client.walk(3, {"f"});
  EXPECT_EQ(client.create(2, "n", O_RDWR), EROFS);
  EXPECT_EQ(client.create(2, "f", O_RDONLY), EROFS);
  EXPECT_EQ(client.mkdir(0, "n"), EROFS);
  EXPECT_EQ(client.symlink(0, "n", "x"), EROFS);
  EXPECT_EQ(client.mknod(0, "n", S_IFREG | 0600), EROFS);
  EXPECT_EQ(client.link(0, 3, "n"), EROFS);
  EXPECT_EQ(client.rename(0, "f", 0, "g"), EROFS);
  EXPECT_EQ(client.call(Message::rename, Body{}.w(3).w(0).s("g")).error, EROFS);
  EXPECT_EQ(client.unlink(0, "f"), EROFS);
  EXPECT_EQ(client.unlink(0, "d", kRemoveDirectory), EROFS);
  EXPECT_EQ(client.setattr(3, setattr_bit::mode, 0), EROFS);
  EXPECT_EQ(client.call(Message::xattrcreate, Body{}.w(2).s("user.x").q(1).w(0)).error, EROFS);
  EXPECT_EQ(client.call(Message::remove, Body{}.w(3)).error, EROFS);
  EXPECT_EQ(content(place.folder / "f"), "text");
}

// Names are many and descriptors few: with room for the least number, a thousand directories are still all there.
TEST(FewDescriptors, AreEnoughForManyNames) {
  Place place;
  Client client{place.folder, {.most_open = 16}};
  fs::path deep = place.folder;
  for (int i = 0; i < 100; i++) deep /= fmt::format("d{}", i % 7);
  fs::create_directories(deep);
  u32 at = Client::kRoot;
  for (u32 i = 0; i < 100; i++, at = i) ASSERT_EQ(client.walk(i + 1, {fmt::format("d{}", i % 7)}, at), 0) << i;
  for (u32 i = 0; i < 1000; i++) {
    ASSERT_EQ(client.mkdir(0, fmt::format("wide{}", i)), 0);
    ASSERT_EQ(client.walk(1000 + i, {fmt::format("wide{}", i)}), 0);
    ASSERT_EQ(client.mkdir(1000 + i, "in"), 0);
  }
  EXPECT_LE(client.server().nodes().open_count(), 16u);
  for (u32 i = 0; i < 1000; i++) ASSERT_EQ(client.walk(5000, {"in"}, 1000 + i) + client.clunk(5000), 0) << i;
  EXPECT_EQ(client.mkdir(100, "deepest"), 0);
  for (u32 i = 0; i < 15; i++) client.walk(6000 + i, {}), client.create(6000 + i, fmt::format("f{}", i), O_RDWR);
  client.walk(7000, {});
  client.walk(7001, {});
  client.create(7000, "x", O_RDWR);
  EXPECT_EQ(client.create(7001, "y", O_RDWR), ENFILE);
}

}  // namespace
}  // namespace trapline::share::test
