// Guests of a few bytes: a multiboot 1 image around 32-bit machine code, written to a temporary file.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

namespace trapline::test {

class TempFile {
 public:
  explicit TempFile(const std::string& contents) {
    char name[] = "/tmp/trapline-test-XXXXXX";
    const int fd = ::mkstemp(name);
    if (fd < 0) throw std::runtime_error("mkstemp");
    ::close(fd);
    path_ = name;
    std::ofstream{path_, std::ios::binary} << contents;
  }
  ~TempFile() { ::unlink(path_.c_str()); }
  TempFile(const TempFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Multiboot specification 0.6.96, 3.1: header with an address field (flag 16), loaded and entered at 1 MiB.
inline std::string multiboot(const std::vector<unsigned char>& code) {
  const unsigned magic = 0x1badb002, flags = 1u << 16, base = 0x100000, entry = base + 32;
  const unsigned header[8] = {magic, flags, 0u - magic - flags, base, base, 0, 0, entry};
  std::string image(reinterpret_cast<const char*>(header), sizeof header);
  image.append(reinterpret_cast<const char*>(code.data()), code.size());
  image.resize(4096);
  return image;
}

// The same by a PVH note (XEN_ELFNOTE_PHYS32_ENTRY), as Linux's own ELF file is started.
inline std::string pvh(const std::vector<unsigned char>& code) {
  const unsigned base = 0x100000, code_at = 0x100, note_at = 0x80;
  const unsigned note[5] = {4, 4, 18, 0x6e6558, base};  // sizes of name and value, type, "Xen", entry
  const unsigned load[8] = {1, code_at, base, base, 0x100, 0x100, 7, 0x100};
  const unsigned notes[8] = {4, note_at, 0, 0, sizeof note, sizeof note, 4, 4};
  const unsigned char ident[16] = {0x7f, 'E', 'L', 'F', 1, 1, 1};
  const unsigned short type_machine[2] = {2, 3};
  const unsigned header[5] = {1, base, 52, 0, 0};
  const unsigned short sizes[6] = {52, 32, 2, 40, 0, 0};
  std::string image(code_at + 0x100, '\0');
  const auto put = [&](std::size_t at, const auto& bytes) { std::memcpy(image.data() + at, &bytes, sizeof bytes); };
  put(0, ident), put(16, type_machine), put(20, header), put(40, sizes);
  put(52, load), put(84, notes), put(note_at, note);
  std::memcpy(image.data() + code_at, code.data(), code.size());
  return image;
}

// mov eax, V; out 0xf4, al: exit code (V << 1) | 1.
inline std::vector<unsigned char> exits_with(unsigned char value) {
  return {0xb0, value, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd};
}

// Prints `text` on COM1, byte by byte, then runs `then`.
inline std::vector<unsigned char> prints(const std::string& text, std::vector<unsigned char> then) {
  std::vector<unsigned char> code{0x66, 0xba, 0xf8, 0x03};  // mov dx, 0x3f8
  for (char c : text) {
    code.push_back(0xb0), code.push_back(static_cast<unsigned char>(c));  // mov al, c
    code.push_back(0xee);                                                 // out dx, al
  }
  code.insert(code.end(), then.begin(), then.end());
  return code;
}

// Sends back on COM1 what arrives there: polls the line status, reads, writes.
inline std::vector<unsigned char> echoes() {
  return {0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7, 0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, 0xeb, 0xef};
}
inline std::vector<unsigned char> loops_for_ever() { return {0xeb, 0xfe}; }
inline std::vector<unsigned char> halts_for_good() { return {0xfa, 0xf4, 0xeb, 0xfd}; }
// lidt with an empty table, then ud2: triple fault.
inline std::vector<unsigned char> triple_faults() {
  return {0xbc, 0x00, 0x00, 0x20, 0x00,  // mov esp, 2 MiB
          0x6a, 0x00, 0x6a, 0x00,        // push 0; push 0
          0x0f, 0x01, 0x1c, 0x24,        // lidt [esp]
          0x0f, 0x0b};                   // ud2
}

}  // namespace trapline::test
