// The parts of the HTML report, from src/scan/html/.
#pragma once

namespace trapline::scan {

extern const char* const kPageHtml;
extern const char* const kPageStyle;
extern const char* const kPageScript;

}  // namespace trapline::scan
