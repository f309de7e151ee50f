// An error carries what was wrong; its line names option, value and remedy.
#include "wording/vm_error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace trapline::wording {
namespace {

using monitor::ActionError;
using monitor::VmError;
using monitor::VmState;
using About = VmError::About;
using Reason = VmError::Reason;

TEST(VmErrorText, NamesOptionValueAndRemedy) {
  const auto text = [](VmError e) { return line(e); };
  EXPECT_EQ(text({About::kernel, Reason::cannot_open, "/k", ENOENT}),
            "kernel /k: No such file or directory: check the path");
  EXPECT_EQ(text({About::initrd, Reason::cannot_open, "", ENOENT}),
            "--initrd '': No such file or directory: check the path");
  EXPECT_EQ(text({About::initrd, Reason::too_large, "/i", 0, 5 * MiB}), "--initrd /i: over 5 MiB: give a smaller file");
  EXPECT_EQ(text({About::initrd, Reason::cannot_open, "/i", EMFILE}),
            "--initrd /i: Too many open files: raise the limit of open files (ulimit -n)");
  EXPECT_EQ(text({About::trace_file, Reason::cannot_write, "/t", EMFILE}),
            "--trace-file /t: Too many open files: raise the limit of open files (ulimit -n)");
  EXPECT_EQ(text({About::disk, Reason::in_use, "/d"}),
            "--disk /d: in use by another VM: give readonly or snapshot, or end that one");
  EXPECT_EQ(text({About::net_tap, Reason::no_such_interface, "x"}),
            "--net tap,ifname=x: no interface has so long a name");
  EXPECT_EQ(text({About::net_user, Reason::silent}),
            "--net user: its process has ended or says nothing: see whether libslirp0 is installed");
  EXPECT_EQ(text({About::gdb, Reason::address_taken, "1234", EADDRINUSE}),
            "--gdb 1234: Address already in use: choose another port");
  EXPECT_EQ(text({About::vsock, Reason::path_too_long, "/v", 0, 96}),
            "--vsock path=/v: a socket's path has 96 bytes at most here");
  EXPECT_EQ(text({About::name, Reason::no_name_left}), "no name for this VM: give one: --name NAME");
  EXPECT_EQ(text({About::vm, Reason::no_such_vm, "a", 0, 0, "b, c"}), "a: no such VM: there are b, c");
  EXPECT_EQ(text({About::share, Reason::gave_up, "/s", 0, 0, "--share /s: words of its own"}),
            "--share /s: words of its own");
  EXPECT_EQ(text({About::share_vhost, Reason::unfit_back_end, "/s", 0, 0, "it has no queue"}),
            "--share vhost-user=/s: it has no queue: see which vhost-user back end listens there");
  EXPECT_EQ(text({About::launch, Reason::launch_too_long, {}, 0, 70'000}),
            "--append and module arguments are too long: shorten them");
}

TEST(VmErrorText, EveryReasonHasWords) {
  for (u8 reason = 0; reason <= static_cast<u8>(Reason::launch_too_long); reason++) {
    const VmError e{About::disk, static_cast<Reason>(reason), "/d", EIO, MiB, "said"};
    EXPECT_GT(wording::reason(e).size(), 3u) << int{reason};
    EXPECT_THAT(line(e), testing::StartsWith(e.reason == Reason::no_name_left ? "no name" : "--disk /d: "));
  }
}

TEST(VmErrorText, WhatTheHostRefusesIsNotBadInput) {
  EXPECT_EQ((VmError{About::vsock, Reason::path_taken, "/v", EADDRINUSE}.code()), ExitCode::bad_input);
  EXPECT_EQ((VmError{About::vsock, Reason::no_descriptor}.code()), ExitCode::host_refused);
  EXPECT_EQ((VmError{About::initrd, Reason::cannot_open, "/i", EACCES}.code()), ExitCode::bad_input);
  for (const int used_up : {EMFILE, ENFILE, ENOMEM})
    EXPECT_EQ((VmError{About::initrd, Reason::cannot_open, "/i", used_up}.code()), ExitCode::host_refused);
  EXPECT_EQ((VmError{About::memory, Reason::no_mapping}.code()), ExitCode::host_refused);
  EXPECT_EQ((VmError{About::core, Reason::no_process}.code()), ExitCode::host_refused);
}

TEST(VolumeErrorText, NamesTheImage) {
  EXPECT_EQ(line(VmError{About::volume, Reason::cannot_open, "/d", ENOENT}),
            "/d: No such file or directory: name an image that can be read");
  EXPECT_EQ(line(VmError{About::volume, Reason::gave_up, "/d", 0, 0, "no kernel in /boot"}), "/d: no kernel in /boot");
}

TEST(ActionErrorText, SaysWhatIsWrongWithWhichValue) {
  using Kind = ActionError::Kind;
  EXPECT_EQ(line(ActionError{Kind::too_large, 512 * MiB}), "it has 512 MiB of memory: give less");
  EXPECT_EQ(line(ActionError{Kind::wrong_state, static_cast<u64>(VmState::ended)}), "it is ended");
  EXPECT_EQ(line(ActionError{Kind::no_number, 0, "1x"}), "no number of bytes: 1x");
  for (u8 kind = 0; kind <= static_cast<u8>(Kind::unintelligible); kind++)
    EXPECT_GT(line(ActionError{static_cast<Kind>(kind)}).size(), 5u) << int{kind};
}

}  // namespace
}  // namespace trapline::wording
