// `trapline image build`: a bootable disk of Debian's packages, made without root.
//
// mmdebstrap installs the packages in a tree (as root, in a user namespace, or under fakechroot: what this user has)
// and hands it over as an archive. What follows, where files have to be root's, happens under fakeroot: no mount, no
// loop device, no namespace.
#pragma once

#include <string>

#include "base/result.h"
#include "image/recipe.h"
#include "image/store.h"

namespace trapline::image {

struct BuildError {
  int code;          // of this process: channel/exit_codes.h, or 128 + the signal that ended the build
  std::string text;  // one line; empty: nothing is to be said
};

// `spec` passes check(). Progress is on standard error.
Result<Image, BuildError> build(const Store& store, const Spec& spec);

// What a build needs and this host has not, as one line with the command that brings it; or nothing.
std::string missing_for(const Spec& spec);

}  // namespace trapline::image
