#include "engine/translate/engine.h"

#include "base/invariant.h"
#include "engine/interpret/interpreter.h"
#include "engine/translate/translator.h"

namespace trapline::engine {

std::unique_ptr<Engine> make_translate(cpu::Vcpu& cpu, CodeArena& arena) {
  std::string why;
  std::unique_ptr<interpret::Accelerator> translator = translate::Translator::make(cpu, &why);
  INVARIANT(translator, "engine translate: this host lacks {}; use --engine interpret", why);
  return make_accelerated(cpu, arena, std::move(translator));
}

}  // namespace trapline::engine
