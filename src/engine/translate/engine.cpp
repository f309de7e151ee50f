#include "engine/translate/engine.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/host_refused.h"
#include "engine/interpret/interpreter.h"
#include "engine/hostcode/host.h"
#include "engine/hostcode/options.h"
#include "engine/translate/translator.h"
#include "engine/verify/lockstep.h"

namespace trapline::engine {

unsigned hostcode::hot_threshold_of_environment() {
  const char* text = std::getenv("TRAPLINE_HOT");
  return text ? static_cast<unsigned>(std::clamp(std::atoi(text), 1, 1 << 20)) : hot_threshold;
}

hostcode::Miscompile hostcode::miscompile_of_environment() {
  Miscompile m;
  const char* text = std::getenv("TRAPLINE_MISCOMPILE");
  if (!text) return m;
  char* end = nullptr;
  m.address = std::strtoull(text, &end, 0);
  const std::string how = end && *end == ',' ? end + 1 : "";
  m.how = how == "value"   ? Miscompile::How::value
          : how == "place" ? Miscompile::How::place
          : how == "drop"  ? Miscompile::How::drop
                           : Miscompile::How::none;
  return m;
}

Result<u32, std::string> hostcode::debug_of_environment() {
  constexpr std::pair<std::string_view, u32> kWords[] = {
      {"nogs", debug_option::no_gs_base},
      {"nopext", debug_option::no_pext},
  };
  const char* text = std::getenv("TRAPLINE_DEBUG");
  u32 chosen = 0;
  for (std::string_view rest = text ? text : ""; !rest.empty();) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    const auto* known = std::find_if(std::begin(kWords), std::end(kWords), [&](auto& w) { return w.first == word; });
    if (known == std::end(kWords)) {
      std::string words;
      for (const auto& w : kWords) words += (words.empty() ? "" : ", ") + std::string{w.first};
      return Err{fmt::format("TRAPLINE_DEBUG={}: unknown word: {}", word, words)};
    }
    chosen |= known->second;
  }
  return chosen;
}

std::string translate_lacks() {
#ifdef __SANITIZE_ADDRESS__
  return "room for its tables beside AddressSanitizer's shadow memory";
#else
  return hostcode::missing_on_host();
#endif
}

std::unique_ptr<Engine> make_translate(cpu::Vcpu& cpu, CodeArena& arena, const VcpuSpace& space) {
  hostcode::hot_threshold = hostcode::hot_threshold_of_environment();
  std::string why;
  std::unique_ptr<interpret::Accelerator> translator = translate::Translator::make(cpu, space, &why);
  if (!translator) throw HostRefused{fmt::format("engine translate: this host lacks {}: use --engine interpret", why)};
  return make_accelerated(cpu, arena, verify::checked(cpu, std::move(translator)));
}

}  // namespace trapline::engine
