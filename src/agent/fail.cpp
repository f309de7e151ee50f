#include "agent/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "agent/protocol.h"

namespace trapline::agent {

int port = -1;

void fail(const char* what) {
  char text[512];
  const int length = errno ? ::snprintf(text, sizeof text, "%s: %s", what, ::strerror(errno))
                           : ::snprintf(text, sizeof text, "%s", what);
  const u32 size = length < static_cast<int>(sizeof text) ? static_cast<u32>(length) : sizeof text - 1;
  if (port >= 0) {
    ::fcntl(port, F_SETFL, 0);  // now it may wait
    const Header header{Kind::failed, Stream::output, 0, size};
    char frame[sizeof header + sizeof text];
    ::memcpy(frame, &header, sizeof header);
    ::memcpy(frame + sizeof header, text, size);
    if (::write(port, frame, sizeof header + size) < 0) power_off();
    ::pause();  // the host ends it
  }
  const int serial = ::open("/dev/ttyS0", O_WRONLY | O_NOCTTY);
  if (serial >= 0) ::dprintf(serial, "trapline-init: %s\n", text);
  power_off();
}

void power_off() {
  ::sync();
  ::reboot(RB_POWER_OFF);
  for (;;) ::pause();
}

}  // namespace trapline::agent
