#include "monitor/registry.h"
#include "wording/vm_error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace trapline::monitor {
namespace {

namespace fs = std::filesystem;

struct Names : testing::Test {
  fs::path runtime;
  Names() {
    char name[] = "/tmp/trapline-names-XXXXXX";
    runtime = ::mkdtemp(name);
    ::setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
  }
  ~Names() override {
    ::unsetenv("XDG_RUNTIME_DIR");
    fs::remove_all(runtime);
  }
};

TEST_F(Names, AreGivenAndTakenOnce) {
  const auto registry = Registry::open();
  ASSERT_TRUE(registry) << wording::line(registry.error());
  RunningVm a{.name = "", .what = "a"}, b{.name = "", .what = "b"}, c{.name = "vm1", .what = "c"};
  auto held_a = registry->enter(a), held_b = registry->enter(b);
  ASSERT_TRUE(held_a && held_b);
  EXPECT_EQ(a.name, "vm1");
  EXPECT_EQ(b.name, "vm2");
  EXPECT_THAT(wording::line(registry->enter(c).error()), testing::HasSubstr("vm1"));
  EXPECT_EQ(registry->all().size(), 2u);
  EXPECT_EQ(registry->find("vm2")->what, "b");
  EXPECT_EQ(registry->find("vm2")->pid, ::getpid());
  EXPECT_THAT(wording::line(registry->find("vm3").error()), testing::HasSubstr("vm1, vm2"));
}

TEST_F(Names, OfTheDeadAreForgotten) {
  const auto registry = Registry::open();
  const pid_t pid = ::fork();
  if (pid == 0) {
    RunningVm vm{.name = "crashed", .what = ""};
    auto held = registry->enter(vm);
    ::kill(::getpid(), SIGKILL);
  }
  ::waitpid(pid, nullptr, 0);
  ASSERT_TRUE(fs::exists(runtime / "trapline/crashed"));
  EXPECT_TRUE(registry->all().empty());
  EXPECT_FALSE(fs::exists(runtime / "trapline/crashed"));
  RunningVm again{.name = "crashed", .what = ""};
  EXPECT_TRUE(registry->enter(again));
}

TEST_F(Names, AFolderThatOthersWriteToIsRefused) {
  fs::create_directory(runtime / "trapline");
  ::chmod((runtime / "trapline").c_str(), 0777);
  EXPECT_FALSE(Registry::open());
}

TEST_F(Names, AreWords) {
  for (const char* good : {"a", "web-1", "A.b_c"}) EXPECT_TRUE(Registry::is_name(good)) << good;
  for (const char* bad : {"", ".", "..", "a/b", "-a", ".a", "a b"}) EXPECT_FALSE(Registry::is_name(bad)) << bad;
  EXPECT_FALSE(Registry::is_name(std::string(65, 'a')));
}

}  // namespace
}  // namespace trapline::monitor
