#include "scan/open.h"

#include <fmt/format.h>

#include "packing/unpack.h"
#include "scan/archive.h"
#include "scan/bzimage.h"
#include "scan/elf.h"
#include "scan/kallsyms.h"
#include "scan/kernel_relocs.h"

namespace trapline::scan {

using packing::Packing;
using packing::packing_of;

namespace {

using Storage = std::shared_ptr<const std::vector<u8>>;
using Images = Result<std::vector<Image>, std::string>;

Storage own(std::vector<u8> bytes) { return std::make_shared<const std::vector<u8>>(std::move(bytes)); }

Images raw_image(const std::string& name, std::vector<u8> bytes, const RawOptions& raw) {
  Image image;
  image.name = name;
  image.kind = ImageKind::raw;
  image.code_size = raw.code_size;
  image.format = fmt::format("raw {}-bit code at {:#x}", static_cast<unsigned>(raw.code_size) * 8, raw.base);
  if (raw.base + bytes.size() < raw.base)
    return Err{
        fmt::format("--base {:#x}: {} bytes wrap around the address space: give a lower base", raw.base, bytes.size())};
  image.storage = own(std::move(bytes));
  image.sections.push_back({"raw", raw.base, Bytes{*image.storage}, 0, true});
  image.index_code();
  image.roots.push_back({raw.base, Because::entry});
  return std::vector<Image>{std::move(image)};
}

// An image's bytes, layer by layer.
class Opener {
 public:
  Opener(const std::string& name, const Limits& limits) : name_{name}, limits_{limits} {}

  Images open(std::vector<u8> bytes, u32 layer) {
    const Bytes view{bytes};
    if (is_elf(view)) return elf(std::move(bytes));
    if (is_bzimage(view)) return bzimage(view, layer);
    if (is_archive(view)) return archive(view);
    if (const Packing packing = packing_of(view); packing != Packing::none) return packed(packing, view, layer);
    return Err{
        std::string{"is no ELF file, bzImage, archive or compressed one of these: for raw code give --bits and "
                    "--base"}};
  }

 private:
  Images packed(Packing packing, Bytes bytes, u32 layer) {
    if (layer >= limits_.layers) return Err{fmt::format("is compressed more than {} times: refused", limits_.layers)};
    prefix_ += fmt::format("{}, ", name_of(packing));
    auto inner = packing::unpack(packing, bytes, limits_.unpacked);
    if (!inner) return Err{inner.error()};
    return open(std::move(*inner), layer + 1);
  }

  Images bzimage(Bytes bytes, u32 layer) {
    const auto payload = bzimage_payload(bytes);
    if (!payload) return Err{payload.error()};
    prefix_ += payload->version.empty()
                   ? "bzImage, "
                   : fmt::format("bzImage {}, ", payload->version.substr(0, payload->version.find(' ')));
    if (layer >= limits_.layers) return Err{fmt::format("is packed more than {} times: refused", limits_.layers)};
    const Packing packing = packing_of(payload->bytes);
    if (packing != Packing::none) return packed(packing, payload->bytes, layer);
    if (!is_elf(payload->bytes)) return Err{std::string{"bzImage: the kernel is compressed in an unknown way"}};
    return elf({payload->bytes.begin(), payload->bytes.end()});
  }

  Images elf(std::vector<u8> bytes) {
    auto image = read_elf(own(std::move(bytes)), limits_);
    if (!image) return Err{image.error()};
    image->name = name_;
    image->format = prefix_ + image->format;
    image->packed = !prefix_.empty();
    if (image->kind == ImageKind::kernel) {
      add_kallsyms(*image, limits_);
      add_kernel_relocations(*image);
    }
    return std::vector<Image>{std::move(*image)};
  }

  Images archive(Bytes bytes) {
    const auto members = archive_members(bytes, limits_);
    if (!members) return Err{members.error()};
    std::vector<Image> images;
    std::vector<std::string> warnings;
    for (const Member& m : *members) {
      auto image = is_elf(m.bytes) ? read_elf(own({m.bytes.begin(), m.bytes.end()}), limits_)
                                   : Result<Image, std::string>{Err{std::string{"is no ELF file"}}};
      if (!image) {
        warnings.push_back(fmt::format("member {}: {}", m.name, image.error()));
        continue;
      }
      image->name = fmt::format("{}({})", name_, m.name);
      image->format = prefix_ + "archive, " + image->format;
      image->packed = true;
      images.push_back(std::move(*image));
    }
    if (images.empty()) return Err{std::string{"archive: no member with x86 code in it"}};
    images.front().warnings.insert(images.front().warnings.end(), warnings.begin(), warnings.end());
    return images;
  }

  const std::string& name_;
  const Limits& limits_;
  std::string prefix_;
};

}  // namespace

Images open_images(const std::string& name, std::vector<u8> bytes, const std::optional<RawOptions>& raw,
                   const Limits& limits) {
  if (raw) return raw_image(name, std::move(bytes), *raw);
  return Opener{name, limits}.open(std::move(bytes), 0);
}

}  // namespace trapline::scan
