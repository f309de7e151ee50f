#include "monitor/file_rules.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>

#include "base/types.h"

namespace trapline::monitor {

namespace {

// The rights of Landlock's versions, by their bits (linux/landlock.h).
constexpr u64 kVersion1 = (u64{1} << 13) - 1;
constexpr u64 kRefer = u64{1} << 13;     // version 2
constexpr u64 kTruncate = u64{1} << 14;  // version 3
constexpr u64 kIoctl = u64{1} << 15;     // version 5
constexpr u64 kReads = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr u64 kRuns = kReads | LANDLOCK_ACCESS_FS_EXECUTE;
constexpr u64 kWrites = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate | kIoctl;
constexpr u64 kMakes = kWrites | kReads | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE;
// Of a rule for what is no folder.
constexpr u64 kOfFiles =
    LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE | kTruncate | kIoctl;

// Programs, libraries, and what those read when they are loaded.
constexpr const char* kSystem[] = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"};
constexpr const char* kSystemFiles[] = {"/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/gnutls", "/etc/crypto-policies",
                                        "/dev/urandom",     "/dev/random",        "/proc/self"};

u64 handled(int version) {
  return kVersion1 | (version >= 2 ? kRefer : 0) | (version >= 3 ? kTruncate : 0) | (version >= 5 ? kIoctl : 0);
}

int allow(int rules, u64 known, const std::string& path, u64 access) {
  const Fd at{::open(path.c_str(), O_PATH | O_CLOEXEC)};
  struct stat st {};
  if (!at || ::fstat(at.get(), &st) != 0) return 0;
  landlock_path_beneath_attr rule{};
  rule.parent_fd = at.get();
  rule.allowed_access = access & known & (S_ISDIR(st.st_mode) ? ~u64{0} : kOfFiles);
  return ::syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0 ? 0 : errno;
}

// Of a program that was installed elsewhere: /opt/qemu of /opt/qemu/bin/qemu-nbd.
std::string prefix_of(const std::string& program) {
  char whole[PATH_MAX];
  if (!::realpath(program.c_str(), whole)) return program;
  std::string prefix = whole;
  for (int i = 0; i < 2; i++) prefix.erase(std::min(prefix.rfind('/'), prefix.size()));
  return prefix.empty() ? program : prefix;
}

}  // namespace

Result<FileRules, int> FileRules::create(const std::string& program, const Grants& grants) {
  FileRules result;
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) return result;
  const u64 known = handled(static_cast<int>(version));
  Fd rules{static_cast<int>(::syscall(SYS_landlock_create_ruleset, &known, sizeof known, 0))};
  if (!rules) return Err{errno};
  int error = 0;
  const auto add = [&](const std::string& path, u64 access) {
    if (error == 0) error = allow(rules.get(), known, path, access);
  };
  for (const char* folder : kSystem) add(folder, kRuns);
  for (const char* file : kSystemFiles) add(file, kReads);
  add("/dev/null", kWrites);
  add(prefix_of(program), kRuns);
  for (const std::string& file : grants.read) add(file, kReads);
  for (const std::string& file : grants.written) add(file, kWrites);
  for (const std::string& folder : grants.folders) add(folder, kMakes);
  if (error) return Err{error};
  result.rules_ = std::move(rules);
  return result;
}

bool FileRules::apply() const {
  if (!rules_) return true;
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::syscall(SYS_landlock_restrict_self, rules_.get(), 0) == 0;
}

}  // namespace trapline::monitor
