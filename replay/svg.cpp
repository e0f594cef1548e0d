// SPDX-License-Identifier: Apache-2.0
#include "replay/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

namespace depthkv {
namespace {

constexpr double kWidth = 640;
constexpr double kHeight = 360;
constexpr double kLeft = 64;
constexpr double kRight = 180;  // room for the legend
constexpr double kTop = 36;
constexpr double kBottom = 44;
constexpr int kTicks = 5;
constexpr int kShades = 16;
// Okabe and Ito's palette, told apart with any colour vision; the last one follows the page's text.
constexpr std::array<const char*, 8> kColours{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                              "#e69f00", "#56b4e9", "#8c6d31", "currentColor"};

// Of a page of its own: text that browsers show in the reader's colours, light or dark.
constexpr const char* kStyle =
    ":root{color-scheme:light dark}text{font:12px "
    "system-ui,sans-serif;fill:currentColor}.title{font-weight:600;font-size:13px}"
    ".small{font-size:10px;opacity:.8}.grid{stroke:#8884}.band{fill:#e69f00;fill-opacity:.3}.bound{fill:#d55e00}"
    ".frame{fill:none;stroke:#8888}";

bool finite(const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second);
}

struct Axis {
  double low = 0;
  double high = 1;
  double from = 0;  // pixels of low and high
  double to = 1;

  double at(double value) const { return from + (value - low) / (high - low) * (to - from); }
  // About kTicks round numbers within the axis.
  std::vector<double> ticks() const {
    const double rough = (high - low) / kTicks;
    const double power = std::pow(10, std::floor(std::log10(rough)));
    double step = 10 * power;
    for (const double times : {5.0, 2.0, 1.0})
      if (times * power >= 0.75 * rough) step = times * power;
    std::vector<double> found;
    for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i)
      found.push_back(i * step + 0.0);  // never -0
    return found;
  }
};

template <class Coordinate>
Axis fit(const Plot& plot, Coordinate coordinate, double from, double to) {
  Axis axis{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), from, to};
  const auto take = [&](const std::pair<double, double>& point) {
    if (!finite(point)) return;
    axis.low = std::min(axis.low, coordinate(point));
    axis.high = std::max(axis.high, coordinate(point));
  };
  for (const Series& series : plot.series) {
    for (const auto& point : series.points) take(point);
    for (std::size_t i = 0; i < series.spread.size(); ++i)
      for (const double end : {series.spread[i].low, series.spread[i].high}) take({series.points[i].first, end});
  }
  if (!(axis.low <= axis.high)) axis.low = axis.high = 0;  // no point at all
  if (axis.low == axis.high) axis.high = axis.low + 1;
  const double margin = (axis.high - axis.low) / 40;  // dots and whiskers stay inside
  axis.low -= margin;
  axis.high += margin;
  return axis;
}

std::string draw_labels(const Plot& plot, double left, double right) {
  std::string text = fmt::format("<text class=\"title\" x=\"{:.1f}\" y=\"20\">{}</text>", left, escaped(plot.title));
  text += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", (left + right) / 2,
                      kHeight - 8, escaped(plot.x_label));
  text += fmt::format("<text transform=\"translate(14 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
                      (kTop + kHeight - kBottom) / 2, escaped(plot.y_label));
  return text;
}

std::string draw_axes(const Plot& plot, const Axis& x, const Axis& y) {
  std::string text;
  for (const double tick : y.ticks()) {
    text += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>", x.from,
                        x.to, y.at(tick));
    text += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{:.6g}</text>", x.from - 6, y.at(tick) + 4,
                        tick);
  }
  for (const double tick : x.ticks())
    text += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:.6g}</text>", x.at(tick), y.from + 16,
                        tick);
  return text + draw_labels(plot, x.from, x.to);
}

std::string draw_whiskers(const Series& series, const char* colour, const Axis& x, const Axis& y) {
  std::string path;
  for (std::size_t i = 0; i < series.spread.size(); ++i) {
    const auto [low, high] = series.spread[i];
    if (!std::isfinite(series.points[i].first) || !std::isfinite(low) || !std::isfinite(high)) continue;
    path += fmt::format("M{0:.1f} {1:.1f}V{2:.1f}m-3 0h6M{3:.1f} {1:.1f}h6", x.at(series.points[i].first), y.at(low),
                        y.at(high), x.at(series.points[i].first) - 3);
  }
  return path.empty() ? "" : fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" opacity=\".6\"/>", path, colour);
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
  const char* dash = series.dashed              ? " stroke-dasharray=\"6 4\""
                     : index >= kColours.size() ? " stroke-dasharray=\"2 3\""  // the colour's second series
                                                : "";
  if (plot.lines)
    text += fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"{}/>", path, colour, dash);
  const double legend = kTop + 8 + 16 * static_cast<double>(index);
  text += draw_whiskers(series, colour, x, y) + dots;
  text += fmt::format(
      "<line x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\" stroke-width=\"2.5\"{4}/>",
      kWidth - kRight + 12, kWidth - kRight + 30, legend, colour, dash);
  text +=
      fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", kWidth - kRight + 36, legend + 4, escaped(series.name));
  return text;
}

std::string draw_bands(const std::vector<Band>& bands, const Axis& x) {
  std::string text;
  for (const Band& band : bands) {
    if (band.from < x.low || band.from > x.high) continue;
    const double left = x.at(band.from);
    const double right = x.at(std::min(band.to, x.high));
    text += band.from < band.to
                ? fmt::format("<rect class=\"band\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\">",
                              left, kTop, std::max(1.0, right - left), kHeight - kBottom - kTop)
                : fmt::format("<rect class=\"bound\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"1\" height=\"{:.1f}\">", left,
                              kTop, kHeight - kBottom - kTop);
    text += fmt::format("<title>{}</title></rect>", escaped(band.name));
    if (band.from == band.to) {
      text += fmt::format("<text class=\"small\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", left + 3, kTop + 10,
                          escaped(band.name));
    }
  }
  return text;
}

// Cells of one shade as one path, runs of them as one rectangle each.
std::string draw_shade(const HeatMap& map, int level, double cell_width, double cell_height) {
  const auto level_at = [&](std::size_t cell) { return static_cast<int>(std::lround(map.shades[cell] * kShades)); };
  std::string path;
  for (std::size_t row = 0; row < map.row_labels.size(); ++row) {
    for (std::size_t column = 0; column < map.columns;) {
      std::size_t end = column;
      while (end < map.columns && level_at(row * map.columns + end) == level) ++end;
      if (end > column) {
        path +=
            fmt::format("M{:.1f} {:.1f}h{:.1f}v{:.1f}h-{:.1f}z", kLeft + static_cast<double>(column) * cell_width,
                        kTop + static_cast<double>(row) * cell_height, static_cast<double>(end - column) * cell_width,
                        cell_height, static_cast<double>(end - column) * cell_width);
      }
      column = std::max(end, column + 1);
    }
  }
  return path.empty() ? ""
                      : fmt::format("<path d=\"{}\" fill=\"{}\" fill-opacity=\"{:.3f}\"/>", path, kColours[0],
                                    static_cast<double>(level) / kShades);
}

}  // namespace

std::string draw(const HeatMap& map) {
  const Axis x{0, map.width, kLeft, kWidth - kRight};
  const auto rows = static_cast<double>(map.row_labels.size());
  const double cell_width = (x.to - x.from) / static_cast<double>(map.columns);
  const double cell_height = (kHeight - kBottom - kTop) / rows;
  std::string text = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\">", kWidth, kHeight);
  for (int level = 1; level <= kShades; ++level) text += draw_shade(map, level, cell_width, cell_height);
  for (const double tick : x.ticks())
    text += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:.0f}</text>", x.at(tick),
                        kHeight - kBottom + 16, tick);
  for (int i = 0; i <= kTicks; ++i) {
    const double row = std::min(rows - 1, std::floor(rows * i / kTicks));
    text += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", kLeft - 6,
                        kTop + (row + 0.5) * cell_height + 4, escaped(map.row_labels[static_cast<std::size_t>(row)]));
  }
  text += fmt::format("<rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>", kLeft, kTop,
                      x.to - x.from, kHeight - kBottom - kTop);
  text += draw_bands(map.bands, x) + draw_labels({map.title, map.x_label, map.y_label, {}}, x.from, x.to);
  text += fmt::format("<text class=\"small\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", x.to, kTop - 4,
                      escaped(map.scale));
  return text + "</svg>\n";
}

std::string svg_page(const std::string& title, const std::vector<std::string>& drawings) {
  constexpr std::string_view kOpening = "<svg ";
  std::string text = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" "
      "role=\"img\"><title>{}</title><style>{}</style>\n",
      kWidth, kHeight * static_cast<double>(drawings.size()), escaped(title), kStyle);
  for (std::size_t i = 0; i < drawings.size(); ++i) {
    text += fmt::format("<svg y=\"{}\" width=\"{}\" height=\"{}\" {}", kHeight * static_cast<double>(i), kWidth,
                        kHeight, drawings[i].substr(kOpening.size()));
  }
  return text + "</svg>\n";
}

std::string draw(const Plot& plot) {
  const Axis x = fit(
      plot, [](const auto& point) { return point.first; }, kLeft, kWidth - kRight);
  const Axis y = fit(
      plot, [](const auto& point) { return point.second; }, kHeight - kBottom, kTop);
  std::string text = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\">", kWidth, kHeight);
  text += draw_bands(plot.bands, x) + draw_axes(plot, x, y);
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
