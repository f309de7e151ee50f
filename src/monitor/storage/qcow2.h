// Disks in qcow2, by qemu-nbd (package qemu-utils): its code knows the format, and it ends with the disk.
//
// The socket between them has no name: what is bound for the length of start-up is in a folder that only this user may
// enter. When the monitor goes, however it goes, the connection does, and qemu-nbd writes what it holds back and ends.
#pragma once

#include <string>

#include "base/result.h"
#include "machine/config.h"
#include "monitor/storage/nbd_server.h"

namespace trapline::monitor {

// The format of an open image. A guest can write any header to its raw disk: a file is qcow2 without being called that
// only if both its first bytes and its name say so. Error: what is unclear, and the remedy.
Result<machine::DiskFormat, VmError> format_of(const machine::DiskConfig& config, int fd);

// The files that an image needs for reading: those below it. Each must say the format of the next, or it would be guessed.
// Error: what is wrong, and the remedy.
Result<std::vector<std::string>, VmError> backing_files(const std::string& image);

// Error: what is wrong, and the remedy.
Result<NbdServer, VmError> serve_qcow2(const machine::DiskConfig& config);

}  // namespace trapline::monitor
