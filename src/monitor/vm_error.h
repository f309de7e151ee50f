// Why a VM could not be started, or asked: what was wrong and the value that was, so that whoever has asked can tell the
// cases apart. Words are made of it at the end alone (wording/vm_error.h).
#pragma once

#include <cerrno>
#include <string>

#include "base/types.h"
#include "channel/exit_codes.h"

namespace trapline::monitor {

struct VmError {
  // What it is about, which `value` is of.
  enum class About : u8 {
    // -- The configuration
    kernel,  // to perf_map: a path
    initrd,
    module,
    system_map,
    firmware,
    cdrom,
    vga_bios,
    trace_file,
    scan_report,
    perf_map,
    gdb,   // --gdb: the port or the path
    disk,  // --disk: the path
    disk_vhost,
    net_user,  // --net: path or interface, or empty
    net_passt,
    net_socket,
    net_tap,
    net_vhost,
    name,   // --name
    names,  // the folder of names
    vm,     // of one that runs: its name
    share,  // --share: the folder
    share_vhost,
    vsock,   // --vsock: the path
    volume,  // a disk image that files are read out of: the path
    // -- The host
    memory,  // --memory, in `bytes`
    launch,  // --append and modules' arguments together, in `bytes`
    channel,
    core
  };
  enum class Reason : u8 {
    // -- Files. `error`: errno
    cannot_open,
    cannot_write,
    not_writable,
    is_directory,
    empty,
    too_large,  // more than `bytes`
    unreadable,
    no_memory,
    not_a_rom,  // `bytes`
    no_option_rom,
    no_log,
    // -- Sockets
    address_taken,
    path_taken,
    path_too_long,  // more than `bytes`
    cannot_bind,
    nobody_listens,
    unfit_back_end,  // `said`: why
    no_descriptor,
    // -- Disks. `said`: the words of qemu-nbd, or the names in a chain of images
    in_use,
    no_disk,
    too_small,
    too_small_inside,
    no_temporary,
    not_qcow2,
    looks_like_qcow2,
    named_like_qcow2,
    no_qemu_nbd,
    bad_header,
    chain_unreadable,
    chain_format_unknown,
    chain_broken,
    chain_endless,
    qemu_nbd_failed,
    qemu_nbd_lacks,
    no_socket,
    // -- Processes beside the monitor. `said`: their words
    no_process,
    gave_up,
    ended_early,
    silent,
    not_installed,
    // -- Networks
    no_tun,
    no_such_interface,
    interface_refused,
    // -- Names
    writable_by_others,
    taken,
    no_name_left,
    no_such_vm,  // `said`: those that run
    takes_no_requests,
    took_no_request,
    no_answer,
    // -- The host's limits. `said`: of what
    no_shared_memory,
    no_guest_memory,
    no_mapping,
    launch_too_long
  };

  About about;
  Reason reason;
  std::string value = {};
  int error = 0;
  u64 bytes = 0;
  std::string said = {};

  ExitCode code() const {
    const bool used_up = reason == Reason::no_descriptor || error == EMFILE || error == ENFILE || error == ENOMEM;
    return about >= About::memory || used_up ? ExitCode::host_refused : ExitCode::bad_input;
  }
};

}  // namespace trapline::monitor
