#include "compare/report.h"
namespace trapline::compare {
std::string page_of(const Comparison&, const Setting&) { return {}; }
}  // namespace trapline::compare
