#include "compare/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/html.h"

namespace trapline::compare {

namespace {

double reach(const std::vector<Bar>& all) {
  double most = 0;
  for (const Bar& bar : all) {
    double sum = 0;
    for (const Segment& s : bar.segments) sum += s.value;
    most = std::max({most, sum, bar.most});
    for (const double p : bar.points) most = std::max(most, p);
  }
  return most > 0 ? most : 1;
}

std::string tick_label(double value) {
  return value >= 1e6 ? fmt::format("{:g} M", value / 1e6) : fmt::format("{:g}", value);
}

std::string axis(double most, double scale, const PlotOptions& o, unsigned height) {
  std::string svg;
  const double tick = tick_of(most);
  for (unsigned i = 0; i * tick <= most * 1.001; i++) {
    const double x = o.name_width + i * tick * scale;
    svg += fmt::format("<line class='grid' x1='{0:.1f}' x2='{0:.1f}' y1='0' y2='{1}'/>", x, height - 20);
    svg += fmt::format("<text class='tick' x='{:.1f}' y='{}' text-anchor='middle'>{}</text>", x, height - 5,
                       tick_label(i * tick));
  }
  svg += fmt::format("<text class='tick' x='{}' y='{}' text-anchor='end'>{}</text>", o.width, height - 5,
                     html_escaped(o.unit));
  return svg;
}

std::string one_bar(const Bar& bar, double scale, const PlotOptions& o, double top) {
  const double thick = o.row * 0.56, y = top + (o.row - thick) / 2, middle = top + o.row / 2.0;
  std::string svg = fmt::format("<text class='name' x='{}' y='{:.1f}' text-anchor='end'>{}</text>", o.name_width - 10,
                                middle + 4, html_escaped(bar.name));
  double x = o.name_width;
  for (const Segment& s : bar.segments) {
    const double width = s.value * scale;
    svg += fmt::format("<rect class='{}' x='{:.2f}' y='{:.1f}' width='{:.2f}' height='{:.1f}'><title>{}</title></rect>",
                       s.cls, x, y, width, thick, html_escaped(s.title));
    x += width;
  }
  double end = x;
  if (bar.most > bar.least) {
    const double from = o.name_width + bar.least * scale, to = o.name_width + bar.most * scale;
    svg += fmt::format(
        "<path class='whisker' d='M{0:.1f} {2:.1f}V{3:.1f}M{0:.1f} {4:.1f}H{1:.1f}M{1:.1f} {2:.1f}V{3:.1f}'/>", from,
        to, middle - 5, middle + 5, middle);
    end = std::max(end, to);
  }
  for (const double p : bar.points) {
    const double at = o.name_width + p * scale;
    svg += fmt::format("<circle class='point' cx='{:.1f}' cy='{:.1f}' r='2.6'/>", at, middle);
    end = std::max(end, at + 2);
  }
  return svg + fmt::format("<text class='label' x='{:.1f}' y='{:.1f}'>{}</text>", end + 8, middle + 4,
                           html_escaped(bar.label));
}

}  // namespace

double tick_of(double most) {
  const double rough = most / 5, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double step : {1.0, 2.0, 5.0})
    if (step * power >= rough) return step * power;
  return 10 * power;
}

std::string bars(const std::vector<Bar>& all, const PlotOptions& o, std::string_view description) {
  const double most = reach(all), scale = (o.width - o.name_width - o.label_width) / most;
  const unsigned height = static_cast<unsigned>(all.size()) * o.row + (o.unit.empty() ? 0 : 24);
  std::string svg =
      fmt::format("<svg viewBox='0 0 {} {}' role='img' aria-label='{}'>", o.width, height, html_escaped(description));
  if (!o.unit.empty()) svg += axis(most, scale, o, height);
  for (std::size_t i = 0; i < all.size(); i++) svg += one_bar(all[i], scale, o, static_cast<double>(i) * o.row);
  return svg + "</svg>\n";
}

}  // namespace trapline::compare
