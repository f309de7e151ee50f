// One program to scan, whatever file it came in: sections with their bytes, and what is known about where code begins.
// Made by open_images(); every Bytes points into `storage`.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "isa/insn.h"
#include "scan/bytes.h"

namespace trapline::scan {

enum class ImageKind : u8 { executable, shared_object, relocatable, kernel, raw };

struct Section {
  std::string name;
  u64 address = 0;  // of a relocatable file: made up, see Image::relocatable()
  Bytes bytes;      // empty for .bss and its like
  u64 file_offset = 0;
  bool code = false;
  u64 end() const { return address + bytes.size(); }
  bool holds(u64 a) const { return a >= address && a - address < bytes.size(); }
};

enum class SymbolKind : u8 {
  function,  // STT_FUNC, STT_GNU_IFUNC, a kernel's own table
  label,     // STT_NOTYPE in a code section: assembly
};

struct Symbol {
  u64 address = 0, size = 0;  // size 0: unknown
  std::string name;
  SymbolKind kind = SymbolKind::function;
};

// A relocation of a relocatable file, in a code section: `value` is S + A, what the linker would store but for `place`.
struct CodeRelocation {
  u64 place = 0;
  u64 value = 0;
  bool relative = false;  // the field gets value - place
  bool known = false;     // the symbol is in this file
};

// A place known to hold code, and why.
enum class Because : u8 {
  entry,
  function_symbol,
  label_symbol,
  init_array,
  unwind_entry,  // the start of an FDE in .eh_frame
  plt,
  pointer,          // a relocation outside the code stores this address
  exception_table,  // __ex_table: faulting instruction or fixup
  patch_site,       // named by one of Linux's patch tables
  direct_flow,      // a direct call, jump or fall-through; takes its source's confidence
  jump_table,
  address_taken,  // an instruction computes this address
  gap,            // linear sweep
};

struct Root {
  u64 address = 0;
  Because because = Because::entry;
};

struct Image {
  std::string name;    // the file's path; archive members as "lib.a(member.o)"
  std::string format;  // "ELF64 shared object", "bzImage (lz4), ELF64 executable"
  ImageKind kind = ImageKind::executable;
  isa::CodeSize code_size = isa::CodeSize::bits64;
  std::shared_ptr<const std::vector<u8>> storage;
  std::vector<std::shared_ptr<const std::vector<u8>>> patched;  // relocated copies of tables
  std::vector<Section> sections;                                // by address, code sections do not overlap
  std::vector<Symbol> symbols;                                  // by address
  std::vector<CodeRelocation> code_relocations;                 // by place
  std::vector<Root> roots;
  std::vector<std::string> warnings;  // what was malformed and left out
  bool packed = false;                // offsets count in what came out of a compressed file or an archive

  // Addresses of a relocatable file mean nothing outside: show section and offset.
  bool relocatable() const { return kind == ImageKind::relocatable; }
  const Section* section_of(u64 address) const;  // nullptr: none
  const Section* code_at(u64 address) const;
  void index_code();  // to be called when `sections` is complete, before code_at()
  const Section* section_named(std::string_view wanted) const;

 private:
  std::vector<std::size_t> code_;  // indices of code sections: data sections may share their addresses
};

}  // namespace trapline::scan
