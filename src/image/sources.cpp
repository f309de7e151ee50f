#include "image/sources.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "image/tool.h"

namespace trapline::image {

namespace {

constexpr const char* kTargets = "$(REPO_URI) $(RELEASE)";
constexpr std::string_view kSecurity = "-security";
constexpr const char* kSuite = "bookworm";

std::string without_slash(std::string uri) {
  while (uri.ends_with('/')) uri.pop_back();
  return uri;
}

bool has_updates(const std::string& suite) { return suite != "sid" && suite != "unstable"; }

}  // namespace

std::vector<std::string> sources_for(const std::string& suite, std::string_view targets) {
  std::string archive, security;
  std::istringstream in{std::string{targets}};
  for (std::string uri, release; in >> uri >> release;) {
    uri = without_slash(uri);
    if (uri.find("://") == std::string::npos || uri.starts_with("cdrom:")) continue;
    if (uri.ends_with("/debian-security") || release.ends_with(kSecurity)) {
      if (security.empty()) security = uri;
    } else if (uri.ends_with("/debian") && archive.empty()) {
      archive = uri;
    }
  }
  if (archive.empty()) return {};
  if (security.empty()) security = archive + std::string{kSecurity};
  std::vector<std::string> lines{fmt::format("deb {} {} main", archive, suite)};
  if (!has_updates(suite)) return lines;
  lines.push_back(fmt::format("deb {} {}-updates main", archive, suite));
  lines.push_back(fmt::format("deb {} {}{} main", security, suite, kSecurity));
  return lines;
}

std::vector<std::string> sources_for(const std::string& suite) {
  const std::string tool = find_tool("apt-get");
  return sources_for(suite, tool.empty()
                                ? std::string{}
                                : output_of({tool, "indextargets", "--format", kTargets, "Created-By: Packages"}));
}

std::string suite_of_host() {
  std::ifstream file{"/etc/os-release"};
  std::string id, codename;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("ID=")) id = line.substr(3);
    if (line.starts_with("VERSION_CODENAME=")) codename = line.substr(17);
  }
  const bool plain =
      !codename.empty() && std::all_of(codename.begin(), codename.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  return id == "debian" && plain ? codename : kSuite;
}

std::vector<std::string> proxies_of_apt() {
  std::vector<std::string> all;
  const std::string tool = find_tool("apt-config");
  if (tool.empty()) return all;
  for (const char* scheme : {"http", "https"}) {
    const std::string variable = fmt::format("{}_proxy", scheme);
    if (::getenv(variable.c_str())) continue;
    // PROXY='http://...'
    const std::string text = output_of({tool, "shell", "PROXY", fmt::format("Acquire::{}::Proxy", scheme)});
    const auto first = text.find('\''), last = text.rfind('\'');
    if (first == std::string::npos || last <= first + 1) continue;
    const std::string proxy = text.substr(first + 1, last - first - 1);
    if (proxy != "DIRECT" && proxy != "false") all.push_back(fmt::format("{}={}", variable, proxy));
  }
  return all;
}

}  // namespace trapline::image
