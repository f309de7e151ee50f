#include "monitor/huge_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/growing_memory.h"

namespace trapline::monitor::test {
namespace {

// KiB of the mapping at `at` that huge pages are.
u64 mapped_huge(const void* at) {
  std::ifstream smaps{"/proc/self/smaps"};
  const std::string begin = fmt::format("{:x}-", reinterpret_cast<u64>(at));
  bool here = false;
  for (std::string line; std::getline(smaps, line);) {
    if (line.find('-') < line.find(' ')) here = line.starts_with(begin);
    if (here && line.starts_with("ShmemPmdMapped:")) return std::stoull(line.substr(15));
  }
  return 0;
}

TEST(HugeFiles, AreZeroedMappableAndInHugePages) {
  const auto files = make_huge_files({{"one", 4 * kHugePage}, {"two", 0}});
  if (files.empty()) GTEST_SKIP() << "this host allows no namespaces, or has no huge pages";
  ASSERT_EQ(files.size(), 2u);
  struct stat st {};
  ASSERT_EQ(::fstat(files[0].get(), &st), 0);
  EXPECT_EQ(static_cast<u64>(st.st_size), 4 * kHugePage);
  EXPECT_EQ(st.st_nlink, 0u) << "no folder has it";
  EXPECT_EQ(::ftruncate(files[1].get(), static_cast<off_t>(kHugePage)), 0) << "its size is its owner's";
  EXPECT_NE(
      std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", files[0].get())).string().find("one (deleted)"),
      std::string::npos);

  void* const place = reserve_huge(4 * kHugePage, PROT_NONE);
  ASSERT_NE(place, nullptr);
  EXPECT_EQ(reinterpret_cast<u64>(place) % kHugePage, 0u);
  ASSERT_EQ(::mmap(place, 4 * kHugePage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, files[0].get(), 0), place);
  auto* const bytes = static_cast<volatile u8*>(place);
  EXPECT_EQ(bytes[3 * kHugePage], 0);
  bytes[kHugePage + 5] = 7;
  void* const code = ::mmap(nullptr, kPageSize, PROT_READ | PROT_EXEC, MAP_SHARED, files[0].get(), kHugePage);
  ASSERT_NE(code, MAP_FAILED) << "the cages map RAM executable";
  EXPECT_EQ(static_cast<volatile u8*>(code)[5], 7);
  EXPECT_GE(mapped_huge(place), kHugePage / KiB);
  ::munmap(code, kPageSize);
  ::munmap(place, 4 * kHugePage);
}

TEST(HugeFiles, NobodyIsLeftBehind) {
  static_cast<void>(make_huge_files({{"one", kHugePage}}));
  std::ifstream mounts{"/proc/self/mounts"};
  for (std::string line; std::getline(mounts, line);)
    EXPECT_EQ(line.find("huge=always,size=0"), std::string::npos) << line;
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "no child";
}

TEST(HugeFiles, TakeNoMemoryThatTheHostHasNot) {
  EXPECT_TRUE(roomy_for(kPageSize));
  EXPECT_FALSE(roomy_for(u64{1} << 60));
}

}  // namespace
}  // namespace trapline::monitor::test
