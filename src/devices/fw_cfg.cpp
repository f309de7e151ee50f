#include "devices/fw_cfg.h"

#include <algorithm>

namespace trapline::devices {

namespace {

constexpr u16 kWriteChannel = 0x4000;  // selector bit of old: writes are not offered, the item is the same
constexpr std::size_t kNameSize = 56;

void push_be(std::vector<u8>& out, u32 value, unsigned bytes) {
  for (unsigned i = bytes; i-- > 0;) out.push_back(static_cast<u8>(value >> 8 * i));
}

}  // namespace

FwCfg::FwCfg() {
  items_[signature] = {'Q', 'E', 'M', 'U'};
  add_number(id, 1, 4);  // bit 0: traditional interface; bit 1 (DMA) is not offered
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
  if (offset != 1 || size != 1) return ~u64{0};
  const std::vector<u8>* item = selected();
  if (item == nullptr || s_.position >= item->size()) return 0;
  return (*item)[s_.position++];
}

void FwCfg::write(u64 offset, unsigned size, u64 value) {
  if (offset == 0 && size == 2) s_ = {static_cast<u16>(value), 0};
}

}  // namespace trapline::devices
