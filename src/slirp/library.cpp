#include "slirp/library.h"

#include <dlfcn.h>
#include <fmt/format.h>

namespace trapline::slirp {

Result<Library, std::string> Library::load() {
  void* handle = ::dlopen("libslirp.so.0", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return Err{fmt::format("{}: install libslirp0", ::dlerror())};
  Library library{};
  std::string missing;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(handle, name));
    if (function == nullptr) missing = name;
  };
  find(library.make, "slirp_new");
  find(library.cleanup, "slirp_cleanup");
  find(library.input, "slirp_input");
  find(library.fill, "slirp_pollfds_fill");
  find(library.poll, "slirp_pollfds_poll");
  find(library.add_forward, "slirp_add_hostfwd");
  find(library.handle_timer, "slirp_handle_timer");
  if (!missing.empty()) return Err{fmt::format("libslirp has no {}: install version 4.7 or later", missing)};
  return library;
}

}  // namespace trapline::slirp
