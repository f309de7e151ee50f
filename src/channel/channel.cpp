#include "channel/channel.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <utility>

#include "channel/futex.h"

namespace trapline::channel {

namespace {
std::string failed(const char* step) { return fmt::format("channel: {} failed: {}", step, std::strerror(errno)); }
}  // namespace

void wake(VcpuPages& vcpu) {
  if (vcpu.sleep.exchange(0) == 1) futex_wake(vcpu.sleep);
}

void kick(VcpuPages& vcpu, u32 attention_bits) {
  vcpu.attention.fetch_or(attention_bits);  // seq_cst: ordered before the look at `sleep`
  wake(vcpu);
}

Result<Channel, std::string> Channel::create(u32 vcpus) {
  const int fd = ::memfd_create("channel", MFD_CLOEXEC);
  if (fd < 0) return Err{failed("memfd_create")};
  if (::ftruncate(fd, static_cast<off_t>(bytes(vcpus))) != 0) {
    const std::string message = failed("ftruncate");
    ::close(fd);
    return Err{message};
  }
  auto c = attach(fd, vcpus);
  if (!c) return c;
  new (&c->vm()) VmPage;
  c->vm().vcpus = vcpus;
  for (u32 i = 0; i < vcpus; i++) new (&c->vcpu(i)) VcpuPages;
  return c;
}

Result<Channel, std::string> Channel::attach(int fd, u32 vcpus) {
  void* at = ::mmap(nullptr, bytes(vcpus), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return Err{failed("mmap")};
  Channel c;
  c.base_ = static_cast<u8*>(at);
  c.vcpus_ = vcpus;
  c.fd_ = fd;
  return c;
}

Channel::Channel(Channel&& o) noexcept
    : base_{std::exchange(o.base_, nullptr)}, vcpus_{std::exchange(o.vcpus_, 0)}, fd_{std::exchange(o.fd_, -1)} {}

Channel& Channel::operator=(Channel&& o) noexcept {
  std::swap(base_, o.base_);
  std::swap(vcpus_, o.vcpus_);
  std::swap(fd_, o.fd_);
  return *this;
}

Channel::~Channel() {
  if (base_) ::munmap(base_, bytes(vcpus_));
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace trapline::channel
