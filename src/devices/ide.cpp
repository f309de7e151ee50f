#include "devices/ide.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace trapline::devices {

namespace {

constexpr u8 kError = 0x01, kRequest = 0x08, kSeek = 0x10, kReady = 0x40;  // status
constexpr u8 kAborted = 0x04;                                              // error
constexpr u8 kToHost = 0x02, kIsCommand = 0x01;                            // interrupt reason
constexpr u8 kNoInterrupt = 0x02, kSoftReset = 0x04;                       // device control
constexpr u8 kStart = 0x01, kToMemory = 0x08;                              // bus master command
constexpr u8 kActive = 0x01, kFailed = 0x02, kInterrupt = 0x04, kCapable = 0x60;
constexpr u32 kPacket = 12;

enum Command : u8 {
  device_reset = 0x08,
  diagnostic = 0x90,
  packet = 0xa0,
  identify_packet = 0xa1,
  idle_now = 0xe1,
  check_power = 0xe5,
  identify_disk = 0xec,
  set_features = 0xef,
};

void put_text(std::array<u8, 512>& id, unsigned word, unsigned bytes, std::string_view text) {
  for (unsigned i = 0; i < bytes; i++) id[2 * word + (i ^ 1)] = static_cast<u8>(i < text.size() ? text[i] : ' ');
}

}  // namespace

IdeChannel::IdeChannel(IrqLine& irq, CdImage& image, virtio::Dma* dma) : irq_{irq}, dma_{dma}, drive_{image} {
  reset();
}

IdeChannel::State IdeChannel::save() const {
  State s = s_;
  s.drive = drive_.save();
  return s;
}

void IdeChannel::restore(const State& state) {
  s_ = state;
  drive_.restore(state.drive);
}

void IdeChannel::reset() {
  s_ = {};
  drive_.reset();
  irq_.set(false);
}

// ATA/ATAPI-6 9.12: what a packet device shows after a reset, when it is not ready in ATA's sense.
void IdeChannel::signature() {
  s_.phase = Phase::idle;
  s_.count = s_.lba_low = 1;
  s_.byte_low = 0x14, s_.byte_high = 0xeb;
  s_.device &= 0x10;
  s_.status = 0;
  s_.error = 1;
  s_.filled = s_.taken = s_.blocks = 0;
}

void IdeChannel::raise() {
  s_.irq = true;
  s_.master_status |= kInterrupt;
  if (!(s_.control & kNoInterrupt)) irq_.set(true);
}

u64 IdeChannel::read(u64 offset, unsigned size) {
  switch (offset) {
    case 0:
      return take_data(size);
    case 1:
      return s_.error;
    case 2:
      return s_.count;
    case 3:
      return s_.lba_low;
    case 4:
      return s_.byte_low;
    case 5:
      return s_.byte_high;
    case 6:
      return s_.device | 0xa0;
    case 7:
      s_.irq = false;
      irq_.set(false);
      return status();
    default:
      return ~u64{0};
  }
}

void IdeChannel::write(u64 offset, unsigned size, u64 value) {
  const u8 byte = static_cast<u8>(value);
  switch (offset) {
    case 0:
      if (s_.phase == Phase::packet) take_packet(value, size);
      break;
    case 1:
      s_.feature = byte;
      break;
    case 2:
      s_.count = byte;
      break;
    case 3:
      s_.lba_low = byte;
      break;
    case 4:
      s_.byte_low = byte;
      break;
    case 5:
      s_.byte_high = byte;
      break;
    case 6:
      s_.device = byte & 0x5f;
      break;
    case 7:
      command(byte);
      break;
    default:
      break;
  }
}

void IdeChannel::write_control(u8 value) {
  const bool resets = (s_.control & kSoftReset) && !(value & kSoftReset);
  s_.control = value & (kNoInterrupt | kSoftReset);
  irq_.set(s_.irq && !(s_.control & kNoInterrupt));
  if (!resets) return;
  s_.device = 0;
  signature();
}

void IdeChannel::command(u8 value) {
  s_.irq = false;
  irq_.set(false);
  if (value == diagnostic) {
    s_.device = 0;
    signature();
    return raise();
  }
  if (absent()) return;
  s_.status = kReady | kSeek;
  s_.error = 0;
  s_.phase = Phase::idle;
  switch (value) {
    case device_reset:
      return signature();
    case packet:
      s_.by_dma = s_.feature & 1;
      s_.phase = Phase::packet;
      s_.filled = 0;
      s_.count = kIsCommand;
      s_.status = kReady | kSeek | kRequest;  // no interrupt: the host polls for it
      return;
    case identify_packet:
      return identify();
    case set_features:
    case idle_now:
      return raise();
    case check_power:
      s_.count = 0xff;
      return raise();
    case identify_disk:  // 6.17.5: aborted, with the signature
      signature();
      [[fallthrough]];
    default:
      s_.status = kReady | kSeek | kError;
      s_.error = kAborted;
      return raise();
  }
}

// ATA/ATAPI-6 8.16.
void IdeChannel::identify() {
  std::array<u8, 512> id{};
  const auto word = [&](unsigned n, u16 value) {
    id[2 * n] = static_cast<u8>(value), id[2 * n + 1] = static_cast<u8>(value >> 8);
  };
  word(0, 0x85c0);  // a CD drive, removable, packets of 12 bytes at once
  put_text(id, 10, 20, "TL00001");
  put_text(id, 23, 8, "1.0");
  put_text(id, 27, 40, "TRAPLINE CD-ROM");
  word(49, dma_ ? 0x0300 : 0x0200);  // LBA, DMA
  word(53, 0x0003);
  word(63, dma_ ? 0x0407 : 0);  // multiword DMA 0 to 2
  word(64, 0x0003);             // PIO 3 and 4
  for (const unsigned n : {65u, 66u, 67u, 68u}) word(n, 120);
  word(80, 0x007e);  // ATA/ATAPI-6
  word(82, 0x4010);  // packets
  word(85, 0x4010);
  s_.blocks = 0;
  s_.count = 0;
  offer(id);
  s_.burst = static_cast<u32>(id.size());
  s_.phase = Phase::out_bytes;
  s_.status = kReady | kSeek | kRequest;
  raise();
}

void IdeChannel::offer(std::span<const u8> bytes) {
  s_.filled = static_cast<u32>(std::min<std::size_t>(bytes.size(), s_.buffer.size()));
  s_.taken = 0;
  std::copy_n(bytes.begin(), s_.filled, s_.buffer.begin());
}

void IdeChannel::take_packet(u64 value, unsigned size) {
  for (unsigned i = 0; i < size && s_.filled < kPacket; i++) s_.packet[s_.filled++] = static_cast<u8>(value >> 8 * i);
  if (s_.filled == kPacket) execute();
}

void IdeChannel::execute() {
  const Atapi::Answer answer = drive_.execute(s_.packet);
  if (answer.failed) return finish(true);
  offer(answer.bytes);
  s_.next_block = answer.first, s_.blocks = answer.blocks;
  if (s_.filled == 0 && s_.blocks == 0) return finish(false);
  if (s_.by_dma) {
    s_.phase = Phase::dma;
    s_.count = kToHost;
    s_.status = kReady | kSeek | kRequest;
    return run_dma();
  }
  if (!refill()) return finish(true);
  begin_burst();
}

// Has the buffer bytes? The next block, if they are used up.
bool IdeChannel::refill() {
  if (s_.taken < s_.filled || s_.blocks == 0) return true;
  if (!drive_.read(s_.next_block, s_.buffer)) return false;
  s_.next_block++, s_.blocks--;
  s_.filled = kCdBlock, s_.taken = 0;
  return true;
}

// As many bytes as the host allows at once, an even number unless they are the last (ATA/ATAPI-6 8.27.5).
void IdeChannel::begin_burst() {
  const u64 left = s_.filled - s_.taken + u64{s_.blocks} * kCdBlock;
  u32 most = s_.byte_low | u32{s_.byte_high} << 8;
  if (most == 0 || most == 0xffff) most = 0xfffe;
  if (most > 1) most &= ~1u;
  s_.burst = static_cast<u32>(std::min<u64>(left, most));
  s_.byte_low = static_cast<u8>(s_.burst);
  s_.byte_high = static_cast<u8>(s_.burst >> 8);
  s_.count = kToHost;
  s_.phase = Phase::out_bytes;
  s_.status = kReady | kSeek | kRequest;
  raise();
}

void IdeChannel::finish(bool failed) {
  s_.phase = Phase::idle;
  s_.filled = s_.taken = s_.blocks = 0;
  s_.count = kToHost | kIsCommand;
  s_.status = static_cast<u8>(kReady | kSeek | (failed ? kError : 0));
  s_.error = failed ? static_cast<u8>(drive_.sense_key() << 4 | kAborted) : 0;
  raise();
}

u64 IdeChannel::take_data(unsigned size) {
  u64 value = 0;
  for (unsigned i = 0; i < size && s_.phase == Phase::out_bytes; i++) {
    value |= u64{s_.buffer[s_.taken++]} << 8 * i;
    const bool burst_over = --s_.burst == 0;
    if (s_.taken < s_.filled) {
      if (burst_over) begin_burst();
      continue;
    }
    if (s_.blocks == 0 && s_.count == kToHost)
      finish(false);
    else if (s_.blocks == 0)
      s_.phase = Phase::idle, s_.status = kReady | kSeek;  // of IDENTIFY, which ends without an interrupt
    else if (!refill())
      finish(true);
    else if (burst_over)
      begin_burst();
  }
  return value;
}

u64 IdeChannel::read_master(u64 offset, unsigned size) const {
  u64 value = 0;
  for (unsigned i = 0; i < size; i++) {
    const u64 at = offset + i;
    const u8 byte = at == 0             ? s_.master_command
                    : at == 2           ? s_.master_status
                    : at >= 4 && at < 8 ? static_cast<u8>(s_.table >> 8 * (at - 4))
                                        : u8{0};
    value |= u64{byte} << 8 * i;
  }
  return value;
}

void IdeChannel::write_master(u64 offset, unsigned size, u64 value) {
  for (unsigned i = 0; i < size; i++) {
    const u64 at = offset + i;
    const u8 byte = static_cast<u8>(value >> 8 * i);
    if (at == 0) {
      const bool starts = (byte & kStart) && !(s_.master_command & kStart);
      s_.master_command = byte & (kStart | kToMemory);
      if (!(byte & kStart)) s_.master_status &= static_cast<u8>(~kActive);
      if (starts) {
        s_.master_status |= kActive;
        run_dma();
      }
    } else if (at == 2) {
      s_.master_status =
          static_cast<u8>((byte & kCapable) | (s_.master_status & ~kCapable & ~(byte & (kInterrupt | kFailed))));
    } else if (at >= 4 && at < 8) {
      const unsigned shift = static_cast<unsigned>(8 * (at - 4));
      s_.table = ((s_.table & ~(0xffu << shift)) | u32{byte} << shift) & ~3u;
    }
  }
}

// Once both sides are ready: the drive has data, and the bus master is on its way to memory.
void IdeChannel::run_dma() {
  if (s_.phase != Phase::dma || !(s_.master_status & kActive) || !(s_.master_command & kToMemory) || !dma_) return;
  const bool done = transfer();
  s_.master_status &= static_cast<u8>(~kActive);
  if (!done) s_.master_status |= kFailed;
  finish(!done);
}

// The table's entries: address, then bytes (0: 64 KiB), with the last one marked in bit 31. It does not cross 64 KiB.
bool IdeChannel::transfer() {
  constexpr u32 kMostEntries = 8192, kLast = 1u << 31;
  u32 entry_at = s_.table;
  for (u32 n = 0; n < kMostEntries; n++, entry_at += 8) {
    const auto entry = dma_->bytes(Gpa{entry_at}, 8);
    if (!entry) return false;
    const auto words = virtio::copy_once<std::array<u32, 2>>(entry->data());
    const u32 length = (words[1] & 0xfffe) != 0 ? words[1] & 0xfffe : 64 * KiB;
    const auto to = dma_->bytes(Gpa{words[0]}, length);
    if (!to) return false;
    u32 done = 0;
    while (done < length) {
      if (!refill()) return false;
      const u32 some = std::min(length - done, s_.filled - s_.taken);
      if (some == 0) break;
      std::memcpy(to->data() + done, s_.buffer.data() + s_.taken, some);
      s_.taken += some, done += some;
    }
    dma_->written(Gpa{words[0]}, done);
    if (s_.taken == s_.filled && s_.blocks == 0) return true;
    if (words[1] & kLast) return false;  // the drive has more
  }
  return false;
}

}  // namespace trapline::devices
