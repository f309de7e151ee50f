// What makes a Debian tree a guest of ours: the packages, and the shell scripts that a build runs.
#pragma once

#include <string>
#include <vector>

namespace trapline::image {

struct Spec {
  std::string name, suite, user = "debian", format = "raw";
  std::string size;                   // as --size says, for messages
  unsigned long long bytes = 0;       // of the disk
  std::vector<std::string> packages;  // beside those of every image
  bool autologin = false;
};

// What is wrong with it: one line that names the option; or nothing.
std::string check(const Spec& spec);

// A kernel of the user's takes the place of Debian's cloud kernel.
std::vector<std::string> packages_of(const Spec& spec);

// Run by mmdebstrap while the tree is made; $1 is its root. The first before the packages are installed, the second
// after it. Both find the user's name in $TRAPLINE_USER.
extern const char* const kBeforePackages;
extern const char* const kAfterPackages;

// Run where files of the tree can be root's: unpacks root.tar in the current folder and makes disk.raw of it, with
// vmlinuz, initrd.img and version, and hostkeys, the guest's public keys. Exit code kTooSmall: it does not fit.
// Variables: TRAPLINE_NAME, TRAPLINE_USER, TRAPLINE_BYTES, TRAPLINE_AUTOLOGIN (1 or empty); id_ed25519.pub is there.
extern const char* const kPack;
inline constexpr int kTooSmall = 77;

}  // namespace trapline::image
