#pragma once

#include <string>
#include <string_view>

namespace trapline {

// Text as the content of an HTML element or of an attribute in either kind of quotes. Control characters become spaces.
std::string html_escaped(std::string_view text);

}  // namespace trapline
