#include "exec/modules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace trapline::exec {
namespace {

using testing::ElementsAre;

constexpr std::string_view kDependencies =
    "kernel/a.ko.xz: kernel/b-c.ko.xz kernel/d.ko.xz\n"
    "kernel/b-c.ko.xz: kernel/d.ko.xz\n"
    "kernel/d.ko.xz:\n"
    "kernel/unused.ko.xz:\n";

TEST(Modules, EachComesBehindWhatItNeeds) {
  const std::string_view wanted[] = {"d", "a", "b_c", "built_in"};
  const auto order = load_order(kDependencies, "kernel/built-in.ko\n", wanted);
  ASSERT_TRUE(order);
  EXPECT_THAT(*order, ElementsAre("kernel/d.ko.xz", "kernel/b-c.ko.xz", "kernel/a.ko.xz"));
}

TEST(Modules, OneThatIsMissingIsNamed) {
  const std::string_view wanted[] = {"a", "absent"};
  const auto order = load_order(kDependencies, {}, wanted);
  ASSERT_FALSE(order);
  EXPECT_EQ(order.error(), "absent");
  const std::string_view lost[] = {"x"};
  EXPECT_EQ(load_order("x.ko: y.ko\n", {}, lost).error(), "y");
}

TEST(Modules, RingsOfDependenciesEnd) {
  const std::string_view wanted[] = {"x"};
  EXPECT_THAT(*load_order("x.ko: y.ko\ny.ko: x.ko\n", {}, wanted), ElementsAre("y.ko", "x.ko"));
}

TEST(Modules, SignaturesAreCutOff) {
  const std::string word = "~Module signature appended~\n";
  std::vector<u8> module{'E', 'L', 'F', 's', 'i', 'g', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3};
  for (const char c : word) module.push_back(static_cast<u8>(c));
  EXPECT_EQ(unsigned_size(module, module.size()), 3u);
  EXPECT_EQ(unsigned_size(std::span{module}.last(40), 1000), 1000u - 3 - 40);
  EXPECT_EQ(unsigned_size(std::span{module}.first(3), 3), 3u);
  module[17] = 200;  // a lie
  EXPECT_EQ(unsigned_size(module, module.size()), module.size());
}

// A module as it lies there, one with a signature, a packed one.
TEST(Modules, AreTakenUnpackedAndUnsigned) {
  char folder[] = "/tmp/trapline-modules-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::string in = folder;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream{in + "/" + name, std::ios::binary} << text;
  };
  const std::string code(5000, 'c');
  write("plain.ko", code);
  write("signed.ko", code + "sig" + std::string(11, '\0') + "\3~Module signature appended~\n");
  write("modules.dep", "plain.ko: signed.ko packed.ko.gz\nsigned.ko:\npacked.ko.gz:\n");
  write("packed.ko", code);
  ASSERT_EQ(std::system(("gzip " + in + "/packed.ko").c_str()), 0);
  const std::string_view wanted[] = {"plain"};
  const auto modules = needed_modules(in, wanted);
  std::filesystem::remove_all(in);
  ASSERT_TRUE(modules) << modules.error();
  ASSERT_EQ(modules->size(), 3u);
  for (const Module& m : *modules) {
    const int fd = ::memfd_create("module", 0);
    ASSERT_TRUE(m.content.write_to(fd)) << m.name;
    std::string back(6000, 0);
    back.resize(static_cast<std::size_t>(::pread(fd, back.data(), back.size(), 0)));
    ::close(fd);
    EXPECT_TRUE(back == code) << m.name << ": " << back.size();
  }
}

}  // namespace
}  // namespace trapline::exec
