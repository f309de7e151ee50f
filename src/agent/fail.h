// The way out when there can be no command: says why to the host and powers off.
#pragma once

namespace trapline::agent {

// The port once it is there; -1 before that: words go to the first serial port.
extern int port;

// "WHAT: the text of errno", or WHAT alone while errno is 0.
[[noreturn]] void fail(const char* what);
[[noreturn]] void power_off();

}  // namespace trapline::agent
