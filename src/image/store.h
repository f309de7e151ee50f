// The disk images that `trapline image build` has made, by name: a folder each in $XDG_DATA_HOME/trapline/images
// (~/.local/share/trapline/images), with the disk, its kernel and initrd, an ssh key, and its description.
//
// A build works in a folder of another name, which it holds a lock on, and which becomes the image's by one rename(2).
// One without a lock is what an interrupted build has left, and is taken away by whoever sees it.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace trapline::image {

struct Image {
  std::string name, folder;
  std::string suite, user, kernel;  // kernel: its version
  std::string format = "raw";       // or "qcow2"
  u64 bytes = 0;                    // of the disk as the guest sees it
  i64 made = 0;                     // seconds since 1970

  std::string disk() const { return folder + "/disk." + format; }
  std::string vmlinuz() const { return folder + "/vmlinuz"; }
  std::string initrd() const { return folder + "/initrd.img"; }
  std::string key() const { return folder + "/id_ed25519"; }
  std::string known_hosts() const { return folder + "/known_hosts"; }
};

// A folder that an image is built in. What is in it goes with this object, unless keep() was called.
class Draft {
 public:
  Draft(std::string folder, int lock) : folder_{std::move(folder)}, lock_{lock} {}
  Draft(Draft&& o) noexcept;
  Draft& operator=(Draft&&) = delete;
  ~Draft();
  const std::string& folder() const { return folder_; }

 private:
  friend class Store;
  std::string folder_;
  int lock_;
};

// Errors are one line.
class Store {
 public:
  static Result<Store, std::string> open();

  std::vector<Image> all() const;  // by name
  Result<Image, std::string> find(const std::string& name) const;
  Result<void, std::string> remove(const std::string& name) const;  // refused while a VM uses it

  Result<Draft, std::string> begin(const std::string& name) const;  // makes the store's folder, too
  // The draft becomes the image, whose description is written; its folder is set.
  Result<Image, std::string> keep(Draft draft, Image image) const;

  // Letters, digits, dots, dashes and underscores, 64 at most, no dot or dash first.
  static bool is_name(const std::string& name);

 private:
  void take_away_leftovers() const;
  std::string folder_;
};

}  // namespace trapline::image
