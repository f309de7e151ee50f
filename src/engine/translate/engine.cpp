#include "engine/translate/engine.h"

#include <fmt/format.h>

#include <utility>

#include "base/host_refused.h"
#include "engine/hostcode/host.h"
#include "engine/interpret/interpreter.h"
#include "engine/translate/translator.h"
#include "engine/verify/lockstep.h"

namespace trapline::engine {

std::string translate_lacks() {
#ifdef __SANITIZE_ADDRESS__
  return "room for its tables beside AddressSanitizer's shadow memory";
#else
  return hostcode::missing_on_host();
#endif
}

std::unique_ptr<Engine> make_translate(cpu::Vcpu& cpu, CodeArena& arena, const VcpuSpace& space,
                                       const EngineOptions& options) {
  std::string why;
  std::unique_ptr<Accelerator> translator = translate::Translator::make(cpu, space, options, &why);
  if (!translator) throw HostRefused{fmt::format("engine translate: this host lacks {}: use --engine interpret", why)};
  return make_accelerated(cpu, arena, verify::checked(cpu, std::move(translator), options.on_difference));
}

}  // namespace trapline::engine
