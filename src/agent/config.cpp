#include "agent/config.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/fail.h"
#include "agent/protocol.h"

namespace trapline::agent {

namespace {

char* read_file(const char* path, std::size_t& size) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  struct stat st {};
  if (fd < 0 || ::fstat(fd, &st) != 0) fail(path);
  char* text = static_cast<char*>(::malloc(static_cast<std::size_t>(st.st_size) + 1));
  for (size = 0; size < static_cast<std::size_t>(st.st_size);) {
    const ssize_t n = ::read(fd, text + size, static_cast<std::size_t>(st.st_size) - size);
    if (n <= 0) fail(path);
    size += static_cast<std::size_t>(n);
  }
  text[size] = 0;
  ::close(fd);
  return text;
}

char* next_word(char*& text) { return ::strsep(&text, " "); }

void apply(Config& c, const char* key, char* value) {
  const auto is = [&](const char* name) { return ::strcmp(key, name) == 0; };
  const auto number = [&] { return static_cast<u32>(::strtoul(value, nullptr, 10)); };
  if (is("module")) {
    c.modules.push_back(value);
  } else if (is("root")) {
    c.root = value;
  } else if (is("rootdisk")) {
    c.root_disk = value;
  } else if (is("network")) {
    c.network.address = next_word(value), c.network.mask = next_word(value);
    c.network.gateway = next_word(value), c.network.dns = next_word(value);
    if (!c.network.dns) fail("a network without a name server");
  } else if (is("share")) {
    char* tag = next_word(value);
    const char* mode = next_word(value);
    if (!mode || !value) fail("a share without a place");
    c.shares.push_back({tag, value, ::strcmp(mode, "ro") == 0});
  } else if (is("uid")) {
    c.uid = number();
  } else if (is("gid")) {
    c.gid = number();
  } else if (is("group")) {
    c.groups.push_back(number());
  } else if (is("umask")) {
    c.umask = static_cast<mode_t>(::strtoul(value, nullptr, 8));
  } else if (is("directory")) {
    c.directory = value;
  } else if (is("terminal")) {
    c.terminal = true;
    c.rows = static_cast<u16>(::strtoul(value, &value, 10));
    c.columns = static_cast<u16>(::strtoul(value, nullptr, 10));
  } else if (is("env")) {
    c.environment.push_back(value);
  } else if (is("arg")) {
    c.arguments.push_back(value);
  }
}

}  // namespace

Config read_config() {
  std::size_t size = 0;
  char* text = read_file(kConfigPath, size);
  Config c;
  for (char* at = text; at < text + size;) {
    char* value = at;
    at += ::strlen(at) + 1;
    const char* key = next_word(value);
    if (value) apply(c, key, value);
  }
  if (c.arguments.empty() || (!c.root && !c.root_disk)) fail("nothing to do");
  c.environment.push_back(nullptr);
  c.arguments.push_back(nullptr);
  return c;
}

}  // namespace trapline::agent
