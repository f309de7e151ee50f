#include "isa/vendor.h"

#include <cpuid.h>

namespace trapline::isa {

Vendor host_vendor() {
  static const Vendor vendor = [] {
    u32 a = 0, b = 0, c = 0, d = 0;
    __get_cpuid(0, &a, &b, &c, &d);
    return vendor_of_name(b);
  }();
  return vendor;
}

}  // namespace trapline::isa
