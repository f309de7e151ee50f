#include "exec/initramfs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "exec/cpio.h"

namespace trapline::exec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A file that goes away.
class Temporary {
 public:
  Temporary() : fd_{::mkstemp(name_)} {}
  ~Temporary() {
    ::close(fd_);
    ::unlink(name_);
  }
  Temporary(const Temporary&) = delete;
  int fd() const { return fd_; }
  const char* name() const { return name_; }

 private:
  char name_[30] = "/tmp/trapline-cpio-XXXXXX";
  int fd_;
};

// What cpio(1) makes of an archive.
std::string listed(const Temporary& archive, const char* options) {
  std::FILE* pipe = ::popen((std::string{"cpio --quiet "} + options + " <" + archive.name()).c_str(), "r");
  std::string text;
  for (int c; (c = std::fgetc(pipe)) != EOF;) text.push_back(static_cast<char>(c));
  EXPECT_EQ(::pclose(pipe), 0);
  return text;
}

TEST(Cpio, IsWhatOthersUnpack) {
  const Temporary archive, other;
  ASSERT_EQ(::write(other.fd(), "of a file, and more", 19), 19);
  Cpio c{archive.fd()};
  c.directory("/d");
  const std::vector<u8> content{'t', 'e', 'x', 't', '\n'};
  c.file("d/file", std::span{content}, 0640);
  c.file("/empty", Content{});
  c.file("file", Content{::dup(other.fd()), 9});
  ASSERT_TRUE(c.finish());
  EXPECT_EQ(::lseek(archive.fd(), 0, SEEK_END) % 4, 0);
  EXPECT_EQ(listed(archive, "-t"), "d\nd/file\nempty\nfile\n");
  EXPECT_EQ(listed(archive, "-i --to-stdout file"), "of a file");
  EXPECT_THAT(listed(archive, "-tv"), HasSubstr("-rw-r-----"));
  EXPECT_EQ(listed(archive, "-i --to-stdout d/file"), "text\n");
}

TEST(Cpio, AFileThatEndsTooSoonIsAnError) {
  const Temporary archive, other;
  Cpio c{archive.fd()};
  c.file("file", Content{::dup(other.fd()), 9});
  EXPECT_FALSE(c.finish());
}

TEST(Initramfs, HoldsTheInitTheModulesAndTheTask) {
  Task task;
  task.root = "root";
  task.shares = {{"share0", "/a folder", false}, {"share1", "/b", true}};
  task.uid = 7, task.gid = 8, task.groups = {9, 10};
  task.umask = 027;
  task.directory = "/a folder/below";
  task.terminal = {{24, 80}};
  task.environment = {"A=b c"};
  task.arguments = {"sh", "", "-c"};
  const std::vector<Module> modules{{"virtio", Content{{1, 2, 3}}}};
  const Temporary archive;
  ASSERT_TRUE(write_initramfs(archive.fd(), task, modules));
  EXPECT_THAT(listed(archive, "-t"), HasSubstr("init\nvirtio.ko\ntrapline\n"));
  EXPECT_EQ(listed(archive, "-i --to-stdout init").substr(0, 4), "\177ELF");
  std::string told = listed(archive, "-i --to-stdout trapline");
  for (char& c : told)
    if (c == '\0') c = '\n';
  EXPECT_EQ(told,
            "module /virtio.ko\nroot root\nshare share0 rw /a folder\nshare share1 ro /b\nuid 7\ngid 8\ngroup 9\n"
            "group 10\numask 27\ndirectory /a folder/below\nterminal 24 80\nenv A=b c\narg sh\narg \narg -c\n");
}

}  // namespace
}  // namespace trapline::exec
