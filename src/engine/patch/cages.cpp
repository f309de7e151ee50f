#include "engine/patch/cages.h"

#include <algorithm>
#include <cstring>

#include "cpu/code_map.h"

namespace trapline::engine::patch {

Cages::Cages(cpu::Vcpu& cpu, std::vector<std::unique_ptr<cage::Cage>> cages, const HostLacks& host,
             std::span<u8> copies, u64 copies_offset, u64 most_mappings)
    : cpu_{cpu},
      inner_{cpu.tlb_mirror},
      frames_{cpu, host, copies, copies_offset},
      most_mappings_{most_mappings},
      free_{std::move(cages)} {
  cpu.tlb_mirror = this;
}

Cages::~Cages() {
  if (cpu_.tlb_mirror == this) cpu_.tlb_mirror = inner_;
}

Cages::Slot* Cages::find(Gpa root) {
  for (Slot& s : spaces_)
    if (s.space->root() == root) return &s;
  return nullptr;
}

void Cages::bury_dead() {
  last_ = nullptr;
  std::erase_if(spaces_, [](const Slot& s) { return s.space->cage().dead(); });
}

AddressSpace* Cages::current() {
  Slot* slot = find(root());
  if (!slot) return nullptr;
  if (slot->pcid != pcid()) {  // what the new number's entries are nobody has told
    slot->pcid = pcid();
    slot->space->revalidate(cpu_);
  }
  if (slot->space->cage().dead()) {
    bury_dead();
    return nullptr;
  }
  slot->last_use = ++uses_;
  return slot->space.get();
}

// One of a vCPU's cages runs at a time. Another one that polled would keep it from the CPU that is spared for it.
AddressSpace* Cages::now_runs(AddressSpace& space) {
  cage::Cage* const cage = &space.cage();
  if (last_ && last_ != cage) last_->rest();
  last_ = cage;
  return &space;
}

void Cages::evict(std::vector<Slot>::iterator slot) {
  slot->space->clear();
  last_ = nullptr;
  if (!slot->space->cage().dead()) free_.push_back(slot->space->release());
  spaces_.erase(slot);
}

// A free one with its stub there; the one that has been idle longest if need be; or any.
std::unique_ptr<cage::Cage> Cages::take(u64 stub) {
  const auto there = [stub](const cage::Cage& cage) { return cage.stub() == stub; };
  const auto is_free = [&] { return std::find_if(free_.begin(), free_.end(), [&](auto& c) { return there(*c); }); };
  auto found = is_free();
  if (found == free_.end() && (free_.empty() || stub != cage::kStub)) {
    auto oldest = spaces_.end();
    for (auto s = spaces_.begin(); s != spaces_.end(); ++s)
      if ((stub == cage::kStub || there(s->space->cage())) &&
          (oldest == spaces_.end() || s->last_use < oldest->last_use))
        oldest = s;
    if (oldest != spaces_.end()) evict(oldest);
    found = is_free();
  }
  if (found == free_.end()) found = free_.begin();
  if (found == free_.end()) return nullptr;
  std::unique_ptr<cage::Cage> taken = std::move(*found);
  free_.erase(found);
  return taken;
}

AddressSpace* Cages::make_current() {
  if (AddressSpace* known = current()) return now_runs(*known);
  std::unique_ptr<cage::Cage> cage = take(elsewhere_.contains(root().raw) ? cage::kOtherStub : cage::kStub);
  if (!cage) return nullptr;
  cage->forget();
  spaces_.push_back(
      {std::make_unique<AddressSpace>(std::move(cage), frames_, root(), most_mappings_), pcid(), ++uses_});
  spaces_.back().space->map_present(cpu_);
  if (spaces_.back().space->cage().dead()) return nullptr;
  return now_runs(*spaces_.back().space);
}

void Cages::drop_current() {
  if (Slot* slot = find(root())) evict(spaces_.begin() + (slot - spaces_.data()));
}

void Cages::make_way() {
  constexpr std::size_t kMost = 4096;
  if (elsewhere_.size() >= kMost) elsewhere_.clear();
  if (elsewhere_.insert(root().raw).second) drop_current();
}

void Cages::check_code() {
  const std::vector<Gpa>& overwritten = frames_.overwritten();
  if (overwritten.empty()) return;
  for (Slot& s : spaces_) s.space->forget_refusals();
  for (const Gpa page : overwritten)
    if (frames_.forget_execute(page))
      for (Slot& s : spaces_) s.space->drop_execute(page);
}

void Cages::give_up(Gpa page) {
  cpu_.code->give_up(page.frame());
  check_code();
}

void Cages::revoke_writes() {
  for (Slot& s : spaces_) s.space->drop_all_write();
}

// -- TLB flushes
void Cages::flushed_all() {
  inner_->flushed_all();
  flushed_all_contexts();
}

void Cages::flushed_all_contexts() {
  for (Slot& s : spaces_) s.space->revalidate(cpu_);
}

void Cages::flushed_context(u16 pcid) {
  for (Slot& s : spaces_)
    if (s.pcid == pcid) s.space->revalidate(cpu_);
}

void Cages::flushed_page(Gva linear) {
  inner_->flushed_page(linear);
  if (linear.raw >> 63) return;
  // A global entry goes whatever its PCID.
  for (Slot& s : spaces_) s.space->revalidate_around(cpu_, linear);
}

void Cages::dropped_write(Gpa page) {
  inner_->dropped_write(page);
  if (!cpu_.ram->is_ram(page) || !frames_.forget_write(page)) return;
  for (Slot& s : spaces_) s.space->drop_write(page);
}

void Cages::dropped_all_write() {
  inner_->dropped_all_write();
  revoke_writes();
}

}  // namespace trapline::engine::patch
