#include "cage/filter.h"

#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <cstddef>

#include "cage/layout.h"

namespace trapline::cage {

namespace {

class Program {
 public:
  explicit Program(bool arguments) : arguments_{arguments} {}
  void load(std::size_t offset) { code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<u32>(offset))); }
  // Or SIGSYS.
  void require(u32 value) {
    to_trap_.push_back(code_.size());
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 0));
  }
  void require(std::size_t offset, u32 value) { load(offset), require(value); }
  void require64(unsigned argument, u64 value) {
    if (!arguments_) return;
    require(low(argument), static_cast<u32>(value));
    require(high(argument), static_cast<u32>(value >> 32));
  }
  // `rest` applies where the loaded word is `value`, and ends by itself.
  template <class Rest>
  void when(u32 value, Rest rest) {
    const std::size_t at = code_.size();
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 0));
    rest();
    code_[at].jf = static_cast<u8>(code_.size() - at - 1);
  }
  void allow() { code_.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)); }
  std::vector<sock_filter> end() {
    for (const std::size_t at : to_trap_) code_[at].jf = static_cast<u8>(code_.size() - at - 1);
    code_.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
    return code_;
  }
  static std::size_t low(unsigned argument) { return offsetof(seccomp_data, args) + 8 * argument; }
  static std::size_t high(unsigned argument) { return low(argument) + 4; }

 private:
  bool arguments_;
  std::vector<sock_filter> code_;
  std::vector<std::size_t> to_trap_;
};

constexpr std::size_t kNumber = offsetof(seccomp_data, nr), kArch = offsetof(seccomp_data, arch),
                      kIp = offsetof(seccomp_data, instruction_pointer);
constexpr unsigned kArchPrctl = SYS_arch_prctl;

}  // namespace

std::vector<sock_filter> filter(u64 stub, const Nonce& nonce, const Defences& defences) {
  if (!defences.calls) return {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const auto site = [stub](const char* at) { return static_cast<u32>(stub + static_cast<u64>(at - cage_stub_begin)); };
  Program p{defences.arguments};
  p.require(kArch, AUDIT_ARCH_X86_64);
  p.require(kIp + 4, static_cast<u32>(stub >> 32));
  p.load(kIp);
  p.when(site(cage_site_wake), [&] {
    p.require(kNumber, SYS_futex);
    p.require64(0, stub + CAGE_EXCHANGE + X_CALLS);
    p.require(Program::low(1), FUTEX_WAKE);
    p.allow();
  });
  p.when(site(cage_site_wait), [&] {
    p.require(kNumber, SYS_futex);
    p.require64(0, stub + CAGE_EXCHANGE + X_ANSWERS);
    p.require(Program::low(1), FUTEX_WAIT);
    p.require64(3, 0);
    p.allow();
  });
  p.when(site(cage_site_read), [&] {
    p.require(kNumber, SYS_read);
    p.require64(0, CAGE_ORDER_FD);
    p.require64(1, stub + CAGE_ORDERS);
    p.require64(2, sizeof(Orders));
    p.allow();
  });
  p.when(site(cage_site_exit), [&] {
    p.require(kNumber, SYS_exit_group);
    p.allow();
  });
  p.require(site(cage_site_order));
  if (defences.nonce) {
    p.require(Program::high(3), nonce.flags);
    p.require(Program::high(4), nonce.fd);
  }
  p.load(kNumber);
  for (const u32 call : {u32{SYS_mmap}, u32{SYS_munmap}, u32{SYS_mprotect}, kArchPrctl})
    p.when(call, [&] { p.allow(); });
  p.require(~0u);
  return p.end();
}

}  // namespace trapline::cage
