// Exit codes of the trapline executable: part of its interface, documented in the man page.
#pragma once

namespace trapline {

enum class ExitCode : int {
  powered_off = 0,      // the guest powered off
  internal_error = 1,   // a fault of Trapline's own
  usage = 2,            // bad option or argument
  bad_input = 3,        // a file or resource is missing, unreadable, malformed or does not fit
  guest_crash = 4,      // triple fault: a report is printed
  timeout = 5,          // --timeout passed
  guest_reset = 6,      // the guest asked for a reset under --no-reboot
  host_refused = 7,     // the host lacks or forbids something needed
  guest_halted = 8,     // every vCPU halted with interrupts off: nothing can wake the guest
  console_lost = 9,     // the console's output could not be written
  verify_failed = 10,   // --verify: translated code and the interpreter differ
  outputs_differ = 12,  // trapline compare: a guest said or did something else under another technique
  // trapline exec: the command's own code, or
  command_timeout = 124,  // --timeout passed (as timeout(1) says it)
  vm_failed = 125,        // the VM did not get so far, or ended before the command did
  // 126, 127: the command cannot be executed, is not there
  interrupted = 130,  // SIGINT; other signals: 128 + number (SIGTERM: 143)
  // isa-debug-exit: (value << 1) | 1 as QEMU does
};

}  // namespace trapline
