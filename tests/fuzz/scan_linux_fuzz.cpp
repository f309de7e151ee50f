// Kernel tables and the traversal that follows them: the input is cut into the sections of a made-up kernel.
#include "scan/kallsyms.h"
#include "scan_input.h"

using namespace trapline;

namespace {

constexpr const char* kTables[] = {
    ".altinstructions", ".parainstructions", ".retpoline_sites", ".smp_locks", ".static_call_sites",
    "__jump_table",     "__ex_table",        "__bug_table",      ".eh_frame",  ".rodata"};
constexpr u64 kBase = 0xc1000000;

}  // namespace

// Two bytes of head: which table (low bits), bits (bit 6), relocatable (bit 7); the code's share in 1/256 of the input.
extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size < 8) return 0;
  const u8 head = data[0], share = data[1];
  auto storage = std::make_shared<const std::vector<u8>>(data + 2, data + size);
  const scan::Bytes all{*storage};
  const u64 code = all.size() * share / 256;
  scan::Image image;
  image.storage = storage;
  image.code_size = head & 64 ? isa::CodeSize::bits32 : isa::CodeSize::bits64;
  image.kind = head & 128 ? scan::ImageKind::relocatable : scan::ImageKind::kernel;
  const u64 base = image.code_size == isa::CodeSize::bits64 ? 0xffffffff00000000 | kBase : kBase;
  if (code) image.sections.push_back({".text", base, all.first(code), 0, true});
  image.sections.push_back({kTables[head % std::size(kTables)], base + code, all.subspan(code), code, false});
  image.index_code();
  if (code) image.roots.push_back({base, scan::Because::entry});
  scan::add_kallsyms(image, fuzz::kLimits);
  fuzz::check(image, scan::scan_image(image, fuzz::kLimits, {}));
  return 0;
}
