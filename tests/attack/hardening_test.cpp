// What the executable's headers promise the loader and the kernel (gABI, chapter 5; GNU extensions).
#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

namespace trapline::test {
namespace {

struct Executable {
  std::vector<char> bytes;
  Elf64_Ehdr header;
  std::vector<Elf64_Phdr> segments;
  std::vector<Elf64_Dyn> dynamic;

  Executable() {
    std::ifstream in{TRAPLINE_EXECUTABLE, std::ios::binary};
    bytes.assign(std::istreambuf_iterator<char>{in}, {});
    std::memcpy(&header, bytes.data(), sizeof header);
    segments.resize(header.e_phnum);
    std::memcpy(segments.data(), &bytes[header.e_phoff], sizeof(Elf64_Phdr) * segments.size());
    if (const Elf64_Phdr* d = segment(PT_DYNAMIC)) {
      dynamic.resize(d->p_filesz / sizeof(Elf64_Dyn));
      std::memcpy(dynamic.data(), &bytes[d->p_offset], sizeof(Elf64_Dyn) * dynamic.size());
    }
  }
  const Elf64_Phdr* segment(u_int32_t type) const {
    for (const Elf64_Phdr& s : segments)
      if (s.p_type == type) return &s;
    return nullptr;
  }
  u_int64_t entry(long tag) const {
    for (const Elf64_Dyn& d : dynamic)
      if (d.d_tag == tag) return d.d_un.d_val;
    return 0;
  }
};

TEST(Hardening, TheExecutableIsLoadedAnywhere) {
  const Executable e;
  EXPECT_EQ(e.header.e_type, ET_DYN);
  EXPECT_TRUE(e.entry(DT_FLAGS_1) & DF_1_PIE);
}

TEST(Hardening, EverythingIsBoundAtStartAndReadOnlyThen) {
  const Executable e;
  EXPECT_NE(e.segment(PT_GNU_RELRO), nullptr);
  EXPECT_TRUE(e.entry(DT_FLAGS) & DF_BIND_NOW || e.entry(DT_FLAGS_1) & DF_1_NOW);
  EXPECT_EQ(e.entry(DT_TEXTREL), 0u);
}

TEST(Hardening, NothingIsWritableAndExecutable) {
  const Executable e;
  for (const Elf64_Phdr& s : e.segments)
    EXPECT_FALSE(s.p_type == PT_LOAD && s.p_flags & PF_W && s.p_flags & PF_X) << std::hex << s.p_vaddr;
  const Elf64_Phdr* stack = e.segment(PT_GNU_STACK);
  ASSERT_NE(stack, nullptr);
  EXPECT_FALSE(stack->p_flags & PF_X);
}

}  // namespace
}  // namespace trapline::test
