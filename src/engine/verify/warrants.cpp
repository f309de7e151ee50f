#include "engine/verify/warrants.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/invariant.h"
#include "cpu/code_map.h"

namespace trapline::engine::verify {

namespace {

namespace perm = cpu::perm;

constexpr u32 kWrites = perm::kernel_write | perm::kernel_ac_write | perm::user_write;
constexpr u8 kLarge[] = {21, 22, 30};

const char* who(u32 need) {
  if (need & (perm::user_read | perm::user_write)) return "user";
  return need & (perm::kernel_read | perm::kernel_write) ? "kernel" : "kernel with AC or without SMAP";
}

}  // namespace

Warrants::Warrants(cpu::Vcpu& cpu) : cpu_{cpu}, inner_{cpu.tlb_mirror} {
  INVARIANT(inner_, "this engine has no mirror of the TLB");
  cpu::tlb_flush_all(cpu);
  cpu.tlb_mirror = this;
}

Warrants::~Warrants() {
  if (cpu_.tlb_mirror == this) cpu_.tlb_mirror = inner_;
}

// -- What begins and ends them
void Warrants::filled(const cpu::TlbEntry& e) {
  const Warrant fresh{
      e.gpa, flushes_, e.slow_perm, pcid(), e.page_shift, e.global != 0, (cpu_.cr0 & cpu::cr0::wp) != 0};
  for (unsigned i = 0; i < std::size(kLarge); i++)
    if (e.page_shift == kLarge[i]) sizes_ |= static_cast<u8>(1u << i);
  std::vector<Warrant>& there = pages_[e.tag];
  std::erase_if(there, [&](const Warrant& w) {
    const bool same = w.gpa == fresh.gpa && w.perm == fresh.perm && w.pcid == fresh.pcid && w.global == fresh.global &&
                      w.wp == fresh.wp && w.page_shift == fresh.page_shift;
    return same || !alive(w);
  });
  there.push_back(fresh);
}

bool Warrants::alive(const Warrant& w) const { return w.global || w.born >= ended_[w.pcid]; }

void Warrants::flushed_all() {
  pages_.clear();
  flushed_ = true;
  inner_->flushed_all();
}

void Warrants::flushed_nonglobal() { inner_->flushed_nonglobal(); }

void Warrants::switched() {
  flushed_ = true;
  inner_->switched();
}

void Warrants::flushed_context(u16 pcid) {
  ended_[pcid] = ++flushes_;
  flushed_ = true;
  inner_->flushed_context(pcid);
}

void Warrants::flushed_all_contexts() {
  ended_.fill(++flushes_);
  flushed_ = true;
  inner_->flushed_all_contexts();
}

// Whatever its PCID: the TLB drops them all.
void Warrants::flushed_page(Gva linear) {
  pages_.erase(linear.page());
  end_large(linear, [](const Warrant&) { return true; });
  inner_->flushed_page(linear);
}

// Entries of other PCIDs live on, and are filled from again when that is current.
void Warrants::faulted_page(Gva linear) {
  const auto ends = [&](const Warrant& w) { return current(w); };
  if (const auto page = pages_.find(linear.page()); page != pages_.end()) std::erase_if(page->second, ends);
  end_large(linear, ends);
  inner_->faulted_page(linear);
}

// Those of large pages that hold `linear`, if `ends` says so.
template <class F>
void Warrants::end_large(Gva linear, F&& ends) {
  for (unsigned i = 0; i < std::size(kLarge); i++) {
    const u8 page_shift = kLarge[i];
    if (!(sizes_ >> i & 1)) continue;
    const u64 within = (u64{1} << page_shift) - 1;
    const Gva first{linear.raw & ~within}, last{linear.raw | within};
    for (auto page = pages_.lower_bound(first); page != pages_.end() && page->first <= last;) {
      std::erase_if(page->second, [&](const Warrant& w) { return w.page_shift == page_shift && ends(w); });
      page = page->second.empty() ? pages_.erase(page) : std::next(page);
    }
  }
}

// -- What they are held against
const char* Warrants::objection(const Reach& reach) const {
  if (reach.over_end) return "accesses over the end of a page have an entry";
  const Gpa gpa{reach.host.raw - reinterpret_cast<u64>(cpu_.ram_base)};
  const auto page = pages_.find(reach.page);
  if (page == pages_.end()) return "no walk since the last flush has led there";
  bool flushed = false, frame = false, allowed = false;
  for (const Warrant& w : page->second) {
    if (!current(w) || w.gpa != gpa) continue;
    flushed |= !alive(w);
    if (!alive(w)) continue;
    frame = true;
    u32 may = w.perm;
    if (!w.wp && cpu_.cr0 & cpu::cr0::wp) may &= ~(perm::kernel_write | perm::kernel_ac_write);
    allowed |= (may & reach.need) != 0;
  }
  if (!frame && flushed) return "a flush has ended that";
  if (!frame) return "the walks since the last flush have led to another frame";
  if (!allowed) return "the page tables do not allow it";
  if (reach.need & kWrites && cpu_.code && cpu_.code->has_code(gpa.frame())) return "the frame holds decoded code";
  return nullptr;
}

std::string Warrants::check(Accelerator& engine) {
  const bool all = ++since_ >= kEvery || (flushed_ && since_ >= kAfterFlush);
  if (all) since_ = 0, flushed_ = false;
  std::string report;
  engine.each_reach(all, [&](const Reach& reach) {
    if (!report.empty()) return;
    if (const char* why = objection(reach)) report = describe(reach, why);
  });
  if (pages_.size() > kMostPages) cpu::tlb_flush_all(cpu_);
  return report;
}

std::string Warrants::describe(const Reach& reach, const char* objection) const {
  std::string text = fmt::format("@{:016x} is reached by {} of mode {} at gpa {:x}, but {}\n", reach.page.raw,
                                 reach.need & kWrites ? "writes" : "reads", who(reach.need),
                                 reach.host.raw - reinterpret_cast<u64>(cpu_.ram_base), objection);
  Gpa now{0};
  text += cpu::peek_translate(cpu_, reach.page, &now) ? fmt::format("  the page tables lead to gpa {:x} now\n", now.raw)
                                                      : "  the page tables lead nowhere now\n";
  const auto page = pages_.find(reach.page);
  if (page == pages_.end()) return text;
  for (const Warrant& w : page->second)
    text += fmt::format("  a walk has led to gpa {:x}, permissions {:#x}, PCID {}{}{}\n", w.gpa.raw, w.perm, w.pcid,
                        w.global ? ", global" : "", alive(w) ? "" : ", flushed since");
  return text;
}

}  // namespace trapline::engine::verify
