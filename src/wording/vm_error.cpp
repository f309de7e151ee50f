#include "wording/vm_error.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace trapline::wording {

namespace {

using monitor::ActionError;
using monitor::VmError;
using About = VmError::About;
using Reason = VmError::Reason;

constexpr const char* kOpenFiles = "raise the limit of open files (ulimit -n)";
constexpr const char* kProcesses = "raise the limit of processes (ulimit -u)";

// What stands before the value: an option, or what the option leaves open.
const char* option_of(About about) {
  switch (about) {
    case About::kernel:
      return "kernel ";
    case About::initrd:
      return "--initrd ";
    case About::module:
      return "--module ";
    case About::system_map:
      return "--system-map ";
    case About::firmware:
      return "--firmware ";
    case About::cdrom:
      return "--cdrom ";
    case About::vga_bios:
      return "--console vga: its BIOS ";
    case About::trace_file:
      return "--trace-file ";
    case About::scan_report:
      return "--scan-report ";
    case About::perf_map:
      return "--perf-map ";
    case About::gdb:
      return "--gdb ";
    case About::disk:
      return "--disk ";
    case About::volume:
      return "";
    case About::disk_vhost:
      return "--disk vhost-user=";
    case About::net_user:
      return "--net user ";
    case About::net_passt:
      return "--net passt ";
    case About::net_socket:
      return "--net socket,path=";
    case About::net_tap:
      return "--net tap,ifname=";
    case About::net_vhost:
      return "--net vhost-user,path=";
    case About::name:
      return "--name ";
    case About::share:
      return "--share ";
    case About::share_vhost:
      return "--share vhost-user=";
    case About::vsock:
      return "--vsock path=";
    case About::names:
    case About::vm:
    case About::memory:
    case About::launch:
    case About::channel:
    case About::core:
      return "";
  }
  return "";
}

const char* remedy_of_opening(About about, int error) {
  if (about == About::disk) return "name an image";
  if (about == About::volume) return "name an image that can be read";
  const bool folder = about == About::share;
  switch (error) {
    case ENOENT:
      return "check the path";
    case EACCES:
      return "make it readable for this user";
    case ENOTDIR:
      if (folder) return "name a directory";
      break;
    default:
      break;
  }
  return folder ? "give another folder" : "give another file";
}

std::string mib(u64 bytes) { return fmt::format("{} MiB", bytes / MiB); }

std::string of_file(const VmError& e, const std::string& why) {
  switch (e.reason) {
    case Reason::cannot_open:
      return why + ": " + remedy_of_opening(e.about, e.error) +
             (e.about == About::vga_bios ? ": install the Debian package seabios" : "");
    case Reason::cannot_write:
      return why + ": name a file that can be written";
    case Reason::not_writable:
      return why + ": give readonly or snapshot, or a file that can be written";
    case Reason::is_directory:
      return "is a directory: name the file in it";
    case Reason::empty:
      return "is empty: give a file with an image in it";
    case Reason::too_large:
      return "over " + mib(e.bytes) + ": give a smaller file";
    case Reason::unreadable:
      return why + ": give a regular file";
    case Reason::no_memory:
      if (e.about == About::volume) return "no memory for what is read out of it: " + why;
      return "no memory to hold it: " + why + ": give a regular file";
    case Reason::not_a_rom:
      return fmt::format("{} bytes: a PC's ROM has a multiple of 64 KiB, 8 MiB at most: name a BIOS image", e.bytes);
    case Reason::no_option_rom:
      return "is no option ROM: install the Debian package seabios";
    default:
      return "no memory for its log: " + why;
  }
}

std::string of_socket(const VmError& e, const std::string& why) {
  switch (e.reason) {
    case Reason::address_taken:
      return why + ": choose another port";
    case Reason::path_taken:
      return why + (e.error == EADDRINUSE ? ": remove it, or choose another path" : ": choose another path");
    case Reason::path_too_long:
      return fmt::format("a socket's path has {} bytes at most{}", e.bytes, e.about == About::vsock ? " here" : "");
    case Reason::cannot_bind:
      return why + ": name a socket that is not there yet";
    case Reason::nobody_listens:
      if (e.about != About::net_socket) return why + ": start the back end first";
      return fmt::format("{}: start what listens there (passt --socket {}) first", why, e.value);
    case Reason::unfit_back_end:
      return e.said + ": see which vhost-user back end listens there";
    default:
      return (e.error ? why : std::string{"no descriptor"}) + ": " + kOpenFiles;
  }
}

std::string of_disk(const VmError& e, const std::string& why) {
  switch (e.reason) {
    case Reason::in_use:
      return "in use by another VM: give readonly or snapshot, or end that one";
    case Reason::no_disk:
      return "neither a file nor a block device: name an image";
    case Reason::too_small:
      return "smaller than a sector of 512 bytes: make it larger (truncate -s)";
    case Reason::too_small_inside:
      return "smaller than a sector of 512 bytes: make it larger (qemu-img resize)";
    case Reason::no_temporary:
      return "snapshot: no temporary file: " + why + ": name a folder by TMPDIR";
    case Reason::not_qcow2:
      return "not qcow2: give format=raw, or name another image";
    case Reason::looks_like_qcow2:
      return "this looks like qcow2: say format=qcow2, or format=raw if the guest is to see it as it is";
    case Reason::named_like_qcow2:
      return "named like qcow2, and is not: say format=raw, or name another image";
    case Reason::no_qemu_nbd:
      return "qcow2 needs qemu-nbd: install the package qemu-utils, or make it raw (qemu-img convert -O raw)";
    case Reason::bad_header:
      return e.said + ": its header means nothing: see qemu-img check";
    case Reason::chain_unreadable:
    case Reason::chain_broken:
      return e.said + ": " + why;
    case Reason::chain_format_unknown:
      return e.said;
    case Reason::chain_endless:
      return "it lies on itself, or on too many images: qemu-img info --backing-chain";
    case Reason::qemu_nbd_failed:
      return "qemu-nbd: " + e.said + ": see qemu-img info and qemu-img check";
    case Reason::qemu_nbd_lacks:
      return "qemu-nbd does not offer what a disk needs: see whether qemu-utils is that of your distribution";
    default:
      return "no socket in " + e.said + ": " + why + ": name a folder by TMPDIR";
  }
}

std::string of_process(const VmError& e, const std::string& why) {
  switch (e.reason) {
    case Reason::no_process:
      switch (e.about) {
        case About::net_user:
          return "no process: " + why + ": raise its limit (ulimit -u)";
        case About::volume:
          return "the process that reads it did not start: " + why + ": raise the limits (ulimit -u, -n)";
        case About::disk:
          return "qemu-nbd: " + why + ": " + kProcesses;
        case About::share:
          return "cannot start its process: " + why + ": raise the limits of processes and open files (ulimit -u, -n)";
        case About::core:
          return "cannot start the core process: " + why +
                 ": raise the limits of processes and open files (ulimit -u, ulimit -n)";
        default:
          return why + ": " + kProcesses;
      }
    case Reason::gave_up:
      return e.said;
    case Reason::ended_early:
      if (e.about == About::volume)
        return "the process that reads it gave up: its file system may be damaged: give --kernel FILE";
      return "its process ended before it was ready";
    case Reason::silent:
      return e.about == About::net_user ? "its process has ended or says nothing: see whether libslirp0 is installed"
                                        : "it has ended or says nothing: try `passt --foreground`, or use --net user";
    default:
      return "it is not installed: install the package passt, or use --net user";
  }
}

std::string of_name(const VmError& e, const std::string& why) {
  switch (e.reason) {
    case Reason::no_tun:
      return "/dev/net/tun: " + why + ": use --net user";
    case Reason::no_such_interface:
      return "no interface has so long a name";
    case Reason::interface_refused:
      return fmt::format("{}: make it for this user: ip tuntap add {} mode tap user NAME", why, e.value);
    case Reason::writable_by_others:
      return "others may write to it: set XDG_RUNTIME_DIR to a folder of yours";
    case Reason::taken:
      return "it runs already: give another name";
    case Reason::no_name_left:
      return "no name for this VM: give one: --name NAME";
    case Reason::no_such_vm:
      return "no such VM: " + (e.said.empty() ? "none runs" : "there are " + e.said);
    case Reason::takes_no_requests:
      return "it takes no requests: " + why;
    case Reason::took_no_request:
      return "it took no request: " + why;
    default:
      return "it does not answer";
  }
}

std::string of_limits(const VmError& e, const std::string& why) {
  switch (e.reason) {
    case Reason::no_guest_memory:
      return e.said + ": give a smaller --memory, or " + kOpenFiles;
    case Reason::no_mapping:
      return e.said + ": give a smaller --memory";
    case Reason::launch_too_long:
      return "--append and module arguments are too long: shorten them";
    default:
      if (e.about == About::share)
        return "no shared memory: " + why + ": raise the limits of open files and memory (ulimit -n, -v)";
      return e.said + (e.error ? ": " + why : "") +
             ": raise the limits of open files, file size and memory (ulimit -n, -f, -v)";
  }
}

}  // namespace

std::string reason(const VmError& e) {
  std::string why = e.error ? std::strerror(e.error) : "";
  if (e.reason <= Reason::no_log && (e.error == EMFILE || e.error == ENFILE)) return why + ": " + kOpenFiles;
  if (e.about == About::names && e.reason == Reason::cannot_open)
    return why + ": set XDG_RUNTIME_DIR to a folder of yours";
  if (e.about == About::name && e.reason == Reason::cannot_open) return why;
  if (e.reason <= Reason::no_log) return of_file(e, why);
  if (e.reason <= Reason::no_descriptor) return of_socket(e, why);
  if (e.reason <= Reason::no_socket) return of_disk(e, why);
  if (e.reason <= Reason::not_installed) return of_process(e, why);
  if (e.reason <= Reason::no_answer) return of_name(e, why);
  return of_limits(e, why);
}

std::string line(const VmError& e) {
  if (e.about >= About::memory || e.reason == Reason::no_name_left) return reason(e);
  // What the process of a share says names the folder itself.
  if (e.about == About::share && e.reason == Reason::gave_up) return reason(e);
  std::string before = option_of(e.about) + (e.value.empty() && e.about <= About::cdrom ? "''" : e.value);
  if (before.ends_with(' ')) before.pop_back();
  return before + ": " + reason(e);
}

std::string line(const ActionError& e) {
  using Kind = ActionError::Kind;
  switch (e.kind) {
    case Kind::wrong_state:
      return fmt::format("it is {}", name_of(static_cast<monitor::VmState>(e.value)));
    case Kind::deterministic:
      return "under --clock instructions nothing is done from outside";
    case Kind::no_balloon:
      return "it has no balloon: start it with --balloon 0";
    case Kind::too_large:
      return fmt::format("it has {} MiB of memory: give less", e.value / MiB);
    case Kind::not_listening:
      return "its guest does not listen to the power button";
    case Kind::unknown_request:
      return fmt::format("it does not know this request: {}", e.said);
    case Kind::no_number:
      return fmt::format("no number of bytes: {}", e.said);
    case Kind::unintelligible:
      return fmt::format("its answer means nothing here: {}", e.said);
  }
  return {};
}

}  // namespace trapline::wording
