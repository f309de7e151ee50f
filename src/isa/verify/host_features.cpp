#include "isa/verify/host_features.h"

#include <cpuid.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/utsname.h>

#include <cstring>
#include <fstream>

#include "base/shadow_stack.h"
#include "isa/verify/setups.h"

namespace trapline::isa::verify {

namespace {

constexpr u64 kDummyGdt = 0xfffffffffffe0000;  // what Linux answers to SGDT under UMIP

struct Leaf {
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Zero where the processor has no such leaf.
Leaf cpuid(u32 leaf, u32 subleaf = 0) {
  Leaf l;
  u32 top = 0, b, c, d;
  __cpuid(leaf & 0xffff0000, top, b, c, d);
  if ((top & 0xffff0000) != (leaf & 0xffff0000) || top < leaf) return l;
  __cpuid_count(leaf, subleaf, l.eax, l.ebx, l.ecx, l.edx);
  return l;
}

bool bit(u32 word, unsigned n) { return word >> n & 1; }

std::string text_of(const Leaf& l, bool vendor_order) {
  char name[13] = {};
  std::memcpy(name, &l.ebx, 4);
  std::memcpy(name + 4, vendor_order ? &l.edx : &l.ecx, 4);
  std::memcpy(name + 8, vendor_order ? &l.ecx : &l.edx, 4);
  for (char& ch : name)
    if (ch != 0 && (ch < ' ' || ch > '~')) ch = '?';
  return name;
}

std::string vendor() { return text_of(cpuid(0), true); }

Observation try_row(RowId id, CodeSize size = CodeSize::bits64) {
  const std::optional<Stage> stage = stage_for(row(id), size);
  return stage ? run(*stage) : Observation{};
}

bool executes(RowId id) { return try_row(id).kind == Observation::Kind::executed; }

// Executes, or faults for another reason than being undefined.
bool is_defined(RowId id) {
  const Observation seen = try_row(id);
  return seen.kind == Observation::Kind::executed ||
         (seen.kind == Observation::Kind::signalled && seen.signal != SIGILL);
}

// KVM turns VMMCALL into VMCALL (and the reverse) where it finds it: here on a page that cannot be written.
bool is_rewritten(RowId id) {
  const Observation seen = try_row(id);
  return seen.kind == Observation::Kind::signalled && seen.trap == 14;
}

bool is_system_call(const Observation& o) { return o.kind == Observation::Kind::signalled && o.signal == SIGSYS; }

void by_cpuid(HostFeatures& host) {
  const Leaf l1 = cpuid(1), l7 = cpuid(7), e1 = cpuid(0x80000001), e8 = cpuid(0x80000008);
  host.set(Feature::nested, bit(l1.ecx, 31));
  host.set(Feature::xsave, bit(l1.ecx, 27));
  host.set(Feature::umip, bit(l7.ecx, 2));
  host.set(Feature::pku, bit(l7.ecx, 4));
  host.set(Feature::waitpkg, bit(l7.ecx, 5));
  host.set(Feature::rdpid, bit(l7.ecx, 22));
  host.set(Feature::keylocker, bit(l7.ecx, 23) && bit(cpuid(0x19).ebx, 0));
  host.set(Feature::enqcmd, bit(l7.ecx, 29));
  host.set(Feature::sgx, bit(l7.ebx, 2));
  host.set(Feature::tsx, bit(l7.ebx, 11));
  host.set(Feature::tsx_test, bit(l7.ebx, 11) || bit(l7.ebx, 4));
  host.set(Feature::serialize, bit(l7.edx, 14));
  host.set(Feature::tsxldtrk, bit(l7.edx, 16));
  host.set(Feature::amx, bit(l7.edx, 24));
  host.set(Feature::ptwrite, bit(cpuid(0x14).ebx, 4));
  host.set(Feature::rdtscp, bit(e1.edx, 27));
  host.set(Feature::lwp, bit(e1.ecx, 15));
  host.set(Feature::monitorx, bit(e1.ecx, 29));
  host.set(Feature::clzero, bit(e8.ebx, 0));
  host.set(Feature::rdpru, bit(e8.ebx, 4));
  host.set(Feature::padlock, cpuid(0xc0000001).edx != 0);
}

// A hypervisor may hide from CPUID what it cannot keep the processor from executing, and it need not say that it is
// there.
void by_execution_where_hidden(HostFeatures& host) {
  const std::pair<Feature, RowId> unstoppable[] = {
      {Feature::rdpid, RowId::rdpid},         {Feature::rdpru, RowId::rdpru},
      {Feature::serialize, RowId::serialize}, {Feature::tsxldtrk, RowId::track_loads},
      {Feature::clzero, RowId::clzero},       {Feature::tsx_test, RowId::xtest},
      {Feature::rdtscp, RowId::rdtscp},       {Feature::monitorx, RowId::monitorx},
      {Feature::fsgsbase, RowId::read_base},  {Feature::ptwrite, RowId::ptwrite},
      {Feature::enqcmd, RowId::enqcmd},       {Feature::sgx, RowId::enclu},
  };
  for (const auto& [feature, id] : unstoppable)
    if (!host.has(feature)) host.set(feature, is_defined(id));
}

// perf's sysfs file says 2 where every process may use RDPMC; 1 lets those in that mapped an event.
bool rdpmc_for_all() {
  std::ifstream in{"/sys/bus/event_source/devices/cpu/rdpmc"};
  int value = 0;
  return in >> value && value == 2;
}

void by_kernel(HostFeatures& host) {
  host.set(Feature::fsgsbase, ::getauxval(AT_HWCAP2) & 2);
  host.set(Feature::shadow_stack, shadow_stack_on());
  host.set(Feature::pce, rdpmc_for_all());
  host.set(Feature::ia32, is_system_call(try_row(RowId::int_80)));
  std::optional<Stage> faulting = stage_for(row(RowId::pause), CodeSize::bits64);
  faulting->cpuid_off = true;
  host.set(Feature::cpuid_faulting, run(*faulting).kind == Observation::Kind::executed);
  // A kernel that itself runs in ring 3 of something takes the request and cannot carry it out.
  std::optional<Stage> disabled = stage_for(row(RowId::rdtsc), CodeSize::bits64);
  disabled->tsc_off = true;
  host.set(Feature::tsc_faulting, run(*disabled).kind == Observation::Kind::signalled);
}

void by_umip(HostFeatures& host) {
  const Observation sgdt = try_row(RowId::sgdt);
  const bool executed = sgdt.kind == Observation::Kind::executed;
  u64 base = 0;
  std::memcpy(&base, sgdt.scratch.data() + 2, sizeof base);
  // CPUID alone does not say that the kernel has switched it on.
  host.set(Feature::umip, host.has(Feature::umip) && (!executed || base == kDummyGdt));
  host.set(Feature::umip_answers, host.has(Feature::umip) && executed);
  host.set(Feature::umip_answers_all, host.has(Feature::umip) && executes(RowId::str));
}

}  // namespace

const HostFeatures& host_features() {
  static const HostFeatures features = [] {
    HostFeatures host;
    host.set(Feature::amd, vendor() == "AuthenticAMD" || vendor() == "HygonGenuine");
    by_cpuid(host);
    by_kernel(host);
    by_umip(host);
    by_execution_where_hidden(host);
    if (host.has(Feature::nested)) {
      host.set(Feature::vmcall_leaves, executes(RowId::vmcall));
      host.set(Feature::vmmcall_leaves, executes(RowId::vmmcall));
      host.set(Feature::hypercall_fixed, is_rewritten(host.has(Feature::amd) ? RowId::vmcall : RowId::vmmcall));
    }
    return host;
  }();
  return features;
}

std::string host_name() {
  std::string name = vendor();
  std::ifstream in{"/proc/cpuinfo"};
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name") && line.find(": ") != std::string::npos) {
      name += ", " + line.substr(line.find(": ") + 2);
      break;
    }
  if (bit(cpuid(1).ecx, 31)) {
    const std::string outer = text_of(cpuid(0x40000000), false);
    name += outer.empty() ? "; under a hypervisor" : "; under " + outer;
  }
  utsname kernel{};
  if (::uname(&kernel) == 0) name += std::string{"; "} + kernel.sysname + ' ' + kernel.release;
  return name;
}

std::string_view about(Feature f) {
  switch (f) {
    case Feature::amd:
      return "an AMD processor";
    case Feature::nested:
      return "the host is itself a guest";
    case Feature::vmcall_leaves:
      return "VMCALL from ring 3 reaches the hypervisor under the host";
    case Feature::vmmcall_leaves:
      return "VMMCALL from ring 3 reaches the hypervisor under the host";
    case Feature::hypercall_fixed:
      return "and it rewrites the other vendor's hypercall instruction in place";
    case Feature::ia32:
      return "the kernel runs 32-bit code: INT 0x80 is a system call";
    case Feature::iopl:
      return "the process may reach ports";
    case Feature::umip:
      return "SGDT, SIDT, SLDT, SMSW and STR fault in ring 3";
    case Feature::umip_answers:
      return "but the kernel answers SGDT, SIDT and SMSW with dummies: no trap is seen";
    case Feature::umip_answers_all:
      return "and SLDT and STR, too";
    case Feature::cpuid_faulting:
      return "CPUID can be made to trap";
    case Feature::cpuid_off:
      return "CPUID has been made to trap";
    case Feature::tsc_faulting:
      return "RDTSC can be made to trap";
    case Feature::tsc_off:
      return "RDTSC has been made to trap";
    case Feature::fsgsbase:
      return "segment bases change without a system call";
    case Feature::pku:
      return "protection keys, and ring 3 writes their rights";
    case Feature::pce:
      return "performance counters can be read in ring 3";
    case Feature::shadow_stack:
      return "the process has a shadow stack";
    case Feature::tsx:
      return "transactions";
    case Feature::uintr:
      return "user interrupts";
    default:
      return "";
  }
}

}  // namespace trapline::isa::verify
