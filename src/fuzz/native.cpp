#include "fuzz/native.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "base/invariant.h"
#include "fuzz/native_child.h"

namespace trapline::fuzz {

namespace {

std::string failed(const char* step) { return std::string("fuzz: ") + step + " failed: " + std::strerror(errno); }

}  // namespace

const u8* Native::read_only_page() {
  static const auto page = [] {
    std::array<u8, place::read_only_size> p;
    Rng rng(0x5ead);
    for (u8& b : p) b = static_cast<u8>(rng.next());
    return p;
  }();
  return page.data();
}

Result<std::unique_ptr<Native>, std::string> Native::start() {
  std::unique_ptr<Native> n(new Native);
  void* shared = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return Err{failed("mmap")};
  n->shared_ = new (shared) Shared;
  std::memcpy(n->shared_->read_only, read_only_page(), place::read_only_size);
  n->code_fd_ = ::memfd_create("fuzz-code", MFD_CLOEXEC);
  if (n->code_fd_ < 0 || ::ftruncate(n->code_fd_, place::code_size) != 0) return Err{failed("memfd_create")};
  void* code = ::mmap(nullptr, place::code_size, PROT_READ | PROT_WRITE, MAP_SHARED, n->code_fd_, 0);
  if (code == MAP_FAILED) return Err{failed("mmap")};
  n->code_ = static_cast<u8*>(code);
  if (!n->spawn()) return Err{failed("fork")};
  n->submit({});  // the answer says what the child can run
  n->collect();
  return n;
}

Native::~Native() {
  reap();
  if (code_) ::munmap(code_, place::code_size);
  if (code_fd_ >= 0) ::close(code_fd_);
  if (shared_) ::munmap(shared_, sizeof(Shared));
}

bool Native::spawn() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return false;
  pid_ = ::fork();
  if (pid_ == 0) {
    ::close(ends[0]);
    run_child(*shared_, code_fd_, ends[1]);
  }
  ::close(ends[1]);
  channel_ = ends[0];
  return pid_ > 0;
}

void Native::reap() {
  if (channel_ >= 0) ::close(channel_);
  channel_ = -1;
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

// One byte there per batch, one back. A dead child shows when it does not answer.
void Native::order() {
  const char c = 1;
  [[maybe_unused]] const auto n = ::send(channel_, &c, 1, MSG_NOSIGNAL);
}

bool Native::answered() {
  char c;
  ssize_t n;
  while ((n = ::read(channel_, &c, 1)) < 0 && errno == EINTR) {
  }
  return n == 1;
}

void Native::submit(const std::vector<const Program*>& programs) {
  INVARIANT(programs.size() <= place::batch, "{} programs", programs.size());
  for (std::size_t i = 0; i < programs.size(); i++) {
    const auto code = layout(programs[i]->items, place::code + i * place::slot);
    INVARIANT(code.size() <= place::slot, "{} bytes of code", code.size());
    std::memcpy(code_ + i * place::slot, code.data(), code.size());
    shared_->size[i] = programs[i]->size;
    shared_->initial[i] = programs[i]->initial;
  }
  shared_->count = programs.size();
  shared_->first = 0;
  shared_->current = 0;
  order();
}

void Native::again(std::size_t index) {
  shared_->first = index;
  shared_->count = index + 1;
  order();
  collect();
}

void Native::collect() {
  // A sequence that kills the child is marked, and the rest of the batch run by the next one.
  while (!answered()) {
    const u64 guilty = shared_->current;
    reap();
    restarts_++;
    INVARIANT(restarts_ < 100, "the child process dies again and again");
    shared_->outcome[guilty].ending = {Ending::Kind::lost, 0, 0, 0};
    shared_->first = guilty + 1;
    INVARIANT(spawn(), "cannot start a child process");
    if (shared_->first >= shared_->count) return;
    order();
  }
}

bool Native::runs(isa::CodeSize size) const {
  if (size == isa::CodeSize::bits64) return true;
  return size == isa::CodeSize::bits32 ? shared_->code32 : shared_->code16;
}

const Outcome& Native::outcome(std::size_t index) const { return shared_->outcome[index]; }

}  // namespace trapline::fuzz
