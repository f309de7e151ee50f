#include "isa/decode_memo.h"

#include <sys/mman.h>

#include <array>
#include <cstring>
#include <memory>

#include "base/growing_memory.h"

namespace trapline::isa {

namespace {

constexpr unsigned kMostForm = 8;  // bytes in front of the numbers
constexpr unsigned kLongest = 15;

// Opcodes with a ModRM byte, by map (SDM Vol. 2D, tables; 64-bit mode).
constexpr std::array<u64, 4> kModrm1{
    0x0f0f'0f0f'0f0f'0f0f,  // 00-3F: the ALU rows
    0x0000'0a0c'0000'0000,  // 40-7F: 62 (EVEX, told apart before), 63, 69, 6B
    0x0000'0000'0000'ffff,  // 80-BF
    0xc0c0'0000'ff0f'00c3,  // C0-FF: C0 C1 C6 C7 D0-D3 D8-DF F6 F7 FE FF
};
constexpr bool bit(const std::array<u64, 4>& table, u8 opcode) { return table[opcode >> 6] >> (opcode & 63) & 1; }

// 0F xx without one; all others have it or are not decoded here.
constexpr bool without_modrm(u8 opcode) {
  switch (opcode) {
    case 0x05:
    case 0x06:
    case 0x07:
    case 0x08:
    case 0x09:
    case 0x0b:
    case 0x0e:
    case 0x77:
    case 0xa0:
    case 0xa1:
    case 0xa2:
    case 0xa8:
    case 0xa9:
    case 0xaa:
      return true;
    default:
      return (opcode >= 0x30 && opcode <= 0x37) || (opcode >= 0x80 && opcode <= 0x8f) ||
             (opcode >= 0xc8 && opcode <= 0xcf);
  }
}

constexpr bool is_prefix(u8 b) {
  return b == 0x66 || b == 0x67 || b == 0xf0 || b == 0xf2 || b == 0xf3 || b == 0x2e || b == 0x36 || b == 0x3e ||
         b == 0x26 || b == 0x64 || b == 0x65;
}

// How many bytes the form has in 64-bit mode; 0: it is none for this memory. A guess: what Zydis finds is compared with
// it before anything is kept.
unsigned form_bytes(const u8* b) {
  unsigned n = 0;
  while (is_prefix(b[n]))
    if (++n == 4) return 0;
  if ((b[n] & 0xf0) == 0x40) n++;
  const u8 opcode = b[n++];
  bool modrm = false;
  if (opcode == 0x0f) {
    const u8 second = b[n++];
    if (second == 0x0f) return 0;
    if (second == 0x38 || second == 0x3a)
      n++, modrm = true;
    else
      modrm = !without_modrm(second);
  } else if (opcode == 0xc5 || opcode == 0xc4) {
    n += opcode == 0xc5 ? 1 : 2;
    modrm = b[n++] != 0x77;
  } else if (opcode == 0x62) {
    n += 4;
    modrm = true;
  } else {
    modrm = bit(kModrm1, opcode);
  }
  if (modrm) {
    const u8 m = b[n++];
    if (m < 0xc0 && (m & 7) == 4) n++;
  }
  return n <= kMostForm ? n : 0;
}

// A number of `bits` behind the form.
struct Number {
  u8 offset = 0, bits = 0;
  bool is_signed = false;
  u64 read(const u8* bytes) const {
    u64 v = 0;
    std::memcpy(&v, bytes + offset, bits / 8);
    const unsigned unused = 64 - bits;
    return is_signed ? static_cast<u64>(static_cast<i64>(v << unused) >> unused) : v << unused >> unused;
  }
};

constexpr u8 kNone = 0xff;

// What every look-up reads, in two cache lines; the raw form beside it is ten times as large, and few ask for it.
struct alignas(128) Entry {
  u64 form = 0;
  u8 bytes = 0;  // of it; 0: the entry is empty
  Vendor vendor = Vendor::intel;
  u8 length = 0;
  u8 memory = kNone, immediate[2] = {kNone, kNone};  // operands that have the numbers
  Number disp, imm[2];
  u8 next = 0;  // of a set's first: which of them goes next
  Insn insn;
};
static_assert(sizeof(Entry) == 128);

// Do the numbers stand where and as the decoded forms say? Then only they differ in what else has this form.
bool fits(Entry& e, const Raw& raw, const u8* bytes, unsigned form) {
  const ZydisDecodedInstruction& i = raw.insn;
  if (i.mnemonic == ZYDIS_MNEMONIC_UD0 || i.mnemonic == ZYDIS_MNEMONIC_UD1) return false;
  const bool evex = i.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
  if (evex && i.raw.disp.size == 8) return false;
  unsigned next = form;
  e.disp = {i.raw.disp.offset, i.raw.disp.size, true};
  if (e.disp.bits != 0) {
    if (e.disp.offset != next) return false;
    next += e.disp.bits / 8u;
  }
  for (int n = 0; n < 2; n++) {
    e.imm[n] = {i.raw.imm[n].offset, i.raw.imm[n].size, i.raw.imm[n].is_signed != 0};
    if (e.imm[n].bits == 0) continue;
    if (e.imm[n].offset != next) return false;
    next += e.imm[n].bits / 8u;
  }
  if (next != i.length) return false;
  int seen = 0;
  for (u8 n = 0; n < i.operand_count; n++) {
    const ZydisDecodedOperand& op = raw.op[n];
    if (op.encoding == ZYDIS_OPERAND_ENCODING_IS4) return false;
    if (op.type == ZYDIS_OPERAND_TYPE_POINTER) return false;
    if (op.type == ZYDIS_OPERAND_TYPE_MEMORY && op.mem.disp.has_displacement) {
      if (e.memory != kNone) return false;
      e.memory = n;
    }
    if (op.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
      if (seen == 2) return false;
      e.immediate[seen++] = n;
    }
  }
  // A displacement that is no operand's (there is none such), numbers that are more or fewer than the operands.
  if ((e.disp.bits != 0) != (e.memory != kNone)) return false;
  const int numbers = (e.imm[0].bits != 0) + (e.imm[1].bits != 0);
  if (numbers != 0 && numbers != seen) return false;
  if (e.disp.bits != 0 && e.disp.read(bytes) != static_cast<u64>(raw.op[e.memory].mem.disp.value)) return false;
  if (e.disp.bits != 0 && e.insn.mem.disp != raw.op[e.memory].mem.disp.value) return false;
  if (numbers > 0 && e.insn.imm != e.imm[0].read(bytes)) return false;
  return numbers < 2 || e.insn.imm2 == e.imm[1].read(bytes);
}

// Into the Insn alone.
void put_numbers(Entry& e, const u8* bytes) {
  std::memcpy(e.insn.bytes.data() + e.bytes, bytes + e.bytes, e.length - e.bytes);
  if (e.disp.bits != 0) e.insn.mem.disp = static_cast<i64>(e.disp.read(bytes));
  if (e.imm[0].bits != 0) e.insn.imm = e.imm[0].read(bytes);
  if (e.imm[1].bits != 0) e.insn.imm2 = e.imm[1].read(bytes);
}

void copy_raw(const Entry& e, const Raw& from, Raw& raw) {
  raw.insn = from.insn;
  std::memcpy(raw.op, from.op, from.insn.operand_count * sizeof raw.op[0]);
  if (e.disp.bits != 0) raw.op[e.memory].mem.disp.value = raw.insn.raw.disp.value = e.insn.mem.disp;
  for (int n = 0; n < 2 && e.imm[n].bits != 0; n++)
    raw.op[e.immediate[n]].imm.value.u = raw.insn.raw.imm[n].value.u = n == 0 ? e.insn.imm : e.insn.imm2;
}

class Memo {
 public:
  Memo() : entries_{static_cast<Entry*>(map_huge(kBytes))}, raw_{static_cast<Raw*>(map_pages(kRawBytes))} {}
  ~Memo() {
    if (entries_) ::munmap(entries_, kBytes);
    if (raw_) ::munmap(raw_, kRawBytes);
  }
  Memo(const Memo&) = delete;

  // The entry that has the instruction, numbers and all; null: `out` and `raw` have it, or `status` says why not.
  const Entry* find(const u8* bytes, std::size_t available, CodeSize size, Vendor vendor, Insn& out, Raw& raw,
                    DecodeStatus& status);
  const Raw& raw_of(const Entry& e) const { return raw_[&e - entries_]; }
  Raw& room() { return room_; }

 private:
  static constexpr unsigned kBits = 12, kWays = 2;  // sets; entries of each
  static constexpr u64 kEntries = u64{kWays} << kBits;
  static constexpr u64 kBytes = (sizeof(Entry) * kEntries + kHugePage - 1) & ~(kHugePage - 1);
  static constexpr u64 kRawBytes = (sizeof(Raw) * kEntries + kPageSize - 1) & ~(kPageSize - 1);
  static void* map_pages(u64 bytes) {
    void* const p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? nullptr : p;
  }
  Entry* set(u64 form, unsigned bytes) {
    return entries_ + ((form ^ bytes) * 0x9e3779b97f4a7c15 >> (64 - kBits)) * kWays;
  }
  Entry* entries_;
  Raw* raw_;
  Raw room_;
};

const Entry* Memo::find(const u8* bytes, std::size_t available, CodeSize size, Vendor vendor, Insn& out, Raw& raw,
                        DecodeStatus& status) {
  const bool may = size == CodeSize::bits64 && available >= kLongest && entries_ && raw_;
  const unsigned form = may ? form_bytes(bytes) : 0;
  if (form == 0) {
    status = decode(bytes, available, size, vendor, out, raw);
    return nullptr;
  }
  u64 key = 0;
  std::memcpy(&key, bytes, sizeof key);
  key = key << (64 - 8 * form) >> (64 - 8 * form);
  Entry* const ways = set(key, form);
  for (unsigned i = 0; i < kWays; i++) {
    if (Entry& e = ways[i]; e.form == key && e.bytes == form && e.vendor == vendor) {
      put_numbers(e, bytes);
      return &e;
    }
  }
  status = decode(bytes, available, size, vendor, out, raw);
  if (status != DecodeStatus::ok) return nullptr;
  const u8 way = ways->next;
  Entry& e = ways[way];
  e = Entry{};
  ways->next = (way + 1) % kWays;
  e.insn = out;
  if (!fits(e, raw, bytes, form)) return nullptr;
  raw_[&e - entries_] = raw;
  e.form = key;
  e.bytes = static_cast<u8>(form);
  e.vendor = vendor;
  e.length = out.length;
  return &e;
}

Memo& memo() {
  static thread_local Memo memo;
  return memo;
}

}  // namespace

DecodeStatus decode_often(const u8* bytes, std::size_t available, CodeSize size, Vendor vendor, Insn& out, Raw& raw) {
  DecodeStatus status = DecodeStatus::ok;
  Memo& m = memo();
  if (const Entry* e = m.find(bytes, available, size, vendor, out, raw, status)) {
    out = e->insn;
    copy_raw(*e, m.raw_of(*e), raw);
  }
  return status;
}

DecodeStatus decode_often(const u8* bytes, std::size_t available, CodeSize size, Vendor vendor, Insn& out,
                          const Raw*& form) {
  DecodeStatus status = DecodeStatus::ok;
  Memo& m = memo();
  const Entry* const e = m.find(bytes, available, size, vendor, out, m.room(), status);
  if (e != nullptr) out = e->insn;
  form = e != nullptr ? &m.raw_of(*e) : status == DecodeStatus::ok ? &m.room() : nullptr;
  return status;
}

}  // namespace trapline::isa
