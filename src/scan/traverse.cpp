#include "scan/traverse.h"

#include <algorithm>

#include "scan/jump_table.h"

namespace trapline::scan {

namespace {

bool is_certain(Because because) {
  switch (because) {
    case Because::entry:
    case Because::function_symbol:
    case Because::init_array:
    case Because::unwind_entry:
    case Because::patch_site:
    case Because::plt:
      return true;
    default:
      return false;
  }
}

}  // namespace

const char* name_of(Confidence confidence) {
  constexpr const char* kNames[] = {"none", "speculative", "likely", "certain"};
  return kNames[static_cast<u8>(confidence)];
}

Traversal::Traversal(const Image& image, Scan& scan, const ScanOptions& options, const Progress& progress)
    : image_{image},
      scan_{scan},
      progress_{progress},
      options_{options},
      decoder_{image.code_size, options.vendors == Vendors::amd ? isa::Vendor::amd : isa::Vendor::intel},
      mask_{image.code_size == isa::CodeSize::bits64 ? ~u64{0} : 0xffffffff} {
  if (options.vendors == Vendors::both) amd_.emplace(image.code_size, isa::Vendor::amd);
  for (const auto& area : scan_.map.areas()) total_ += area.marks.size();
}

void Traversal::run() {
  for (const Root& r : image_.roots) (is_certain(r.because) ? work_ : likely_).push_back(r.address);
  close(Confidence::certain);
  // Addresses that likely code takes are likely, too.
  for (start_likely(); !work_.empty(); start_likely()) close(Confidence::likely);
  fill_gaps();
}

void Traversal::close(Confidence confidence) {
  do {
    while (!work_.empty()) {
      const u64 address = work_.back();
      work_.pop_back();
      walk(address, confidence);
    }
    resolve_jumps();
  } while (!work_.empty());
}

void Traversal::report() {
  if (progress_ && (++walked_ & 0xffff) == 0 && total_) progress_(std::min(1.0, double(walked_) * 4 / double(total_)));
}

// Marks the instruction at `address`. False: there is none, or it was known already.
bool Traversal::begin(CodeMap::Area& area, u64 address, Confidence confidence, Shallow& insn) {
  u8& mark = area.mark(address);
  if (mark & CodeMap::start) return false;
  if (!decoder_.shallow(area.from(address), insn)) {
    if (!(mark & CodeMap::inside)) mark |= CodeMap::data;
    return false;
  }
  mark = static_cast<u8>((mark & ~(CodeMap::data | CodeMap::padding)) | CodeMap::start | static_cast<u8>(confidence) |
                         (mark & CodeMap::inside ? CodeMap::overlaps : 0));
  for (unsigned i = 1; i < insn.length; i++) {
    u8& later = area.mark(address + i);
    later = static_cast<u8>((later | CodeMap::inside) & ~(CodeMap::data | CodeMap::padding));
    if (later & CodeMap::start) later |= CodeMap::overlaps;
  }
  if (insn.maybe_sensitive)
    if (const isa::Row* row = decoder_.classify(area.from(address))) {
      Finding f{address, row->id, insn.length, {}, confidence, false};
      std::copy_n(area.from(address).begin(), insn.length, f.bytes.begin());
      if (scan_.findings.size() < options_.most_findings)
        scan_.findings.push_back(f);
      else
        scan_.left_out++;
    }
  if (amd_ && insn.differs) other_way(area, address, insn);
  report();
  return true;
}

// Where a direct branch leads, or what a LEA computes. In relocatable files the field is empty and the relocation says
// it, unless the symbol is another file's.
Traversal::Target Traversal::target_of(u64 address, const Shallow& insn) const {
  const u64 next = address + insn.length;
  const auto& relocations = image_.code_relocations;
  const auto at = std::lower_bound(relocations.begin(), relocations.end(), address,
                                   [](const CodeRelocation& r, u64 a) { return r.place < a; });
  if (at != relocations.end() && at->place < next) {
    const u64 value = at->relative ? next + (at->value - at->place) : at->value;
    return {value & mask_, true, at->known};
  }
  const u64 mask = insn.narrow ? 0xffff : mask_;
  return {((insn.immediate ? 0 : next) + static_cast<u64>(insn.distance)) & mask, false, true};
}

// An address that an instruction computes is likely a function's, unless what is there is data: tables of constants
// between functions.
void Traversal::take_address(u64 address, const Shallow& insn) {
  const Target target = target_of(address, insn);
  if (!target.known) return;
  if (insn.lea && !scan_.map.find(target.address)) data_.insert(target.address);
  if (!scan_.map.find(target.address)) return;
  const bool absolute = image_.kind == ImageKind::executable || image_.kind == ImageKind::kernel;
  if (insn.immediate && !target.relocated && (!absolute || target.address % 16)) return;
  if (looks_like_code(target.address)) likely_.push_back(target.address);
}

bool Traversal::looks_like_code(u64 address) {
  constexpr unsigned kInstructions = 12;
  for (unsigned i = 0; i < kInstructions; i++) {
    const CodeMap::Area* area = scan_.map.find(address);
    if (!area) return false;
    const u8 mark = area->mark(address);
    if (mark & CodeMap::start) return true;
    Shallow insn;
    if ((mark & CodeMap::inside) || !decoder_.shallow(area->from(address), insn)) return false;
    if (insn.flow == Flow::stop || insn.flow == Flow::jump) return true;
    const u8* bytes = area->from(address).data();
    if (bytes[0] == 0 && bytes[1] == 0) return false;
    address += insn.length;
  }
  return true;
}

bool Traversal::bug_at(u64 address) const {
  return std::binary_search(scan_.patches.bugs.begin(), scan_.patches.bugs.end(), address);
}

// What AMD's CPUs see at `address` is noted, and what it leads to is walked as well.
void Traversal::other_way(CodeMap::Area& area, u64 address, const Shallow& insn) {
  Shallow other;
  const bool is_one = amd_->shallow(area.from(address), other);
  if (scan_.differences.size() >= options_.most_findings) {
    scan_.left_out++;
  } else {
    VendorDifference d{address, insn.differs, insn.length, is_one ? other.length : u8{0}, {}};
    std::copy_n(area.from(address).begin(), std::max(d.intel_length, d.amd_length), d.bytes.begin());
    scan_.differences.push_back(d);
  }
  if (!is_one) return;
  if (other.flow != Flow::next && other.flow != Flow::indirect) follow(address, other);
  if (goes_on(address, other) && scan_.map.find(address + other.length)) work_.push_back(address + other.length);
}

bool Traversal::goes_on(u64 address, const Shallow& insn) const {
  return insn.flow == Flow::next || insn.flow == Flow::call || insn.flow == Flow::branch ||
         (insn.invalid_opcode && bug_at(address));
}

void Traversal::follow(u64 address, const Shallow& insn) {
  switch (insn.flow) {
    case Flow::call:
    case Flow::jump:
    case Flow::branch: {
      const Target target = target_of(address, insn);
      if (target.known && scan_.map.find(target.address) && !scan_.map.is_start(target.address))
        work_.push_back(target.address);
      break;
    }
    case Flow::indirect:
      indirect_.push_back(address);
      break;
    case Flow::next:
      if (insn.lea || insn.immediate) take_address(address, insn);
      break;
    case Flow::stop:
      break;
  }
}

void Traversal::walk(u64 address, Confidence confidence) {
  CodeMap::Area* area = scan_.map.find(address);
  Shallow insn;
  while (area && area->holds(address) && begin(*area, address, confidence, insn)) {
    follow(address, insn);
    if (!goes_on(address, insn)) return;
    address += insn.length;
  }
}

void Traversal::resolve_jumps() {
  const auto jumps = std::move(indirect_);
  indirect_.clear();
  for (u64 address : jumps) {
    const auto targets = jump_targets(image_, scan_.map, address, data_);
    if (!targets) {
      scan_.unresolved_jumps++;
      continue;
    }
    scan_.jump_tables++;
    auto& to = targets->bounded ? work_ : likely_;
    for (u64 t : targets->addresses)
      if (!scan_.map.is_start(t)) to.push_back(t);
  }
}

// A pointer into the middle of a known instruction is no pointer to code.
void Traversal::start_likely() {
  for (u64 address : likely_) {
    const CodeMap::Area* area = scan_.map.find(address);
    if (area && !(area->mark(address) & (CodeMap::start | CodeMap::inside))) work_.push_back(address);
  }
  likely_.clear();
}

}  // namespace trapline::scan
