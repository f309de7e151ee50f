#include "engine/options.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <utility>

namespace trapline::engine {

namespace {

struct Word {
  std::string_view name;
  bool DebugOptions::*flag;
};
constexpr Word kWords[] = {
    {"nogs", &DebugOptions::no_gs_base},       {"nopext", &DebugOptions::no_pext},
    {"nolink", &DebugOptions::no_links},       {"nosharing", &DebugOptions::no_sharing},
    {"nojumps", &DebugOptions::no_jump_cache}, {"nomove", &DebugOptions::no_moving},
    {"novector", &DebugOptions::no_vectors},   {"nox87", &DebugOptions::no_x87},
    {"noinline", &DebugOptions::no_inline},    {"nothunks", &DebugOptions::no_thunks},
    {"direct", &DebugOptions::direct_always},
};
constexpr std::string_view kMaxBlock = "max-block=";

// False: it is no such number.
bool set_max_block(std::string_view number, DebugOptions& to) {
  u32 n = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), n);
  if (error != std::errc{} || end != number.data() + number.size()) return false;
  if (n < 1 || n > DebugOptions::kMostInsns) return false;
  to.max_block = n;
  return true;
}

bool set(std::string_view word, DebugOptions& to) {
  if (word.starts_with(kMaxBlock)) return set_max_block(word.substr(kMaxBlock.size()), to);
  for (const Word& known : kWords)
    if (known.name == word) {
      to.*known.flag = true;
      return true;
    }
  return false;
}

}  // namespace

Result<DebugOptions, std::string> DebugOptions::parse(std::string_view text) {
  DebugOptions options;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    if (set(word, options)) continue;
    std::string words;
    for (const Word& known : kWords) words += fmt::format("{}, ", known.name);
    return Err{fmt::format("{}: unknown word: give {}{}1 to {}48", word, words, kMaxBlock, kMaxBlock)};
  }
  return options;
}

Miscompile Miscompile::parse(const char* text) {
  Miscompile m;
  char* end = nullptr;
  m.address = Gva{std::strtoull(text, &end, 0)};
  const std::string_view how = *end == ',' ? end + 1 : "";
  constexpr std::pair<std::string_view, How> kHows[] = {
      {"value", How::value}, {"place", How::place}, {"drop", How::drop}, {"reach", How::reach}, {"stale", How::stale}};
  for (const auto& [word, known] : kHows)
    if (how == word) m.how = known;
  return m;
}

}  // namespace trapline::engine
