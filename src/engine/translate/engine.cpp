#include "engine/translate/engine.h"

#include <algorithm>
#include <cstdlib>

#include "base/invariant.h"
#include "engine/interpret/interpreter.h"
#include "engine/translate/options.h"
#include "engine/translate/translator.h"
#include "engine/verify/lockstep.h"

namespace trapline::engine {

unsigned translate::hot_threshold_of_environment() {
  const char* text = std::getenv("TRAPLINE_HOT");
  return text ? static_cast<unsigned>(std::clamp(std::atoi(text), 1, 1 << 20)) : hot_threshold;
}

translate::Miscompile translate::miscompile_of_environment() {
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

std::string translate_missing() {
#ifdef __SANITIZE_ADDRESS__
  return "room for its tables beside AddressSanitizer's shadow memory";
#else
  return translate::missing_on_host();
#endif
}

std::unique_ptr<Engine> make_translate(cpu::Vcpu& cpu, CodeArena& arena) {
  translate::hot_threshold = translate::hot_threshold_of_environment();
  std::string why;
  std::unique_ptr<interpret::Accelerator> translator = translate::Translator::make(cpu, &why);
  INVARIANT(translator, "engine translate: this host lacks {}; use --engine interpret", why);
  return make_accelerated(cpu, arena, verify::checked(cpu, std::move(translator)));
}

}  // namespace trapline::engine
