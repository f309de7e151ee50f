#include "engine/verify/journal.h"

#include <fmt/format.h>

#include <cstring>
#include <iterator>

#include "engine/verify/bytes.h"

namespace trapline::engine::verify {

namespace {

constexpr u32 kWriteBits = cpu::perm::kernel_write | cpu::perm::kernel_ac_write | cpu::perm::user_write;
constexpr u64 kUsedBits = 0x60;  // A and D
constexpr std::size_t kGrants = 1 << 16;

}  // namespace

std::shared_ptr<Journal> Journal::shared() {
  static std::weak_ptr<Journal> known;
  std::shared_ptr<Journal> journal = known.lock();
  if (!journal) {
    journal.reset(new Journal);
    known = journal;
    cpu::write_watch = journal.get();
  }
  return journal;
}

Journal::~Journal() {
  if (cpu::write_watch == this) cpu::write_watch = nullptr;
}

void Journal::revoke() {
  for (cpu::TlbEntry* e : granted_) e->perm &= ~kWriteBits;
  granted_.clear();
}

void Journal::begin(const GuestMemory& ram, std::atomic<u32>& stop, bool wide) {
  revoke();
  wide_ = wide;
  ram_ = &ram;
  stop_ = &stop;
  run_ = Run::first;
  device_ = false;
  used_ = 0;
  marks_.clear();
}

void Journal::turn_over() {
  revoke();
  for (std::size_t i = 0; i < used_; i++) {
    Page& p = *pages_[i];
    u8* now = host(p.gpa);
    for (u64 line = 0; line < kPageSize / kLine; line++) {
      u8 *expected = p.expected + line * kLine, *real = now + line * kLine;
      if (same_line(expected, real)) continue;
      p.changed |= u64{1} << line;
      std::memcpy(p.before + line * kLine, expected, kLine);
      std::memcpy(expected, real, kLine);
      std::memcpy(real, p.before + line * kLine, kLine);
    }
  }
  run_ = Run::second;
  device_ = false;
}

void Journal::end() { run_ = Run::none; }

// -- A and D bits
// Where the entry is still the one that was walked.
void Journal::mark(u8* entry, const Mark& m) const {
  u64 now = 0;
  std::memcpy(&now, entry, m.bytes);
  if ((now & ~kUsedBits) != (m.value & ~kUsedBits)) return;
  now |= m.bits;
  std::memcpy(entry, &now, m.bytes);
}

void Journal::mark_page(Gpa gpa, u8* copy) const {
  const u8* page = host(gpa);
  for (const Mark& m : marks_)
    if (m.at >= page && m.at < page + kPageSize) mark(copy + (m.at - page), m);
}

bool Journal::equal() {
  bool all = true;
  for (std::size_t i = 0; i < used_; i++) {
    Page& p = *pages_[i];
    if (!marks_.empty()) {
      mark_page(p.gpa, host(p.gpa));
      mark_page(p.gpa, p.expected);
    }
    all &= std::memcmp(host(p.gpa), p.expected, kPageSize) == 0;
  }
  return all;
}

// A line as it was before both.
const u8* Journal::before(const Page& p, u64 line) const {
  return (p.changed >> line & 1 ? p.before : p.expected) + line * kLine;
}

void Journal::undo() {
  for (std::size_t i = 0; i < used_; i++) {
    const Page& p = *pages_[i];
    for (u64 line = 0; line < kPageSize / kLine; line++)
      std::memcpy(host(p.gpa) + line * kLine, before(p, line), kLine);
    mark_page(p.gpa, host(p.gpa));
  }
}

std::string Journal::describe() const {
  constexpr unsigned kPlaces = 16;
  std::string text;
  const auto out = std::back_inserter(text);
  unsigned places = 0;
  for (std::size_t i = 0; i < used_; i++) {
    const Page& p = *pages_[i];
    const u8* reference = host(p.gpa);
    const u8* translated = p.expected;
    for (u64 at = 0; at < kPageSize;) {
      if (reference[at] == translated[at]) {
        at++;
        continue;
      }
      if (++places > kPlaces) return text + "  and more\n";
      const u64 start = at & ~u64{7};  // by eight bytes
      u64 b, r, t;
      std::memcpy(&b, before(p, start / kLine) + start % kLine, 8);
      std::memcpy(&r, reference + start, 8);
      std::memcpy(&t, translated + start, 8);
      fmt::format_to(out, "  {:<22} {:<20} {:<20} {:<20}\n", fmt::format("gpa {:x}", p.gpa.raw + start),
                     fmt::format("{:016x}", b), fmt::format("{:016x}", r), fmt::format("{:016x}", t));
      at = start + 8;
    }
  }
  return text;
}

// -- What the MMU says
void Journal::writing(Gpa page, cpu::TlbEntry& entry) {
  if (granted_.size() >= kGrants) revoke();  // they ask again
  granted_.push_back(&entry);
  if (run_ == Run::none) return;
  keep(page);
  if (!wide_ || run_ != Run::first) return;
  for (const Gpa beside : {page.wrapping_add(0 - kPageSize), page.wrapping_add(kPageSize)})
    if (ram_->is_ram(beside)) keep(beside);
}

void Journal::keep(Gpa page) {
  for (std::size_t i = used_; i-- > 0;)
    if (pages_[i]->gpa == page) return;
  if (used_ == pages_.size()) pages_.push_back(std::make_unique<Page>());
  Page& p = *pages_[used_++];
  p.gpa = page;
  if (too_many() && run_ == Run::first) stop_->fetch_or(cpu::attention::kick);
  p.changed = 0;
  copy(p.expected, host(page), kPageSize);
}

void Journal::marked(void* entry, unsigned bytes, u64 bits) {
  if (run_ == Run::none) return;
  Mark m{static_cast<u8*>(entry), bytes, 0, bits};
  std::memcpy(&m.value, entry, bytes);
  m.value &= ~bits;
  marks_.push_back(m);
}

bool Journal::device() {
  if (run_ == Run::none) return false;
  device_ = true;
  return true;
}

}  // namespace trapline::engine::verify
