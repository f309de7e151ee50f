// trapline image: built, listed, run and removed. What would fetch packages is a script here, so that no network is
// needed: it hands over a tree of a few files.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "support/process.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

struct ImageCommand : testing::Test {
  fs::path folder, images;
  ImageCommand() {
    char name[] = "/tmp/trapline-image-XXXXXX";
    folder = ::mkdtemp(name);
    images = folder / "trapline/images";
  }
  ~ImageCommand() override { fs::remove_all(folder); }

  Process::Options here() const {
    return {.merge_stderr = true,
            .environment = {"XDG_DATA_HOME=" + folder.string(), "XDG_RUNTIME_DIR=" + folder.string(),
                            fmt::format("PATH={}/bin:{}:/usr/sbin:/sbin", folder.string(), ::getenv("PATH"))}};
  }
  std::vector<std::string> words(std::vector<std::string> rest) const {
    rest.insert(rest.begin(), TRAPLINE_EXECUTABLE);
    return rest;
  }
  Finished trapline(const std::vector<std::string>& rest) const { return run(words(rest), {}, seconds{60}, here()); }

  void file(const fs::path& path, const std::string& text, bool program = false) const {
    fs::create_directories((folder / path).parent_path());
    std::ofstream{folder / path, std::ios::binary} << text;
    if (program) ::chmod((folder / path).c_str(), 0755);
  }
  // A mmdebstrap that does `script`.
  void installs(const std::string& script) const { file("bin/mmdebstrap", "#!/bin/sh\n" + script + "\n", true); }

  // A tree as mmdebstrap leaves one, root's.
  void make_tree(const std::string& kernel, bool cloud_init = false) const {
    file("tree/etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndebian:x:1234:1235::/home/debian:/bin/sh\n");
    file("tree/etc/shadow", "root:*:1:0:99999:7:::\ndebian:!:1:0:99999:7:::\n");
    file("tree/etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAA root@host\n");
    file("tree/etc/hostname", "the-hosts\n");
    file("tree/boot/vmlinuz-6.1.0-9-test", "old");
    file("tree/boot/vmlinuz-6.1.0-10-test", kernel);
    file("tree/boot/initrd.img-6.1.0-10-test", "initrd");
    fs::create_directories(folder / "tree/home/debian");
    fs::create_directories(folder / "tree/dev");
    if (cloud_init) fs::create_directories(folder / "tree/etc/cloud/cloud.cfg.d");
    EXPECT_EQ(run({"tar", "-C", (folder / "tree").string(), "--owner=0", "--group=0", "--numeric-owner", "-cf",
                   (folder / "root.tar").string(), "."})
                  .code,
              0);
  }
  void need_tools() const {
    for (const char* tool : {"mke2fs", "debugfs", "ssh-keygen", "tar"})
      if (run({"sh", "-c", fmt::format("PATH=$PATH:/sbin:/usr/sbin command -v {}", tool)}).code != 0)
        GTEST_SKIP() << "no " << tool << " here";
    if (::geteuid() != 0 && run({"sh", "-c", "command -v fakeroot && command -v newuidmap"}).code != 0)
      GTEST_SKIP() << "no fakeroot here";
  }
  std::string debugfs(const std::string& command) const {
    return run({"/sbin/debugfs", "-R", command, (images / "web/disk.raw").string()}).output;
  }
};

struct BuiltImage : ImageCommand {
  void SetUp() override { need_tools(); }
};

TEST_F(BuiltImage, HasItsFilesAndOwnersAndKernel) {
  make_tree("the kernel");
  installs(fmt::format("echo \"$@\" >{0}/words; cat {0}/root.tar", folder.string()));
  const Finished built =
      trapline({"image", "build", "debian", "web", "--size", "600M", "--suite", "trixie", "--packages", "git,make"});
  ASSERT_EQ(built.code, 0) << built.output;
  std::string words;
  std::getline(std::ifstream{folder / "words"}, words);
  EXPECT_THAT(words, HasSubstr("git,make"));
  EXPECT_THAT(words, HasSubstr("trixie-security"));

  EXPECT_EQ(fs::file_size(images / "web/disk.raw"), 600u << 20);
  EXPECT_EQ(fs::status(images / "web/id_ed25519").permissions(), fs::perms{0600});
  const std::string known = run({"cat", (images / "web/known_hosts").string()}).output;
  EXPECT_EQ(known, "web ssh-ed25519 AAAA\n");
  EXPECT_EQ(run({"cat", (images / "web/vmlinuz").string()}).output, "the kernel") << "the newest one";
  EXPECT_FALSE(fs::exists(images / "web/root.tar"));
  EXPECT_FALSE(fs::exists(images / "web/root"));

  EXPECT_THAT(debugfs("cat /etc/hostname"), HasSubstr("web\n"));
  EXPECT_THAT(debugfs("stat /etc/shadow"), HasSubstr("User:     0   Group:     0"));
  EXPECT_THAT(debugfs("stat /home/debian/.ssh/authorized_keys"), HasSubstr("User:  1234   Group:  1235"));
  EXPECT_THAT(debugfs("stat /etc/sudoers.d/trapline"), HasSubstr("Mode:  0440"));
  EXPECT_THAT(debugfs("cat /etc/shadow"), HasSubstr("debian::1:"));
  EXPECT_THAT(debugfs("stat /etc/cloud"), Not(HasSubstr("Inode:"))) << "cloud-init was not asked for";
  EXPECT_EQ(run({"/sbin/e2fsck", "-fn", (images / "web/disk.raw").string()}).code, 0);

  EXPECT_THAT(trapline({"image", "ls"}).output, HasSubstr("6.1.0-10-test"));
  EXPECT_THAT(trapline({"image", "ls", "--json"}).output, HasSubstr("\"suite\": \"trixie\""));
  const Finished again = trapline({"image", "build", "debian", "web"});
  EXPECT_EQ(again.code, 3);
  EXPECT_THAT(again.output, HasSubstr("image rm web"));
  EXPECT_EQ(trapline({"image", "rm", "web"}).code, 0);
  EXPECT_TRUE(fs::is_empty(images));
}

TEST_F(BuiltImage, WithCloudInitKeepsItsHostKeys) {
  make_tree("the kernel", true);
  installs(fmt::format("cat {}/root.tar", folder.string()));
  const Finished built = trapline({"image", "build", "debian", "web", "--size", "600M", "--packages", "cloud-init"});
  ASSERT_EQ(built.code, 0) << built.output;
  EXPECT_THAT(debugfs("cat /etc/cloud/cloud.cfg.d/95_trapline.cfg"), HasSubstr("ssh_deletekeys: false\n"));
}

TEST_F(BuiltImage, ThatFailsLeavesNothing) {
  make_tree("kernel");
  installs("echo words of its own >&2; exit 1");
  const Finished failed = trapline({"image", "build", "debian", "web"});
  EXPECT_EQ(failed.code, 3);
  EXPECT_THAT(failed.output, testing::AllOf(HasSubstr("words of its own"), HasSubstr("mmdebstrap failed")));
  EXPECT_TRUE(fs::is_empty(images));

  run({"truncate", "-s", "600M", (folder / "tree/large").string()});
  make_tree("kernel");
  installs(fmt::format("cat {}/root.tar", folder.string()));
  const Finished small = trapline({"image", "build", "debian", "web", "--size", "512M"});
  EXPECT_EQ(small.code, 3);
  EXPECT_THAT(small.output, HasSubstr("--size 512M: the packages do not fit"));
  EXPECT_TRUE(fs::is_empty(images));
}

TEST_F(BuiltImage, ThatIsInterruptedLeavesNothing) {
  installs(fmt::format("trap 'echo told >{0}/told; exit 1' TERM INT; echo works; while :; do sleep 0.1; done",
                       folder.string()));
  for (const int signal : {SIGTERM, SIGINT}) {
    Process build{words({"image", "build", "debian", "web"}), here()};
    while (fs::is_empty(folder) || !fs::exists(images)) ::usleep(10'000);
    for (int tries = 0;
         tries < 1000 && run({"sh", "-c", fmt::format("ls -d {}/.building-web-*/root.tar", images.string())}).code != 0;
         tries++)
      ::usleep(10'000);
    build.signal(signal);
    EXPECT_EQ(build.wait_exit(seconds{30}), 128 + signal);
    EXPECT_THAT(build.output(), HasSubstr("interrupted"));
    EXPECT_TRUE(fs::is_empty(images));
  }
}

TEST_F(ImageCommand, IsRunByItsName) {
  file("trapline/images/web/image.json", "{\"user\": \"me\", \"format\": \"raw\"}");
  file("trapline/images/web/vmlinuz", "");
  fs::copy_file(TempFile{multiboot(prints("up", loops_for_ever()))}.path(), images / "web/vmlinuz",
                fs::copy_options::overwrite_existing);
  file("trapline/images/web/disk.raw", std::string(4096, 'x'));
  Process vm{words({"run", "web"}), here()};
  ASSERT_TRUE(vm.wait_for("up", seconds{60})) << vm.output();
  EXPECT_THAT(vm.output(), testing::ContainsRegex("ssh -p 22[0-9]+ -i .*/web/id_ed25519 .*me@127.0.0.1"));
  EXPECT_THAT(trapline({"ps"}).output, testing::ContainsRegex("web .*image web"));
  EXPECT_THAT(trapline({"image", "rm", "web"}).output, HasSubstr("a VM uses it"));
  EXPECT_THAT(trapline({"run", "web"}).output, HasSubstr("in use by another VM"));
  EXPECT_EQ(trapline({"kill", "web"}).code, 0);
  vm.wait_exit(seconds{30});

  const Finished xen = trapline({"run", "web", "--para", "xen"});
  EXPECT_EQ(xen.code, 3);
  EXPECT_THAT(xen.output, HasSubstr("run web: its initrd has no driver for the disk of a Xen PV guest"));

  Process kept{words({"run", "web", "--snapshot", "--net", "none"}), here()};
  Process second{words({"run", "web", "--snapshot", "--net", "none"}), here()};
  ASSERT_TRUE(kept.wait_for("up", seconds{60}) && second.wait_for("up", seconds{60}));
  EXPECT_THAT(kept.output(), testing::Not(HasSubstr("ssh")));
  EXPECT_THAT(trapline({"ps"}).output, testing::AllOf(HasSubstr("web "), HasSubstr("web1 ")));
  EXPECT_EQ(trapline({"image", "rm", "web"}).code, 3);
}

TEST_F(ImageCommand, WrongWordsAreNamed) {
  EXPECT_EQ(trapline({"image"}).code, 2);
  EXPECT_THAT(trapline({"image", "make"}).output, HasSubstr("make: no such action"));
  EXPECT_EQ(trapline({"image", "ls", "x"}).code, 2);
  EXPECT_EQ(trapline({"image", "rm"}).code, 2);
  EXPECT_EQ(trapline({"image", "rm", "web"}).code, 3);
  EXPECT_EQ(trapline({"image", "build", "fedora", "web"}).code, 2);
  EXPECT_THAT(trapline({"image", "build", "debian", "web", "--size", "1M"}).output, HasSubstr("--size 1M"));
  const Finished none = trapline({"run", "web"});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.output, HasSubstr("no such image"));
  EXPECT_EQ(trapline({"image", "ls"}).output, "");
  EXPECT_FALSE(fs::exists(images)) << "looking makes nothing";
}

}  // namespace
}  // namespace trapline::test
