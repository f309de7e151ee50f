// The parts of the page's plots: SVG as text, with colours by the page's classes so that it is legible on light and dark.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace trapline::compare {

struct Segment {
  double value = 0;
  std::string_view cls;  // a class of the page's style
  std::string title;     // what a pointer over it shows
};

// One horizontal bar: segments one behind the other, a whisker from `least` to `most`, points, and a label at its end.
struct Bar {
  std::string name, label;
  std::vector<Segment> segments;
  double least = 0, most = 0;  // equal: no whisker
  std::vector<double> points;
};

struct PlotOptions {
  unsigned width = 760, name_width = 150, label_width = 130, row = 30;
  std::string unit;  // of the axis; empty: no axis
};

// A plot of bars over one linear axis from 0. `description` is for those who do not see it.
std::string bars(const std::vector<Bar>& all, const PlotOptions& options, std::string_view description);

// 1, 2 or 5 times a power of ten: about `most` / 5.
double tick_of(double most);

}  // namespace trapline::compare
