// SeaBIOS of Debian's package, and what it boots: boot sectors of this folder (firmware/*.asm), and images that Debian's
// own tools make (scripts/guest-firmware.sh). Each is skipped where it is missing.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <fstream>

#include "support/engines.h"
#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kSeaBios = "/usr/share/seabios/bios-256k.bin";

#define SKIP_WITHOUT(path)                                                       \
  do {                                                                           \
    if (!std::filesystem::exists(path)) GTEST_SKIP() << (path) << " is missing"; \
  } while (false)

std::string image(const char* name) { return fmt::format("{}/firmware/{}", GUEST_CACHE, name); }

std::vector<std::string> command(const std::string& engine, const std::vector<std::string>& options) {
  std::vector<std::string> argv{TRAPLINE_EXECUTABLE, "run",  "--firmware", "seabios", "--engine", engine,
                                "--memory",          "256M", "--timeout",  "280"};
  argv.insert(argv.end(), options.begin(), options.end());
  return argv;
}

// Without the sequences that a screen is drawn with: they come in the middle of words, too.
std::string plain(const std::string& output, std::size_t from) {
  std::string out;
  for (std::size_t i = from; i < output.size(); i++) {
    if (output[i] != '\x1b') {
      out += output[i];
      continue;
    }
    if (++i < output.size() && output[i] == '[')
      while (++i < output.size() && !std::isalpha(static_cast<unsigned char>(output[i]))) {
      }
  }
  return out;
}

// Is `text` on the screen, after the first `from` bytes of output?
bool shows(Process& vm, const std::string& text, seconds limit, std::size_t from = 0) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (plain(vm.output(), from).find(text) == std::string::npos) {
    if (std::chrono::steady_clock::now() > until) return false;
    vm.wait_for("no screen shows this", seconds{1});
  }
  return true;
}

// What stands on a terminal of 25 lines after this: only what has changed is drawn, a blank that was there before is not.
std::string screen(const std::string& drawn) {
  std::vector<std::string> lines(25, std::string(80, ' '));
  std::size_t row = 0, column = 0;
  for (std::size_t i = 0; i < drawn.size(); i++) {
    if (drawn[i] != '\x1b') {
      if (row < lines.size() && column < lines[row].size()) lines[row][column++] = drawn[i];
      continue;
    }
    unsigned r = 1, c = 1;
    const std::size_t end = drawn.find_first_not_of("[?;0123456789", i + 1);
    if (end == std::string::npos) break;
    const std::string sequence = drawn.substr(i, end + 1 - i);
    if (drawn[end] == 'H' && (std::sscanf(sequence.c_str(), "\x1b[%u;%uH", &r, &c), true)) row = r - 1, column = c - 1;
    if (drawn[end] == 'J') lines.assign(25, std::string(80, ' '));
    i = end;
  }
  std::string all;
  for (const std::string& line : lines) all += line + "\n";
  return all;
}

bool stands(Process& vm, const std::string& text, seconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (screen(vm.output()).find(text) == std::string::npos) {
    if (std::chrono::steady_clock::now() > until) return false;
    vm.wait_for("no screen shows this", seconds{1});
  }
  return true;
}

// A copy that a guest may write to.
struct DiskCopy {
  std::string path = "/tmp/trapline-boot-XXXXXX";
  explicit DiskCopy(const std::string& from) {
    ::close(::mkstemp(path.data()));
    std::filesystem::copy_file(from, path, std::filesystem::copy_options::overwrite_existing);
  }
  ~DiskCopy() { ::unlink(path.c_str()); }
};

struct Firmware : testing::TestWithParam<const char*> {
  void SetUp() override {
    SKIP_UNLESS_OFFERED(GetParam());
    SKIP_WITHOUT(kSeaBios);
  }
};
std::string name_of_engine(const testing::TestParamInfo<const char*>& info) { return info.param; }

TEST_P(Firmware, SaysThatNothingBoots) {
  Process vm{command(GetParam(), {})};
  EXPECT_TRUE(shows(vm, "SeaBIOS (version", seconds{60})) << vm.output();
  EXPECT_TRUE(shows(vm, "No bootable device", seconds{60})) << vm.output();
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds{30}), 128 + SIGTERM);
}

TEST_P(Firmware, BootSectorsUseItsServices) {
  const DiskCopy disk{fmt::format("{}/services.img", BOOT_SECTORS)};
  Process vm{command(GetParam(), {"--disk", disk.path})};
  ASSERT_TRUE(shows(vm, "press a key", seconds{60})) << vm.output();
  vm.send("q");
  EXPECT_EQ(vm.wait_exit(seconds{30}), 17) << vm.output();
  for (const char* service : {"chs", "edd", "lba", "write", "e820", "clock"})
    EXPECT_THAT(plain(vm.output(), 0), HasSubstr(fmt::format("{} ok", service)));
  EXPECT_THAT(plain(vm.output(), 0), HasSubstr("key q"));
  std::ifstream after{disk.path, std::ios::binary};
  char made[4];
  after.seekg(5 * 512);
  after.read(made, 4);
  EXPECT_EQ(std::string(made, 4), "made");
}

TEST_P(Firmware, ATextScreenAndItsKeyboard) {
  SKIP_WITHOUT("/usr/share/seabios/vgabios.bin");
  const DiskCopy disk{fmt::format("{}/services.img", BOOT_SECTORS)};
  Process vm{command(GetParam(), {"--disk", disk.path, "--console", "vga"})};
  ASSERT_TRUE(stands(vm, "press a key", seconds{60})) << vm.output();
  vm.send("Q");
  EXPECT_EQ(vm.wait_exit(seconds{30}), 17) << vm.output();
  EXPECT_THAT(vm.output(), HasSubstr("\x1b[2J"));
  EXPECT_THAT(screen(vm.output()), HasSubstr("key Q"));
}

// The first disk would be tried first, and has nothing to boot.
TEST_P(Firmware, TheMenuBehindEscapeBootsItsChoice) {
  SKIP_WITHOUT("/usr/share/seabios/vgabios.bin");
  const DiskCopy none{fmt::format("{}/services.img", BOOT_SECTORS)}, disk{fmt::format("{}/services.img", BOOT_SECTORS)};
  std::ofstream{none.path, std::ios::binary | std::ios::in}.write(std::string(512, '\0').data(), 512);
  for (const char* console : {"serial", "vga"}) {
    Process vm{command(GetParam(), {"--boot-menu", "--console", console, "--disk", none.path, "--disk", disk.path})};
    ASSERT_TRUE(shows(vm, "Press ESC for boot menu", seconds{60})) << console << vm.output();
    vm.send("\x1b");
    ASSERT_TRUE(shows(vm, "Select boot device", seconds{60})) << console << vm.output();
    vm.send("2");
    ASSERT_TRUE(shows(vm, "press a key", seconds{60})) << console << vm.output();
    vm.send("q");
    EXPECT_EQ(vm.wait_exit(seconds{30}), 17) << console << vm.output();
    EXPECT_THAT(plain(vm.output(), 0), Not(HasSubstr("not a bootable disk"))) << console;
  }
}

// A reset by each of a PC's ways leads to the reset vector, and the boot sector finds the disk as it left it.
TEST_P(Firmware, ResetsStartOver) {
  const DiskCopy disk{fmt::format("{}/resets.img", BOOT_SECTORS)};
  const Finished f = run(command(GetParam(), {"--disk", disk.path}), {}, seconds{120});
  EXPECT_EQ(f.code, 21) << f.output;
  for (const char* way : {"reset 0", "reset 1", "reset 2", "reset 3"}) EXPECT_THAT(plain(f.output, 0), HasSubstr(way));
}

TEST_P(Firmware, GrubsMenuOnADiskBootsLinux) {
  SKIP_WITHOUT(image("grub.img"));
  const DiskCopy disk{image("grub.img")};
  Process vm{command(GetParam(), {"--disk", disk.path})};
  ASSERT_TRUE(shows(vm, "Linux: firmware", seconds{100})) << vm.output();
  vm.send("\r");
  EXPECT_EQ(vm.wait_exit(seconds{200}), 0) << vm.output();
  EXPECT_THAT(vm.output(), HasSubstr("Trapline guest: done"));
}

INSTANTIATE_TEST_SUITE_P(Engines, Firmware, testing::ValuesIn(kEngines), name_of_engine);

TEST(FirmwareGuests, RunsByInstructionsRepeat) {
  SKIP_WITHOUT(kSeaBios);
  const std::string keys = "/tmp/trapline-boot-keys";
  std::ofstream{keys} << std::string(2000, 'k');  // the first are lost while the firmware sets up the port
  const auto once = [&] {
    std::string line;
    for (const std::string& word : command(
             "interpret", {"--clock", "instructions", "--disk", fmt::format("{}/services.img,snapshot", BOOT_SECTORS)}))
      line += word + " ";
    return run({"sh", "-c", line + "<" + keys}, {}, seconds{120});
  };
  const Finished first = once(), second = once();
  EXPECT_EQ(first.code, 17) << first.output;
  EXPECT_THAT(plain(first.output, 0), HasSubstr("key k"));
  EXPECT_EQ(first.output, second.output);
  ::unlink(keys.c_str());
}

// The third entry, by the arrow keys; four processors; the CD read by Linux's own driver.
TEST(FirmwareGuests, GrubsMenuOnACdBootsLinuxOnAllProcessors) {
  SKIP_WITHOUT(kSeaBios);
  SKIP_WITHOUT(image("grub.iso"));
  Process vm{command("auto", {"--cdrom", image("grub.iso"), "--cpus", "4"})};
  ASSERT_TRUE(shows(vm, "Linux: reboot", seconds{100})) << vm.output();
  vm.send("\x1b[B");
  ASSERT_TRUE(shows(vm, "*Linux: test", seconds{30})) << vm.output();
  vm.send("\x1b[B");
  ASSERT_TRUE(shows(vm, "*Linux: firmware", seconds{30})) << vm.output();
  vm.send("\r");
  EXPECT_EQ(vm.wait_exit(seconds{200}), 0) << vm.output();
  for (const char* table : {"APIC", "FACP", "DSDT"}) EXPECT_THAT(vm.output(), HasSubstr(table));
  EXPECT_THAT(vm.output(), HasSubstr("guest-test: cpus 4"));
  EXPECT_THAT(vm.output(), HasSubstr("guest-test: dmi Trapline / Trapline PC / SeaBIOS"));
  EXPECT_THAT(vm.output(), Not(HasSubstr("kernel complaint")));
  EXPECT_THAT(vm.output(), HasSubstr("guest-test: end"));
  const std::string kernel = fmt::format("{}/kernels/cloud-amd64/vmlinuz", GUEST_CACHE);
  if (vm.output().find("no module ata_piix") == std::string::npos) {
    EXPECT_THAT(vm.output(), HasSubstr("guest-test: cd " + run({"md5sum", kernel}).output.substr(0, 32)));
  }
}

TEST(FirmwareGuests, LinuxRebootsIntoTheMenu) {
  SKIP_WITHOUT(kSeaBios);
  SKIP_WITHOUT(image("grub.iso"));
  Process vm{command("auto", {"--cdrom", image("grub.iso")})};
  ASSERT_TRUE(shows(vm, "Linux: reboot", seconds{100})) << vm.output();
  for (unsigned i = 0; i < 3; i++) vm.send("\x1b[B");
  ASSERT_TRUE(shows(vm, "*Linux: reboot", seconds{30})) << vm.output();
  vm.send("\r");
  ASSERT_TRUE(vm.wait_for("Trapline guest: Linux", seconds{100})) << vm.output();
  const std::size_t rebooted = vm.output().size();
  EXPECT_TRUE(shows(vm, "Linux: reboot", seconds{150}, rebooted)) << vm.output();
}

TEST(FirmwareGuests, MemtestTestsMemory) {
  SKIP_WITHOUT(kSeaBios);
  SKIP_WITHOUT(image("memtest.iso"));
  Process vm{command("auto", {"--cdrom", image("memtest.iso"), "--console", "vga"})};
  ASSERT_TRUE(shows(vm, "Memtest86", seconds{100})) << vm.output();
  ASSERT_TRUE(shows(vm, "Testing", seconds{60})) << vm.output();
  EXPECT_TRUE(shows(vm, "Address test", seconds{150})) << vm.output();
}

TEST(FirmwareGuests, IsolinuxBootsLinux) {
  SKIP_WITHOUT(kSeaBios);
  SKIP_WITHOUT(image("isolinux.iso"));
  Process vm{command("auto", {"--cdrom", image("isolinux.iso")})};
  ASSERT_TRUE(shows(vm, "ISOLINUX is here", seconds{100})) << vm.output();
  ASSERT_TRUE(shows(vm, "boot:", seconds{30})) << vm.output();
  vm.send("linux\r");
  EXPECT_EQ(vm.wait_exit(seconds{200}), 0) << vm.output();
  EXPECT_THAT(vm.output(), HasSubstr("Trapline guest: done"));
}

}  // namespace
}  // namespace trapline::test
