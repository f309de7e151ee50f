// Where Debian's packages come from: the archives that this host's own apt uses, where it uses any.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace trapline::image {

// Lines of a sources.list for `suite`: its own, updates and security. None: the host's apt has no archive of Debian's, and
// mmdebstrap takes its own. `targets`: lines of URI and release, as `apt-get indextargets` prints them.
std::vector<std::string> sources_for(const std::string& suite, std::string_view targets);

// Asks this host's apt.
std::vector<std::string> sources_for(const std::string& suite);
std::string suite_of_host();  // the host's, if it is a Debian release with a name; else the stable one of this writing

// http_proxy=... and https_proxy=..., where apt is told of a proxy and the environment is not.
std::vector<std::string> proxies_of_apt();

}  // namespace trapline::image
