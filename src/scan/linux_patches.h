// Where a Linux kernel or module rewrites its own code at boot: what stands in the file there is not what runs. Tables
// are taken only when all their entries make sense, since their layouts differ between versions without telling.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "scan/image.h"

namespace trapline::scan {

enum class PatchKind : u8 {
  alternative,   // .altinstructions: replaced when the CPU has (or lacks) a feature
  replacement,   // what an alternative is replaced by
  paravirt,      // .parainstructions: an indirect call, replaced by a direct one or by the instruction itself
  retpoline,     // .retpoline_sites
  return_thunk,  // .return_sites
  smp_lock,      // .smp_locks: the LOCK prefix goes on one CPU
  static_call,   // .static_call_sites: a call or jump whose target is written at run time
  jump_label,    // __jump_table: a NOP or a jump
};

struct PatchSite {
  u64 address = 0, size = 0;
  PatchKind kind = PatchKind::alternative;
  u16 feature = 0;        // alternatives: X86_FEATURE number, word * 32 + bit
  bool inverted = false;  // ... and it is the feature's absence that counts
  u64 other = 0;          // alternative: its replacement; replacement: its site; jump label: the target
  u64 end() const { return address + size; }
};

struct LinuxPatches {
  std::vector<PatchSite> sites;            // by address; an instruction may be in several
  std::map<std::string, u64> entries;      // by section: what the report's summary says
  std::vector<u64> faulting;               // __ex_table: instructions that may fault, sorted
  std::vector<u64> bugs;                   // __bug_table: UD2s that execution may pass, sorted
  const PatchSite* at(u64 address) const;  // alternatives and replacements first; nullptr: none
};

// Adds roots for the places the tables name, and warnings for tables that make no sense.
LinuxPatches read_linux_patches(Image& image);

// "replaced when X86_FEATURE 9*32+20 (SMAP)".
std::string describe(const PatchSite& site);
const char* name_of(PatchKind kind);
// The names of features in words that mirror CPUID; empty for others, which differ between kernels.
std::string_view feature_name(u16 feature);

}  // namespace trapline::scan
