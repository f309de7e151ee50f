// The registers in the order of the client's description, from one table: it makes the XML, reads and writes the
// packets.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "channel/debug_mailbox.h"

namespace trapline::monitor::gdb {

class RegisterLayout {
 public:
  // i386:x86-64 or i386.
  static const RegisterLayout& of(bool wide);

  const std::string& description() const { return description_; }  // target.xml
  std::size_t count() const { return registers_.size(); }

  // Hexadecimal, as in packets g and p.
  std::string read_all(const channel::DebugRegisters& r) const;
  std::optional<std::string> read(const channel::DebugRegisters& r, u64 number) const;
  // As in G and P. False: malformed, or a register that only instructions change would change.
  bool write_all(channel::DebugRegisters& r, std::string_view hex) const;
  bool write(channel::DebugRegisters& r, u64 number, std::string_view hex) const;

 private:
  enum class Form : u8 { plain, tags /* the full x87 tag word, of the abridged one */ };
  struct Register {
    const char* feature;
    std::string name;
    u16 bytes;   // in packets
    u16 stored;  // in DebugRegisters; the rest is zero
    std::size_t offset;
    const char* type;
    bool writable;
    Form form = Form::plain;
  };
  explicit RegisterLayout(bool wide);
  void add_general(bool wide);
  void add_x87();
  void add_vector(bool wide);
  void add_system(bool wide);
  std::string describe(bool wide) const;
  void get(const channel::DebugRegisters& r, const Register& reg, u8* out) const;
  bool set(channel::DebugRegisters& r, const Register& reg, const u8* in) const;

  std::vector<Register> registers_;
  std::string description_;
};

}  // namespace trapline::monitor::gdb
