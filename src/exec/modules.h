// The modules of a kernel that a VM needs, in the order in which they load.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "exec/content.h"

namespace trapline::exec {

struct Module {
  std::string name;
  Content content;  // unpacked, without its signature
};

// `directory`: /lib/modules/VERSION, with modules.dep and modules.builtin as depmod(8) writes them. An error is one line
// that names what is missing.
Result<std::vector<Module>, std::string> needed_modules(const std::string& directory,
                                                        std::span<const std::string_view> wanted);

// The paths in modules.dep of `wanted` and all they depend on, each once, each behind what it depends on. Those in
// `builtin` need none.
Result<std::vector<std::string>, std::string> load_order(std::string_view dependencies, std::string_view builtin,
                                                         std::span<const std::string_view> wanted);

// Checking signatures takes a slow machine longer than all the rest of loading, and there is nobody here to convince.
// The size without the signature, of a module that ends in `tail` and has `size` bytes.
u64 unsigned_size(std::span<const u8> tail, u64 size);

}  // namespace trapline::exec
