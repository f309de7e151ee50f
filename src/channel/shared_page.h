// Memory that one process writes and the other may only read: the monitor's view of its devices, for the core.
#pragma once

#include <new>
#include <string>
#include <type_traits>
#include <utility>

#include "base/result.h"
#include "base/types.h"

namespace trapline::channel {

// A mapped memfd. Movable; unmapped and closed at the end.
class SharedMemory {
 public:
  // The writer's, zero. The descriptor maps read-only from now on, wherever the host's kernel can seal it (Linux 5.1).
  // `name` is for /proc and for messages.
  static Result<SharedMemory, std::string> create(const char* name, u64 bytes);
  // The reader's. The descriptor stays the caller's.
  static const void* attach(int fd, u64 bytes);  // null: no address space

  SharedMemory() = default;
  SharedMemory(SharedMemory&& o) noexcept;
  SharedMemory& operator=(SharedMemory&& o) noexcept;
  ~SharedMemory();

  void* data() const { return data_; }
  int fd() const { return fd_; }

 private:
  void* data_ = nullptr;
  u64 bytes_ = 0;
  int fd_ = -1;
};

template <class Page>
class SharedPage {
 public:
  static_assert(std::is_trivially_destructible_v<Page> && sizeof(Page) % kPageSize == 0);

  static Result<SharedPage, std::string> create(const char* name) {
    auto memory = SharedMemory::create(name, sizeof(Page));
    if (!memory) return Err{memory.error()};
    SharedPage shared;
    shared.memory_ = std::move(*memory);
    shared.page_ = new (shared.memory_.data()) Page;
    return shared;
  }
  static const Page* attach(int fd) { return static_cast<const Page*>(SharedMemory::attach(fd, sizeof(Page))); }

  SharedPage() = default;
  SharedPage(SharedPage&& o) noexcept : memory_{std::move(o.memory_)}, page_{std::exchange(o.page_, nullptr)} {}
  SharedPage& operator=(SharedPage&& o) noexcept {
    std::swap(memory_, o.memory_);
    std::swap(page_, o.page_);
    return *this;
  }

  Page* page() const { return page_; }
  int fd() const { return memory_.fd(); }

 private:
  SharedMemory memory_;
  Page* page_ = nullptr;  // in `memory_`
};

}  // namespace trapline::channel
