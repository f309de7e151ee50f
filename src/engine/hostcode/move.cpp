// The same code at another linear address: programs and libraries are loaded at a place of their own in every process.
// Its translation is copied, or taken along if it is not used where it is, and the fields that Fixup names are made new.
#include <algorithm>
#include <cstring>

#include "base/invariant.h"
#include "engine/hostcode/code_cache.h"
#include "engine/hostcode/memory_lowering.h"

namespace trapline::engine::hostcode {

namespace {

// The copy of a block's hot or cold code, in an emitter at its new place.
class Part {
 public:
  Part(Emitter& to, u64 from, u64 end, u64 place) : old_{from}, now_{place}, bytes_{to} {
    to.begin(place);
    to.append({reinterpret_cast<const u8*>(from), end - from});
  }
  u64 moved() const { return now_ - old_; }
  u64 now() const { return now_; }
  std::span<const u8> bytes() const { return {bytes_.data(), bytes_.size()}; }
  template <class T>
  T get(u32 at) const {
    T v;
    std::memcpy(&v, bytes_.data() + at, sizeof v);
    return v;
  }
  template <class T>
  void set(u32 at, T v) {
    INVARIANT(at + sizeof v <= bytes_.size(), "a field at {} of {} bytes of code", at, bytes_.size());
    bytes_.patch(at, &v, sizeof v);
  }
  void name(u32 at, const CodeCache::FieldValue& v) { bytes_.patch(at, &v.value, v.bytes); }
  // The disp32 there leads where it did from the old place.
  void keep_reaching(u32 at) {
    const u64 before = static_cast<u64>(static_cast<i64>(get<i32>(at)));
    set(at, displacement(before, moved()));
  }
  // disp32 from here to `target`, at the end of its instruction
  void reach(u32 at, u64 target) { set(at, displacement(target, now_ + at + 4)); }

 private:
  u64 old_, now_;
  Emitter& bytes_;
};

}  // namespace

// Addresses of user space that take the long form of a constant.
bool CodeCache::movable_to(Gva linear) { return linear.raw >> 47 == 0 && linear.raw >= 8 * GiB; }

CodeCache::Moved CodeCache::move(const Block& from, Gva linear, const MemoryLowering& memory, Emitter& hot_copy,
                                 Emitter& cold_copy) {
  if (!from.movable || from.stale) return Moved::no;
  const u64 by = linear - from.key.linear;
  const u64 moved_by = from.moved_by + by;
  const Block& made = from.made_as ? *from.made_as : from;
  for (const Fixup& f : from.fixups)
    if (f.names_linear() && !(movable_to(Gva{f.value}) && movable_to(Gva{f.value + moved_by}))) return Moved::no;
  Block& block = all_.emplace_back();
  block.key = {linear, from.key.gpa, from.key.mode};
  block.view = from.view;
  block.turned = from.turned;
  block.count = from.count;
  block.bytes = from.bytes;
  block.generation = from.generation;
  block.code = from.code;
  block.insns = from.insns;
  std::vector<Block::Pointer> x87{from.x87.begin(), from.x87.end()};
  for (Block::Pointer& p : x87) p.rip += by;
  block.x87 = keep<Block::Pointer>(x87);
  block.uses_x87 = from.uses_x87;
  block.movable = true;
  block.fixups = from.fixups, block.cold_fixups = from.cold_fixups;
  block.made_as = &made;
  block.moved_by = moved_by;
  if (!mark(block)) {
    all_.pop_back();
    return Moved::no;
  }
  Part hot{hot_copy, from.entry, from.end, region_.next()};
  Part cold{cold_copy, from.cold, from.cold_end, region_.next_cold()};
  block.entry = hot.now(), block.end = from.end + hot.moved();
  block.cold = cold.now(), block.cold_end = from.cold_end + cold.moved();
  block.stale_stub = from.stale_stub + cold.moved();
  block.first_site = sites_.size(), block.sites = from.sites;
  for (u64 i = 0; i < from.sites; i++) {
    ExitStub s = sites_[from.first_site + i];
    s.block = &block;
    s.rip += by;
    if (s.resume) s.resume += hot.moved();
    if (s.hit) s.hit += s.hit - from.entry < from.end - from.entry ? hot.moved() : cold.moved();
    if (s.patch) s.patch += hot.moved();
    s.number = sites_.size();
    sites_.push_back(s);
  }
  using Kind = Fixup::Kind;
  const auto fix = [&](Part& part, const Fixup& f) {
    switch (f.kind) {
      case Kind::outside:
        if (f.value - made.entry < made.end - made.entry) break;  // within itself
        part.keep_reaching(f.at);
        break;
      case Kind::cold:
        part.reach(f.at, cold.now() + f.value);
        break;
      case Kind::hot:
        part.reach(f.at, hot.now() + f.value);
        break;
      case Kind::site:
        INVARIANT(f.value - made.first_site < made.sites, "the block of {} names another's exit stub", made.key.linear);
        part.set(f.at, reinterpret_cast<u64>(&sites_[f.value - made.first_site + block.first_site]));
        break;
      default:
        part.name(f.at, value_of(f, Gva{f.value + moved_by}, memory));
    }
  };
  for (const Fixup& f : from.fixups) fix(hot, f);
  for (const Fixup& f : from.cold_fixups) fix(cold, f);
  if (!region_.add(hot.bytes(), cold.bytes())) {
    return Moved::full;
  }
  admit(block);
  cpu_.count.blocks_translated++;
  return Moved::yes;
}

}  // namespace trapline::engine::hostcode
