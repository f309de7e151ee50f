// How the table's values are printed.
#include "isa/table.h"

namespace trapline::isa {

std::string_view name(Class c) {
  constexpr std::string_view names[] = {"innocuous", "privileged", "critical"};
  return names[static_cast<u8>(c)];
}

std::string_view name(Sensitivity s) {
  constexpr std::string_view names[] = {"insensitive", "control-sensitive", "behaviour-sensitive",
                                        "control- and behaviour-sensitive"};
  return names[static_cast<u8>(s)];
}

std::string_view name(Effect e) {
  constexpr std::string_view names[] = {"executes", "reveals", "answered", "ignored", "host kernel", "hypervisor",
                                        "#DE",      "#DB",     "#BP",      "#OF",     "#BR",         "#UD",
                                        "#NP",      "#SS",     "#GP",      "#PF",     "#AC",         "#UD/#GP"};
  static_assert(std::size(names) == static_cast<u8>(Effect::traps_ud_gp) + 1);
  return names[static_cast<u8>(e)];
}

std::string_view name(Feature f) {
  constexpr std::string_view names[] = {"always",
                                        "compat",
                                        "amd",
                                        "nested",
                                        "vmcall_leaves",
                                        "vmmcall_leaves",
                                        "hypercall_fixed",
                                        "ia32",
                                        "iopl",
                                        "umip",
                                        "umip_answers",
                                        "umip_answers_all",
                                        "cpuid_faulting",
                                        "cpuid_off",
                                        "tsc_faulting",
                                        "tsc_off",
                                        "fsgsbase",
                                        "pku",
                                        "pce",
                                        "xsave",
                                        "rdpid",
                                        "rdtscp",
                                        "rdpru",
                                        "waitpkg",
                                        "monitorx",
                                        "serialize",
                                        "clzero",
                                        "enqcmd",
                                        "amx",
                                        "tsx",
                                        "tsx_test",
                                        "tsxldtrk",
                                        "shadow_stack",
                                        "uintr",
                                        "keylocker",
                                        "ptwrite",
                                        "sgx",
                                        "lwp",
                                        "padlock"};
  static_assert(std::size(names) == static_cast<u8>(Feature::count));
  return f < Feature::count ? names[static_cast<u8>(f)] : "";
}

std::string_view name(Lowering l) {
  constexpr std::string_view names[] = {"copied", "inlined", "called", "ends block", "refused"};
  return names[static_cast<u8>(l)];
}

std::string_view name(Cage c) {
  constexpr std::string_view names[] = {"direct", "intercepted", "matched", "armed", "patched", "barred"};
  return names[static_cast<u8>(c)];
}

}  // namespace trapline::isa
