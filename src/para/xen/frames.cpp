#include "para/xen/frames.h"

#include <cstdlib>

#include "base/host_refused.h"
#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/code_map.h"

namespace trapline::para::xen {

Frames::Frames(const Layout& layout, GuestMemory& ram)
    : layout_{layout},
      ram_{ram},
      count_{layout.frames()},
      frame_{static_cast<Frame*>(std::calloc(count_, sizeof(Frame))), std::free} {
  if (!frame_)
    throw HostRefused{fmt::format("no memory for {} frames of a Xen guest: give a smaller --memory", count_)};
  for (u64 pfn = 0; pfn < layout.pages(); pfn++) frame_[layout.mfn(Pfn{pfn}).raw].owned = true;
}

bool Frames::get(cpu::Vcpu& cpu, Mfn mfn, Type type) {
  if (!owned(mfn)) {
    // What is shared with the guest may be mapped writable, and is nothing else.
    return type == Type::writable && layout_.shared(mfn);
  }
  Frame& f = frame_[mfn.raw];
  INVARIANT(f.refs >= f.types && (f.types == 0 || f.type != Type::none), "frame {} of a Xen guest has {} of {} uses",
            mfn, f.types, f.refs);
  if (f.types != 0) {
    if (f.type != type || f.types == ~u32{0} || f.refs == ~u32{0}) return false;
    f.types++;
    f.refs++;
    return true;
  }
  if (f.refs == ~u32{0}) return false;
  if (type != Type::writable && f.type != type) {
    // Mappings that have gone may live on in TLBs.
    if (f.type == Type::writable && cpu.code) cpu.code->drop_writers(cpu, mfn.raw);
    f.type = Type::none;
  }
  // Counted before it is looked at: a table that names itself finds itself of another type.
  f.type = type;
  f.types = 1;
  f.refs++;
  if (validate(cpu, mfn, type)) return true;
  f.types = 0;
  f.refs--;
  f.type = Type::none;
  return false;
}

void Frames::put(cpu::Vcpu& cpu, Mfn mfn, Type type) {
  if (!owned(mfn)) return;  // shared
  Frame& f = frame_[mfn.raw];
  INVARIANT(f.type == type && f.types != 0 && f.refs != 0, "frame {} of a Xen guest is put without being had", mfn);
  if (f.types == 1) invalidate(cpu, mfn, type);
  f.types--;
  f.refs--;
  if (f.types == 0) f.upper = f.shared = false, f.slot = 0;
}

bool Frames::validate(cpu::Vcpu& cpu, Mfn mfn, Type type) {
  switch (type) {
    case Type::l1:
    case Type::l2:
    case Type::l3:
    case Type::l4:
      return validate_table(cpu, mfn, static_cast<unsigned>(type));
    case Type::descriptors: {
      u64* at = table(mfn);
      for (unsigned i = 0; i < kEntries; i++)
        if (!check_descriptor(at + i)) return false;
      return true;
    }
    default:
      return true;
  }
}

void Frames::invalidate(cpu::Vcpu& cpu, Mfn mfn, Type type) {
  if (type >= Type::l1 && type <= Type::l4) release_entries(cpu, mfn, static_cast<unsigned>(type), 0, kEntries);
}

// Xen's rules for what a guest's GDT or LDT may hold (the SDM's chapter 5 says why): code and data that are not the
// hypervisor's, call gates not at all.
bool check_descriptor(u64* descriptor) {
  const u64 d = *descriptor;
  constexpr u64 kPresent = u64{1} << 47, kSegment = u64{1} << 44, kDpl = u64{3} << 45, kLong = u64{1} << 53,
                kBig = u64{1} << 54, kCode = u64{1} << 43;
  if (!(d & kPresent)) {
    // A system descriptor that is not there now could be completed by nobody else; it may stay.
    return true;
  }
  if (!(d & kSegment)) return false;
  if ((d & kCode) && (d & kLong) && (d & kBig)) return false;
  *descriptor = d | kDpl;  // every segment of a guest is ring 3's
  return true;
}

}  // namespace trapline::para::xen
