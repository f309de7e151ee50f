#include "base/write.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <thread>

namespace trapline {
namespace {

struct Pipe {
  Pipe() { EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0); }
  ~Pipe() { ::close(ends[0]), ::close(ends[1]); }
  int ends[2];
};

TEST(WriteAll, WaitsForASlowReader) {
  const Pipe pipe;
  const std::string text(300'000, 'x');
  std::string got;
  std::thread reader{[&] {
    char some[1000];
    while (got.size() < text.size()) {
      const ssize_t n = ::read(pipe.ends[0], some, sizeof some);
      if (n <= 0) break;
      got.append(some, static_cast<std::size_t>(n));
    }
  }};
  const int cancel = ::eventfd(0, 0);
  EXPECT_EQ(write_all(pipe.ends[1], text, cancel), 0);
  reader.join();
  EXPECT_EQ(got, text);
  ::close(cancel);
}

TEST(WriteAll, IsCancelledWhileItWaits) {
  const Pipe pipe;
  const int cancel = ::eventfd(1, 0);
  EXPECT_EQ(write_all(pipe.ends[1], "fits", cancel), 0) << "what can be written is";
  EXPECT_EQ(write_all(pipe.ends[1], std::string(300'000, 'x'), cancel), ECANCELED);
  ::fcntl(pipe.ends[1], F_SETFL, O_NONBLOCK);
  EXPECT_EQ(write_all(pipe.ends[1], std::string(300'000, 'x'), cancel), ECANCELED);
  ::close(cancel);
}

TEST(WriteAll, SaysWhatIsWrong) {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  EXPECT_EQ(write_all(full, "x"), ENOSPC);
  ::close(full);
  EXPECT_EQ(write_all(-1, "x"), EBADF);
  EXPECT_EQ(write_all(-1, ""), 0);
}

}  // namespace
}  // namespace trapline
