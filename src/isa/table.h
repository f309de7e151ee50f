// The instruction table: one row for every x86 instruction, or form of one, that is not plainly innocuous. Classifier,
// scanner, engines and documentation read these rows; the rows themselves are in isa/table/*.inc.
//
// Words are those of Popek and Goldberg (1974). Ring 0 is guest kernel code run deprivileged on a ring-3 processor,
// ring 3 is guest user code run there. Whatever classify() gives no row for is innocuous in both.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "base/types.h"
#include "isa/insn.h"

namespace trapline::isa {

enum class Ring : u8 { ring0, ring3 };

enum class Class : u8 {
  innocuous,   // does in ring 3 what the guest expects of it
  privileged,  // sensitive, and traps in ring 3: trap-and-emulate suffices
  critical,    // sensitive, and does not trap (or does so only where a host feature makes it)
};

enum class Sensitivity : u8 {
  none,
  control,    // changes, or tries to change, real resources: mode, mapping, interrupts, I/O
  behaviour,  // its result depends on real resources: ring, location, the host's tables
  both,
};

// What happens when ring 3 executes it on the host.
enum class Effect : u8 {
  acts,     // executes, as an innocuous instruction would: what it reads or writes belongs to the process
  reveals,  // executes, and shows a value of the host's
  answers,  // traps, but the host's kernel answers with a dummy value and no signal
  ignored,  // executes, and silently does less than asked
  enters,   // enters the host's kernel as a system call
  leaves,   // leaves for the hypervisor under the host
  traps_de,
  traps_db,
  traps_bp,
  traps_of,
  traps_br,
  traps_ud,
  traps_np,
  traps_ss,
  traps_gp,
  traps_pf,
  traps_ac,
  traps_ud_gp,  // #UD, or #GP where the extension is switched on
};

// Features of the host that change the answer. Found by isa/verify's probes; see HostFeatures.
enum class Feature : u8 {
  always,            // as the last alternative: no condition
  compat,            // not of the host: the code is 32- or 16-bit, on a 64-bit host (compatibility mode)
  amd,               // AMD's manual is the one that counts (also Hygon)
  nested,            // the host is itself a guest
  vmcall_leaves,     // ... and VMCALL from ring 3 reaches the hypervisor under it
  vmmcall_leaves,    // ... or VMMCALL does
  hypercall_fixed,   // ... and it rewrites the other vendor's hypercall in place: a write fault on a code page
  ia32,              // the kernel runs 32-bit code (INT 0x80, the compatibility code segment)
  iopl,              // IOPL 3 or an I/O bitmap lets the process reach ports
  umip,              // CR4.UMIP is set
  umip_answers,      // ... and the kernel answers SGDT, SIDT and SMSW with dummies instead of a signal
  umip_answers_all,  // ... and SLDT and STR, too
  cpuid_faulting,    // CPUID can be made to trap (arch_prctl(ARCH_SET_CPUID))
  cpuid_off,         // ... and has been, in this process
  tsc_faulting,      // RDTSC can be made to trap (prctl(PR_SET_TSC))
  tsc_off,           // ... and has been: CR4.TSD is set for this process (prctl(PR_SET_TSC))
  fsgsbase,          // CR4.FSGSBASE
  pku,               // CR4.PKE
  pce,               // CR4.PCE for this process: RDPMC in ring 3
  xsave,             // CR4.OSXSAVE
  rdpid,
  rdtscp,
  rdpru,
  waitpkg,
  monitorx,
  serialize,
  clzero,
  enqcmd,
  amx,
  tsx,           // RTM: XBEGIN starts a transaction
  tsx_test,      // XTEST decodes (RTM or HLE)
  tsxldtrk,      // XSUSLDTRK, XRESLDTRK
  shadow_stack,  // CET user shadow stacks, on in this process
  uintr,         // CR4.UINTR
  keylocker,     // CR4.KL
  ptwrite,
  sgx,
  lwp,
  padlock,
  count,
};

// How translate and patch lower it.
enum class Lowering : u8 {
  copied,   // re-emitted (translate: operands lowered; patch: operands relocated)
  inlined,  // replaced by a few host instructions on virtual state
  called,   // replaced by a call of its semantic (cpu/semantics.h)
  ends,     // the same, and the block ends: mode, mapping or code may have changed, or somebody else may have acted
  refused,  // guest CPUID does not offer it: raises the guest's #UD (or whatever it does where it is absent)
};

// How a cage, which runs guest ring-3 code on the CPU as it is, deals with it.
enum class Cage : u8 {
  direct,       // runs: right as it is
  intercepted,  // traps or enters the host kernel by itself; the signal is turned into the guest's event
  matched,      // runs, once the core has made what it reads the guest's (selectors, CPU number); else patched
  armed,        // made to trap by a host feature before the cage is entered
  patched,      // must be rewritten before the page may run
  barred,       // a page that holds it at any offset is not run in a cage but translated
};

enum Modes : u8 { kMode16 = 1, kMode32 = 2, kMode64 = 4, kModesLegacy = 3, kModesAll = 7 };

// Which instances of its mnemonics a row covers. The first row that matches counts.
enum class Form : u8 {
  any,
  to_seg,    // MOV Sreg, r/m
  to_ss,     // ... with SS
  from_seg,  // MOV r/m, Sreg; PUSH Sreg
  from_cs,   // MOV r/m, CS; PUSH CS
  pop_seg,   // POP Sreg
  to_cr,     // MOV CRn, r
  from_cr,   // MOV r, CRn
  to_dr,     // MOV DRn, r
  from_dr,   // MOV r, DRn
  far,       // far CALL, JMP, RET
  vector_3,  // INT n by its immediate
  vector_4,
  vector_80,
  lock_prefix,  // LOCK MOV CR0: AMD's alternative for CR8
};

struct InRing {
  Class cls = Class::innocuous;
  Lowering translate = Lowering::copied;
  Lowering patch = Lowering::copied;
  std::string_view why = {};  // one sentence; empty: as in ring 0
};

// The effect when `feature` is present (or absent, when !present). The first that holds counts.
struct Alternative {
  Feature feature = Feature::count;
  bool present = true;
  Effect effect = Effect::acts;
};

struct Example {
  CodeSize size = CodeSize::bits64;
  u8 length = 0;
  std::array<u8, 12> bytes{};
  constexpr std::span<const u8> code() const { return {bytes.data(), length}; }
};

enum class RowId : u16;

struct Row {
  RowId id{};
  std::string_view name;  // "POPF": what `trapline isa NAME` takes, together with the mnemonics
  std::string_view what;  // the forms in the manual's notation, and what it does: a few words
  std::array<ZydisMnemonic, 12> mnemonics{};
  Form form = Form::any;
  Modes modes = kModesAll;
  Sensitivity sensitivity = Sensitivity::none;
  InRing ring0 = {}, ring3 = {};
  Cage cage = Cage::direct;
  Feature cage_needs = Feature::always;  // the host feature that `cage` relies on ...
  Cage cage_else = Cage::direct;         // ... and what happens without it
  std::array<Alternative, 5> effect{};   // in ring 3 of the host
  bool robin_irvine = false;             // among the 17 of Robin and Irvine (2000)
  std::string_view manual;               // sections
  Example example;                       // one that `--verify` runs, where it can
  Example example32 = {};                // the same in 32-bit mode; empty: the same bytes, if they mean the same there
  std::string_view para = {};            // what a paravirtualized kernel does instead; empty: nothing of its own
};

enum class RowId : u16 {
#define ROW(id_, ...) id_,
#include "isa/table/rows.inc"
#undef ROW
  count
};

std::span<const Row> table();
const Row& row(RowId id);

// The row, or nullptr: innocuous.
const Row* classify(const Insn& insn);
const Row* classify(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands);

// Whether the mnemonic's every form without a row is known to be innocuous. False: nobody has decided (a bug).
bool known_innocuous(const ZydisDecodedInstruction& insn);

inline const InRing& in_ring(const Row& r, Ring ring) { return ring == Ring::ring0 ? r.ring0 : r.ring3; }
inline Class class_of(const Row* r, Ring ring) { return r ? in_ring(*r, ring).cls : Class::innocuous; }
inline std::string_view why(const Row& r, Ring ring) {
  return ring == Ring::ring0 || r.ring3.why.empty() ? r.ring0.why : r.ring3.why;
}

// A set of features, as found on one host for one process.
class HostFeatures {
 public:
  constexpr bool has(Feature f) const { return f == Feature::always || (bits_ >> static_cast<u8>(f) & 1); }
  constexpr void set(Feature f, bool on = true) {
    const u64 bit = u64{1} << static_cast<u8>(f);
    bits_ = on ? bits_ | bit : bits_ & ~bit;
  }

 private:
  u64 bits_ = 0;
};
static_assert(static_cast<u8>(Feature::count) <= 64);

constexpr bool is_trap(Effect e) { return e >= Effect::traps_de; }

// What ring 3 of a host with these features sees.
Effect effect_on(const Row& r, HostFeatures host);

// The row's class on such a host: a critical instruction is as good as privileged where it traps.
Class class_on(const Row& r, Ring ring, HostFeatures host);

// Names, as printed and in JSON: "critical", "control-sensitive", "#GP", "fsgsbase", ...
std::string_view name(Class c);
std::string_view name(Sensitivity s);
std::string_view name(Effect e);
std::string_view name(Feature f);
std::string_view name(Lowering l);
std::string_view name(Cage c);
std::string_view slug(RowId id);  // "popf", "mov_to_seg": stable, for JSON and SARIF

}  // namespace trapline::isa
