// Files of a VM: whose they are is said of each that cannot be had.
#include "monitor/files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>

namespace trapline::monitor {
namespace {

using About = VmError::About;
using Reason = VmError::Reason;

// Until the end of its scope no descriptor is left.
struct NoDescriptors {
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before);
    const Fd next{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
    const rlimit none{static_cast<rlim_t>(next.get()), before.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before); }
  rlimit before{};
};

TEST(OpenImage, WithoutDescriptorsSaysWhoseFileItWas) {
  const NoDescriptors none;
  const auto opened = open_image("/proc/self/exe", About::initrd, GiB);
  ASSERT_FALSE(opened);
  const VmError& e = opened.error();
  EXPECT_EQ(e.about, About::initrd);
  EXPECT_EQ(e.reason, Reason::cannot_open);
  EXPECT_EQ(e.value, "/proc/self/exe");
  EXPECT_EQ(e.error, EMFILE);
  EXPECT_EQ(e.code(), ExitCode::host_refused);
}

TEST(OpenImage, RefusesWhatIsNoImage) {
  const auto reason_of = [](const char* path, u64 most) {
    const auto opened = open_image(path, About::kernel, most);
    return opened ? std::nullopt : std::optional{opened.error().reason};
  };
  EXPECT_EQ(reason_of("/nonexistent", GiB), Reason::cannot_open);
  EXPECT_EQ(reason_of("/", GiB), Reason::is_directory);
  EXPECT_EQ(reason_of("/dev/null", GiB), Reason::empty);
  EXPECT_EQ(reason_of("/proc/self/exe", 1), Reason::too_large);
  EXPECT_EQ(reason_of("/proc/self/exe", GiB), std::nullopt);
}

}  // namespace
}  // namespace trapline::monitor
