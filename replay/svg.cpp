// SPDX-License-Identifier: Apache-2.0
#include "replay/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace depthkv {
namespace {

constexpr double kWidth = 640;
constexpr double kHeight = 360;
constexpr double kLeft = 64;
constexpr double kRight = 180;  // room for the legend
constexpr double kTop = 36;
constexpr double kBottom = 44;
constexpr int kTicks = 5;
// Okabe and Ito's palette, told apart with any colour vision; the last one follows the page's text.
constexpr std::array<const char*, 8> kColours{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                              "#e69f00", "#56b4e9", "#8c6d31", "currentColor"};

bool finite(const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second);
}

struct Axis {
  double low = 0;
  double high = 1;
  double from = 0;  // pixels of low and high
  double to = 1;

  double at(double value) const { return from + (value - low) / (high - low) * (to - from); }
  double tick(int i) const { return low + (high - low) * i / kTicks; }
};

template <class Coordinate>
Axis fit(const Plot& plot, Coordinate coordinate, double from, double to) {
  Axis axis{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), from, to};
  for (const Series& series : plot.series) {
    for (const auto& point : series.points) {
      if (!finite(point)) continue;
      axis.low = std::min(axis.low, coordinate(point));
      axis.high = std::max(axis.high, coordinate(point));
    }
  }
  if (!(axis.low <= axis.high)) axis.low = axis.high = 0;  // no point at all
  if (axis.low == axis.high) axis.high = axis.low + 1;
  return axis;
}

std::string draw_axes(const Plot& plot, const Axis& x, const Axis& y) {
  std::string text;
  for (int i = 0; i <= kTicks; ++i) {
    text += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>", x.from,
                        x.to, y.at(y.tick(i)));
    text += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{:.3g}</text>", x.from - 6,
                        y.at(y.tick(i)) + 4, y.tick(i));
    text += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:.3g}</text>", x.at(x.tick(i)),
                        y.from + 16, x.tick(i));
  }
  text += fmt::format("<text class=\"title\" x=\"{:.1f}\" y=\"20\">{}</text>", x.from, escaped(plot.title));
  text += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", (x.from + x.to) / 2,
                      kHeight - 8, escaped(plot.x_label));
  text += fmt::format("<text transform=\"translate(14 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
                      (y.from + y.to) / 2, escaped(plot.y_label));
  return text;
}

std::string draw_series(const Plot& plot, std::size_t index, const Axis& x, const Axis& y) {
  const Series& series = plot.series[index];
  const char* colour = kColours[index % kColours.size()];
  std::string path;
  std::string dots;
  for (const auto& point : series.points) {
    if (!finite(point)) continue;
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x.at(point.first), y.at(point.second));
    dots += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"><title>{}: {:.4g}, {:.4g}</title></circle>",
        x.at(point.first), y.at(point.second), colour, escaped(series.name), point.first, point.second);
  }
  std::string text;
  const char* dash = series.dashed ? " stroke-dasharray=\"6 4\"" : "";
  if (plot.lines)
    text += fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"{}/>", path, colour, dash);
  const double legend = kTop + 8 + 16 * static_cast<double>(index);
  text += dots;
  text += fmt::format(
      "<line x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\" stroke-width=\"2.5\"{4}/>",
      kWidth - kRight + 12, kWidth - kRight + 30, legend, colour, dash);
  text +=
      fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", kWidth - kRight + 36, legend + 4, escaped(series.name));
  return text;
}

}  // namespace

std::string draw(const Plot& plot) {
  const Axis x = fit(
      plot, [](const auto& point) { return point.first; }, kLeft, kWidth - kRight);
  const Axis y = fit(
      plot, [](const auto& point) { return point.second; }, kHeight - kBottom, kTop);
  std::string text = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\">", kWidth, kHeight);
  text += draw_axes(plot, x, y);
  for (std::size_t i = 0; i < plot.series.size(); ++i) text += draw_series(plot, i, x, y);
  return text + "</svg>\n";
}

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      default:
        safe += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
    }
  }
  return safe;
}

}  // namespace depthkv
