#include "devices/fw_cfg.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace trapline::devices {

namespace {

constexpr u16 kWriteChannel = 0x4000;  // selector bit of old: writes are not offered, the item is the same
constexpr std::size_t kNameSize = 56;
constexpr u32 kDmaSignature[2] = {0x51454d55, 0x20434647};  // "QEMU CFG"
constexpr u32 kDmaError = 1, kDmaRead = 2, kDmaSkip = 4, kDmaSelect = 8, kDmaWrite = 16;
constexpr u32 kMostAtOnce = 64 * MiB;  // longer than every item

void push_be(std::vector<u8>& out, u32 value, unsigned bytes) {
  for (unsigned i = bytes; i-- > 0;) out.push_back(static_cast<u8>(value >> 8 * i));
}

}  // namespace

FwCfg::FwCfg(virtio::Dma* dma) : dma_{dma} {
  items_[signature] = {'Q', 'E', 'M', 'U'};
  add_number(id, dma ? 3 : 1, 4);  // bit 0: traditional interface; bit 1: DMA
  rebuild_directory();
}

void FwCfg::add_number(u16 key, u64 value, unsigned bytes) {
  std::vector<u8> out;
  for (unsigned i = 0; i < bytes && i < 8; i++) out.push_back(static_cast<u8>(value >> 8 * i));
  add(key, std::move(out));
}

void FwCfg::add_file(std::string_view file_name, std::vector<u8> bytes) {
  add(static_cast<u16>(file_first + files_.size()), std::move(bytes));
  files_.emplace_back(file_name.substr(0, kNameSize - 1));
  rebuild_directory();
}

// Big-endian throughout: the count, then size, key, two reserved bytes and the name of each file.
void FwCfg::rebuild_directory() {
  std::vector<u8> dir;
  push_be(dir, static_cast<u32>(files_.size()), 4);
  for (std::size_t i = 0; i < files_.size(); i++) {
    const u16 key = static_cast<u16>(file_first + i);
    push_be(dir, static_cast<u32>(items_[key].size()), 4);
    push_be(dir, key, 2);
    push_be(dir, 0, 2);
    for (std::size_t c = 0; c < kNameSize; c++) dir.push_back(c < files_[i].size() ? static_cast<u8>(files_[i][c]) : 0);
  }
  items_[file_dir] = std::move(dir);
}

const std::vector<u8>* FwCfg::selected() const {
  const auto it = items_.find(s_.key & static_cast<u16>(~kWriteChannel));
  return it == items_.end() ? nullptr : &it->second;
}

u64 FwCfg::read(u64 offset, unsigned size) {
  if (dma_ && size == 4 && (offset == 4 || offset == 8)) return __builtin_bswap32(kDmaSignature[offset / 8]);
  if (offset != 1 || size != 1) return ~u64{0};
  const std::vector<u8>* item = selected();
  if (item == nullptr || s_.position >= item->size()) return 0;
  return (*item)[s_.position++];
}

void FwCfg::write(u64 offset, unsigned size, u64 value) {
  if (offset == 0 && size == 2) return select(static_cast<u16>(value));
  if (!dma_ || size != 4) return;
  const u32 half = __builtin_bswap32(static_cast<u32>(value));
  if (offset == 4) s_.dma_high = half;
  if (offset == 8) run_dma(Gpa{u64{s_.dma_high} << 32 | half});
}

// {control, length, address}, all big-endian. The answer takes the place of `control`.
void FwCfg::run_dma(Gpa command) {
  s_.dma_high = 0;
  const auto at = dma_->bytes(command, 16);
  if (!at) return;
  const auto words = virtio::copy_once<std::array<u32, 4>>(at->data());
  const u32 control = __builtin_bswap32(words[0]), length = __builtin_bswap32(words[1]);
  const Gpa to{u64{__builtin_bswap32(words[2])} << 32 | __builtin_bswap32(words[3])};
  const u32 answer = __builtin_bswap32(transfer(control, length, to) ? 0 : kDmaError);
  std::memcpy(at->data(), &answer, sizeof answer);
  dma_->written(command, sizeof answer);
}

bool FwCfg::transfer(u32 control, u32 length, Gpa to) {
  if (control & kDmaSelect) select(static_cast<u16>(control >> 16));
  if (control & kDmaWrite) return false;  // nothing can be written
  if (!(control & (kDmaRead | kDmaSkip))) return true;
  const std::vector<u8>* item = selected();
  const u64 left = item && s_.position < item->size() ? item->size() - s_.position : 0;
  const std::size_t some = std::min<u64>(left, length);
  if (control & kDmaRead) {
    const auto memory = length <= kMostAtOnce ? dma_->bytes(to, length) : std::nullopt;
    if (!memory) return false;
    if (some != 0) std::memcpy(memory->data(), item->data() + s_.position, some);
    std::memset(memory->data() + some, 0, length - some);
    dma_->written(to, length);
  }
  s_.position += some;
  return true;
}

}  // namespace trapline::devices
