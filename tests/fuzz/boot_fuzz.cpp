// The whole of boot() with mutated kernels, initrds, modules and command lines.
#include "boot_input.h"

using namespace trapline;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  fuzz::BootHead head;
  boot::Bytes kernel;
  if (fuzz::split(data, size, &head, &kernel)) fuzz::boot_once(head, kernel);
  return 0;
}
