// VMs have names: they are listed, stopped and killed by them from elsewhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>

#include "support/process.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

struct VmNames : testing::Test {
  std::filesystem::path runtime;
  VmNames() {
    char name[] = "/tmp/trapline-names-XXXXXX";
    runtime = ::mkdtemp(name);
  }
  ~VmNames() override { std::filesystem::remove_all(runtime); }

  Process::Options here() const {
    return {.merge_stderr = true, .environment = {"XDG_RUNTIME_DIR=" + runtime.string()}};
  }
  Finished trapline(std::vector<std::string> words) const {
    words.insert(words.begin(), TRAPLINE_EXECUTABLE);
    return run(words, {}, seconds{60}, here());
  }
};

TEST_F(VmNames, AreListedAndStoppedAndKilled) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  const std::vector<std::string> command{TRAPLINE_EXECUTABLE, "run", "--memory", "64M", "--kernel", kernel.path()};
  std::vector<std::string> named = command;
  named.insert(named.end(), {"--name", "web"});
  Process first{named, here()}, second{command, here()};
  ASSERT_TRUE(first.wait_for("up", seconds{60}) && second.wait_for("up", seconds{60}));
  EXPECT_THAT(trapline({"ps"}).output, testing::AllOf(HasSubstr("web"), HasSubstr("vm1"), HasSubstr(kernel.path())));
  EXPECT_THAT(trapline({"ps", "--json"}).output, HasSubstr("\"name\": \"web\""));
  const Finished again = run(named, {}, seconds{60}, here());
  EXPECT_EQ(again.code, 3);
  EXPECT_THAT(again.output, HasSubstr("runs already"));

  EXPECT_EQ(trapline({"stop", "web"}).code, 0) << "it does not listen to the button: it is ended";
  EXPECT_EQ(first.wait_exit(seconds{30}), 143);
  EXPECT_EQ(trapline({"kill", "vm1"}).code, 0);
  EXPECT_EQ(second.wait_exit(seconds{30}), 128 + SIGKILL);
  EXPECT_EQ(trapline({"ps"}).output, "");
  EXPECT_EQ(trapline({"stop", "web"}).code, 3);
  EXPECT_EQ(trapline({"stop"}).code, 2);
  EXPECT_TRUE(std::filesystem::is_empty(runtime / "trapline"));
}

TEST_F(VmNames, WrongOnesAreNamed) {
  const Finished f = trapline({"run", "--name", "a/b", "--kernel", "/dev/null"});
  EXPECT_EQ(f.code, 2);
  EXPECT_THAT(f.output, HasSubstr("--name a/b"));
}

}  // namespace
}  // namespace trapline::test
