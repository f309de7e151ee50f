// The process that reads kernel and initrd out of a disk image: `trapline __volume`, started by the monitor. It parses
// what a guest may have written, so it has the image, three files of memory to write to, and nothing else.
#pragma once

namespace trapline::volume {

// trapline __volume DISK_FD[:BYTES] KERNEL_FD INITRD_FD ANSWER_FD KERNEL INITRD: fds of -1: not asked for; words may be
// empty. With BYTES the disk is a connection to a server by the NBD protocol, behind the handshake.
// The answer is channel/volume_answer.h's.
int volume_main(int argc, char** argv);

}  // namespace trapline::volume
