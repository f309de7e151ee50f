// How the core ends: one thread claims the report in the channel, fills it in with what happened and everybody's
// counters, and the process exits. Also installs what turns our own mistakes (invariants, signals, out of memory) into
// such a report.
#pragma once

#include <string_view>

#include "channel/channel.h"
#include "cpu/vcpu.h"

namespace trapline::core {

class Images;
struct Vm;

void set_report_channel(const channel::Channel& channel);  // from here on finish() works
void set_report_vm(Vm* vm);                                // from here on it includes counters and guest state
void set_report_images(const Images* images);              // mapped files; null: none any more
[[noreturn]] void finish(channel::EndKind kind, std::string_view text);

void install_crash_handlers();                // once per process
void install_alternate_stack();               // once per thread, before the sandbox closes
void set_current_vcpu(const cpu::Vcpu* cpu);  // for reports about this thread

}  // namespace trapline::core
