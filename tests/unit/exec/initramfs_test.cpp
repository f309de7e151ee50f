#include "exec/initramfs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "exec/cpio.h"

namespace trapline::exec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// What cpio(1) makes of an archive.
std::string listed(const std::vector<u8>& archive, const char* options) {
  char name[] = "/tmp/trapline-cpio-XXXXXX";
  const int fd = ::mkstemp(name);
  std::FILE* file = ::fdopen(fd, "w");
  std::fwrite(archive.data(), 1, archive.size(), file);
  std::fclose(file);
  std::FILE* pipe = ::popen((std::string{"cpio --quiet "} + options + " <" + name).c_str(), "r");
  std::string text;
  for (int c; (c = std::fgetc(pipe)) != EOF;) text.push_back(static_cast<char>(c));
  EXPECT_EQ(::pclose(pipe), 0);
  std::remove(name);
  return text;
}

TEST(Cpio, IsWhatOthersUnpack) {
  Cpio c;
  c.directory("/d");
  const std::vector<u8> content{'t', 'e', 'x', 't', '\n'};
  c.file("d/file", content, 0640);
  c.file("/empty", {});
  const std::vector<u8> archive = std::move(c).finish();
  EXPECT_EQ(archive.size() % 4, 0u);
  EXPECT_EQ(listed(archive, "-t"), "d\nd/file\nempty\n");
  EXPECT_THAT(listed(archive, "-tv"), HasSubstr("-rw-r-----"));
  EXPECT_EQ(listed(archive, "-i --to-stdout d/file"), "text\n");
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
  const std::vector<Module> modules{{"virtio", {1, 2, 3}}};
  const auto archive = make_initramfs(task, modules);
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
