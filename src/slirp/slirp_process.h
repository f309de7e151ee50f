// The process behind `--net user`: libslirp between a stream socket (frames as monitor/network/stream_link.h has them)
// and the host's sockets. It is started from the executable itself, gets the guest's frames and nothing else of the
// VM, and is behind a filter: sockets, no other files, no programs.
//
//   trapline __net SOCKET_FD RESTRICTED MTU [FORWARD...]     FORWARD: tcp:10.0.0.1:80:10.0.2.15:8080
//
// Its first message on the socket is a line: "ok", or what is wrong and the remedy. Then frames.
#pragma once

namespace trapline::slirp {

inline constexpr const char* kNetCommand = "__net";

int net_main(int argc, char** argv);

}  // namespace trapline::slirp
