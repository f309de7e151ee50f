// Disks whose contents are code, for guests that run what devices have just written.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "support/process.h"

namespace trapline::test {

// The smallest program: exit(code).
inline std::vector<unsigned char> program(unsigned char code) {
  std::vector<unsigned char> p(0x80 + 9, 0);
  const auto put = [&p](std::size_t at, unsigned long long value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) p[at + i] = static_cast<unsigned char>(value >> 8 * i);
  };
  constexpr unsigned long long kBase = 0x400000;
  std::memcpy(p.data(), "\177ELF\2\1\1", 7);
  put(0x10, 2, 2), put(0x12, 62, 2), put(0x14, 1, 4);       // executable, x86-64
  put(0x18, kBase + 0x80, 8), put(0x20, 0x40, 8);           // entry, program headers
  put(0x34, 0x40, 2), put(0x36, 0x38, 2), put(0x38, 1, 2);  // their sizes, one of them
  put(0x40, 1, 4), put(0x44, 5, 4);                         // load, read and execute
  put(0x50, kBase, 8), put(0x58, kBase, 8), put(0x60, p.size(), 8), put(0x68, p.size(), 8), put(0x70, 0x1000, 8);
  const unsigned char text[] = {0x40, 0xb7, code, 0x31, 0xc0,
                                0xb0, 60,   0x0f, 0x05};  // mov dil; xor eax; mov al; syscall
  std::memcpy(&p[0x80], text, sizeof text);
  return p;
}

// disk/code.c: blocks of 4 KiB, the n-th a function that returns n + 1.
inline std::string functions() {
  std::string blocks;
  for (unsigned n = 0; n < 64; n++) {
    std::string block(4096, '\0');
    const char text[] = {'\xb8', static_cast<char>(n + 1), 0, 0, 0, '\xc3'};  // mov eax, n + 1; ret
    block.replace(0, sizeof text, text, sizeof text);
    blocks += block;
  }
  return blocks;
}

// An ext4 image with `data` and the programs, and a disk of functions.
struct ProgramDisk {
  std::string folder = "/tmp/trapline-guest-disk-XXXXXX", path, code;
  std::string sum;
  ProgramDisk() {
    EXPECT_NE(::mkdtemp(folder.data()), nullptr);
    path = folder + "/image";
    const std::string root = folder + "/root";
    ::mkdir(root.c_str(), 0755);
    std::ofstream data{root + "/data"};
    for (unsigned i = 0; i < 40'000; i++) data << i * 2654435761u << '\n';
    data.close();
    for (unsigned n = 1; n <= 60; n++) {
      const std::string name = fmt::format("{}/exit-{}", root, n);
      const auto bytes = program(static_cast<unsigned char>(n));
      std::ofstream{name, std::ios::binary}.write(reinterpret_cast<const char*>(bytes.data()),
                                                  static_cast<std::streamsize>(bytes.size()));
      ::chmod(name.c_str(), 0755);
    }
    run({"cp", DISK_CODE, root + "/code"});
    code = folder + "/functions";
    std::ofstream{code, std::ios::binary} << functions();
    sum = run({"md5sum", root + "/data"}).output.substr(0, 32);
    const Finished made = run({"/sbin/mke2fs", "-q", "-t", "ext4", "-d", root, path, "24M"});
    EXPECT_EQ(made.code, 0) << made.output;
  }
  ~ProgramDisk() { run({"rm", "-rf", folder}); }
  std::string digest() const { return run({"md5sum", path}).output.substr(0, 32); }
};

}  // namespace trapline::test
