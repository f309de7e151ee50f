// RAM and a vCPU to boot into, for the boot loader's tests.
#pragma once

#include <gtest/gtest.h>

#include "unit/boot/images.h"

namespace trapline::boot::testing {

// RAM, a vCPU without connections, and a request for the tests to change.
class BootTest : public ::testing::Test {
 protected:
  explicit BootTest(u64 memory = 64 * MiB) { remake(memory); }
  void remake(u64 memory) { ram = *GuestMemory::anonymous(memory); }

  Result<BootInfo, std::string> load(const Image& kernel) {
    request.kernel = kernel;
    if (request.kernel_name.empty()) request.kernel_name = "vmtest";
    return load_kernel(ram, cpu, request);
  }
  std::string error(const Image& kernel) {
    const auto r = load(kernel);
    return r ? std::string("(booted)") : r.error();
  }
  template <class T>
  T at(u64 gpa) const {
    T value{};
    const auto from = ram.bytes(Gpa{gpa}, sizeof value);
    EXPECT_TRUE(from) << std::hex << gpa;
    if (from) std::memcpy(&value, from->data(), sizeof value);
    return value;
  }
  std::string text(u64 gpa) const { return reinterpret_cast<const char*>(ram.host(Gpa{gpa})); }
  std::string chars(u64 gpa, u64 size) const {
    return std::string(reinterpret_cast<const char*>(ram.host(Gpa{gpa})), size);
  }

  void expect_flat_protected_mode() const {
    EXPECT_EQ(cpu.cr0 & 0x80000001, 1u);
    EXPECT_EQ(cpu.cr4, 0u);
    EXPECT_EQ(cpu.efer, 0u);
    EXPECT_EQ(cpu.mode, cpu::Mode::protected32);
    EXPECT_EQ(cpu.rflags(), 2u);
    for (const auto& s : cpu.seg) {
      EXPECT_EQ(s.base, 0u);
      EXPECT_EQ(s.limit, 0xffffffffu);
      EXPECT_TRUE(s.usable && s.present() && s.big());
    }
  }

  GuestMemory ram;
  cpu::Vcpu cpu;
  BootRequest request;
};

}  // namespace trapline::boot::testing
