// What the executable's headers promise the loader and the kernel (gABI, chapter 5; GNU extensions).
#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
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
  // The place in the file of what is loaded at an address; 0 if nothing is.
  u_int64_t place(u_int64_t address) const {
    for (const Elf64_Phdr& s : segments)
      if (s.p_type == PT_LOAD && address >= s.p_vaddr && address - s.p_vaddr < s.p_filesz)
        return s.p_offset + (address - s.p_vaddr);
    return 0;
  }
  // What other objects have to define. The string table follows the symbols, as every linker lays them.
  std::vector<std::string> imports() const {
    std::vector<std::string> names;
    const u_int64_t names_at = place(entry(DT_STRTAB));
    for (u_int64_t at = place(entry(DT_SYMTAB)); at + sizeof(Elf64_Sym) <= names_at; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      std::memcpy(&symbol, &bytes[at], sizeof symbol);
      if (symbol.st_shndx == SHN_UNDEF && symbol.st_name < entry(DT_STRSZ))
        names.emplace_back(&bytes[names_at + symbol.st_name]);
    }
    return names;
  }
  // GNU_PROPERTY_X86_FEATURE_1_AND of .note.gnu.property (x86-64 psABI, "Program Property"); 0 if there is none.
  u_int32_t cet() const {
    const Elf64_Phdr* notes = segment(PT_GNU_PROPERTY);
    if (!notes) return 0;
    const auto word = [&](u_int64_t at) {
      u_int32_t value;
      std::memcpy(&value, &bytes[at], sizeof value);
      return value;
    };
    const u_int64_t name = notes->p_offset + sizeof(Elf64_Nhdr), first = name + 4, end = first + word(name - 8);
    for (u_int64_t at = first; at + 8 <= end; at += 8 + (word(at + 4) + 7) / 8 * 8)
      if (word(at) == GNU_PROPERTY_X86_FEATURE_1_AND) return word(at + 8);
    return 0;
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
}

TEST(Hardening, CodeIsNotWrittenAtStart) {
  const Executable e;
  for (const Elf64_Dyn& d : e.dynamic) EXPECT_NE(d.d_tag, DT_TEXTREL);
  EXPECT_FALSE(e.entry(DT_FLAGS) & DF_TEXTREL);
}

TEST(Hardening, LibrariesComeFromTheSystemAlone) {
  const Executable e;
  EXPECT_EQ(e.entry(DT_RPATH), 0u);
  EXPECT_EQ(e.entry(DT_RUNPATH), 0u);
}

TEST(Hardening, StackAndBuffersAreChecked) {
#ifndef TRAPLINE_HARDENED
  GTEST_SKIP() << "this build is not hardened: a debug or sanitizer build";
#endif
  const auto names = Executable{}.imports();
  EXPECT_THAT(names, testing::Contains("__stack_chk_fail"));
  // What libc checks differs by version and optimizer; that nothing is checked does not.
  EXPECT_THAT(names, testing::Contains(testing::AllOf(testing::EndsWith("_chk"), testing::StartsWith("__"))));
}

// Generated code has no ENDBR, and resume_by_hand() leaves a signal without the kernel: docs/architecture.md.
TEST(Hardening, NoPromiseIsMadeToControlFlowEnforcement) {
  const u_int32_t promised = Executable{}.cet();
  EXPECT_FALSE(promised & GNU_PROPERTY_X86_FEATURE_1_IBT);
  EXPECT_FALSE(promised & GNU_PROPERTY_X86_FEATURE_1_SHSTK);
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
