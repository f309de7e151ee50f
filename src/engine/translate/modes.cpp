// Modes: what translated code may rely on, the tag of each in the jump cache, and the view of memory that goes with it.
#include "engine/translate/translator.h"

#include <algorithm>

#include "base/invariant.h"
#include "cpu/debug_port.h"
#include "engine/common/mode_key.h"
#include "engine/translate/mode_bits.h"

namespace trapline::engine::translate {

using cpu::Vcpu;

namespace {

bool flat(const cpu::Segment& s) { return s.flat_read && s.flat_write; }

// Where HostWays::gs_base says that there are these instructions.
void write_gs_base(u64 base) { asm volatile("wrgsbase %0" : : "r"(base) : "memory"); }
u64 read_gs_base() {
  u64 base;
  asm volatile("rdgsbase %0" : "=r"(base));
  return base;
}

}  // namespace

bool translatable(const Vcpu& cpu, u32 key) {
  namespace k = key;
  if (cpu.need_read & cpu::perm::never || cpu.need_write & cpu::perm::never) return false;
  if (cpu.debugger && cpu.debugger->any()) return false;
  if ((key & k::size_mask) == 2) return true;
  constexpr u32 flat32 = 1 | k::ss_big | k::flat_data | k::flat_code;
  return (key & flat32) == flat32;
}

View Translator::view_of(const Vcpu& cpu) {
  // A guest's kernel may run at CPL 3 (cpu/hypervisor.h); its accesses are a kernel's.
  if (cpu.need_read & cpu::perm::kernel_ac_read) return View::kernel_ac;
  return cpu.cpl == 3 ? View::user : View::kernel;
}

// Without its tag.
RunningMode Translator::mode_of(u32 key) const {
  const View view = view_of(cpu_);
  u32 mode = (key & 0xff) | static_cast<u32>(view) << kViewShift;
  if (cpu_.cpl == 1 || cpu_.cpl == 2) mode |= kInner;  // ring 0's pages, ring 3's instructions
  if (!(cpu_.cr0 & (cpu::cr0::em | cpu::cr0::ts))) {
    if (cpu_.cr0 & cpu::cr0::ne) mode |= kX87;
    if (cpu_.cr4 & cpu::cr4::osfxsr) mode |= kSse;
    if (cpu_.cr4 & cpu::cr4::osxsave) {
      if ((cpu_.xcr0 & 6) == 6) mode |= kAvx;
      if ((cpu_.xcr0 & 0xe6) == 0xe6) mode |= kAvx512;
    }
  }
  if (cpu_.cr4 & cpu::cr4::fsgsbase) mode |= kFsGsBase;
  if (!cpu_.in_long64()) {
    if (flat(cpu_.segment(cpu::Seg::fs))) mode |= kFsFlat;
    if (flat(cpu_.segment(cpu::Seg::gs))) mode |= kGsFlat;
  }
  return {.mode = mode, .view = view};
}

// Before anything is looked up in, or put into, the view's jump cache.
void Translator::set_mode(const RunningMode& mode) {
  now().view = mode.view;
  if (mode.mode == now().mode && now().tag < JumpCache::kTags) return;
  now().mode = mode.mode;
  now().tag = tag_of(mode.mode);
}

bool Translator::follow_mode() {
  const bool was_user = now().view == View::user;
  if (!turn()) return false;
  check_view();
  if (!user_gate_) return true;
  if (was_user && now().view != View::user) user_gate_->left_user();
  return now().view != View::user || !user_gate_->takes_user();
}

// Mode and view are those of cpu_ from now on, and so is what translated code reaches memory by. False: such code is not
// translated.
bool Translator::turn() {
  Turn& t = turns_[cpu_.cpl == 3 ? 2 : (cpu_.need_read & cpu::perm::kernel_ac_read) != 0];
  if (!cpu_.in_long64() || t.made.tag == JumpCache::kTags || t.cpl != cpu_.cpl || t.need_read != cpu_.need_read ||
      t.need_write != cpu_.need_write || t.cr0 != cpu_.cr0 || t.cr4 != cpu_.cr4 || t.xcr0 != cpu_.xcr0 ||
      (cpu_.debugger && cpu_.debugger->any())) {
    const u32 key = mode_key(cpu_);
    if (!translatable(cpu_, key)) return false;
    const View before = now().view;
    set_mode(mode_of(key));
    if (now().view != before) set_view(now().view);
    if (cpu_.in_long64()) t = {cpu_.cr0, cpu_.cr4, cpu_.xcr0, cpu_.need_read, cpu_.need_write, cpu_.cpl, now()};
    return true;
  }
  const View before = now().view;
  now() = t.made;
  if (now().view != before) set_view(now().view);
  return true;
}

u8 Translator::tag_of(u32 mode) const {
  const auto known = std::find(modes_.begin(), modes_.end(), mode);
  return known == modes_.end() ? JumpCache::kTags : static_cast<u8>(known - modes_.begin());
}

// False: there are too many modes, and all is gone.
bool Translator::tag_for(u32 mode, u8* tag) {
  if (*tag = tag_of(mode); *tag < JumpCache::kTags) return true;
  if (modes_.size() == JumpCache::kTags) {
    flush();
    return false;
  }
  *tag = static_cast<u8>(modes_.size());
  modes_.push_back(mode);
  return true;
}

void Translator::set_view(View view) {
  State& s = region_->state();
  s.tables = views_->base(view);
  s.victims = views_->jumps().victims(view);
  if (ways_.gs_base)
    write_gs_base(s.tables);
  else
    s.write_table = s.tables + Views::kWriteTable;
}

// Of the vCPU's mode are the view, what host code reaches memory by, and the tag in the jump cache. An entry of another
// view's rights would stay there (STAC in the middle of a block): --verify would not see it.
void Translator::check_view() const {
  const State& s = region_->state();
  const RunningMode& now = s.now;
  const u64 base = views_->base(now.view);
  INVARIANT(now.view == view_of(cpu_), "view {} where the mode asks for {}", static_cast<int>(now.view),
            static_cast<int>(view_of(cpu_)));
  INVARIANT(now.tag >= modes_.size() || modes_[now.tag] == now.mode, "mode {:#x} with the tag of {:#x}", now.mode,
            modes_[now.tag]);
  INVARIANT(s.tables == base && s.victims == views_->jumps().victims(now.view),
            "code ran with the tables of another view than {}", static_cast<int>(now.view));
  INVARIANT((ways_.gs_base ? read_gs_base() : s.write_table - Views::kWriteTable) == base,
            "GS has the tables of another view than {}", static_cast<int>(now.view));
}

}  // namespace trapline::engine::translate
