#include "scan/kernel_relocs.h"

#include "scan/elf.h"

namespace trapline::scan {

namespace {

// The lists are read from the end and each ends at a 0: 32-bit places, then (64-bit kernels) places with the inverse
// of an address, then 64-bit places. Entries are the low half of a sign-extended address.
class Lists {
 public:
  Lists(Image& image, Bytes bytes) : image_{image}, bytes_{bytes}, at_{bytes.size()} {}

  void read(unsigned width, bool use) {
    while (at_ >= 4) {
      at_ -= 4;
      const i32 entry = *load<i32>(bytes_, at_);
      if (entry == 0) return;
      if (use) note(entry, width);
    }
  }

 private:
  void note(i32 entry, unsigned width) {
    const bool is64 = image_.code_size == isa::CodeSize::bits64;
    const u64 place = is64 ? static_cast<u64>(i64{entry}) : static_cast<u32>(entry);
    const Section* s = image_.section_of(place);
    if (!s || s->code) return;
    const u64 offset = place - s->address;
    std::optional<u64> target;
    if (width == 8)
      target = load<u64>(s->bytes, offset);
    else if (const auto v = load<i32>(s->bytes, offset))
      target = is64 ? static_cast<u64>(i64{*v}) : static_cast<u32>(*v);
    if (target && image_.code_at(*target)) image_.roots.push_back({*target, Because::pointer});
  }

  Image& image_;
  Bytes bytes_;
  u64 at_;
};

}  // namespace

void add_kernel_relocations(Image& image) {
  const Bytes file{*image.storage};
  Bytes appended = tail(file, elf_extent(file));
  appended = appended.first(appended.size() / 4 * 4);
  if (appended.size() < 12) return;
  Lists lists{image, appended};
  lists.read(4, true);
  if (image.code_size != isa::CodeSize::bits64) return;
  lists.read(4, false);
  lists.read(8, true);
}

}  // namespace trapline::scan
