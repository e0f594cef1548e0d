// SPDX-License-Identifier: Apache-2.0
// The terminal's and the page's version of a sample view. Both have a logarithmic scale: a few positions receive most
// of the attention, and the rest is what pruning is about.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "cli/sample_view.h"
#include "replay/svg.h"

namespace depthkv {
namespace {

constexpr int kBarRows = 6;
constexpr int kLabel = 7;       // columns before a map's rows
constexpr double kDecades = 4;  // from the darkest to the lightest shade
constexpr std::array<std::string_view, 9> kBars{" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array<std::string_view, 9> kPlainBars{" ", ".", ".", ".", ":", ":", ":", "#", "#"};
constexpr std::array<std::string_view, 5> kShades{" ", "░", "▒", "▓", "█"};
constexpr std::array<std::string_view, 8> kPlainShades{" ", ".", ":", "-", "=", "+", "#", "@"};

// 0 at the bottom of the scale or below, 1 at `top`.
double height(double value, double top) {
  if (!(value > 0)) return 0;
  return std::clamp(1 + std::log10(value / top) / kDecades, 0.0, 1.0);
}

double largest(const std::vector<double>& values) {
  double top = 0;
  for (const double value : values) {
    if (std::isfinite(value)) top = std::max(top, value);
  }
  return top > 0 ? top : 1;
}

std::string heading(const Drawing& drawing, const char* what) {
  const ViewOptions& options = drawing.options;
  return fmt::format("{}, layer {}, {}, cut {} ({} positions)", what, options.layer,
                     options.head ? fmt::format("head {}", *options.head) : "mean over heads", to_string(options.cut),
                     drawing.trace.sample().segments.at(options.cut));
}

using Starts = std::array<std::pair<std::int64_t, std::string>, 3>;
Starts starts_of(const Segments& segments) {
  return {{{segments.context.begin, "context"}, {segments.context.end, "question"}, {segments.prompt_end, "answer"}}};
}

// Two lines below a row of bins: evidence and the beginnings of segments.
std::string ruler(const Sample& sample, const Bins& bins, const std::string& indent) {
  std::string marks(static_cast<std::size_t>(bins.count), ' ');
  for (std::int64_t bin = 0; bin < bins.count; ++bin) {
    for (const Span& span : sample.evidence) {
      if (bins.overlaps(bin, span)) marks[static_cast<std::size_t>(bin)] = '^';
    }
  }
  std::string names(static_cast<std::size_t>(bins.count), ' ');
  for (const auto& [position, name] : starts_of(sample.segments)) {
    if (position >= bins.size) continue;
    const auto at = static_cast<std::size_t>(bins.of(position));
    const std::string mark = "|" + name;
    names.replace(at, mark.size(), mark.substr(0, names.size() - at));
  }
  std::string text;
  if (!sample.evidence.empty()) text += indent + marks + "  ^ evidence\n";
  return text + indent + names + "\n";
}

std::string text_of(const Profile& profile, const Drawing& drawing, bool utf8) {
  const double top = largest(profile.values);
  const auto& bars = utf8 ? kBars : kPlainBars;
  std::string text = heading(drawing, "attention received per position") + "\n";
  for (int row = kBarRows - 1; row >= 0; --row) {
    text += fmt::format("{:>{}.1e} ", top * std::pow(10, -kDecades * (kBarRows - 1 - row) / kBarRows), kLabel);
    for (const double value : profile.values) {
      const double eighths = height(value, top) * kBarRows * 8 - row * 8;
      text += bars[static_cast<std::size_t>(std::clamp(std::lround(eighths), 0L, 8L))];
    }
    text += "\n";
  }
  return text + ruler(drawing.trace.sample(), profile.bins, std::string(kLabel + 1, ' '));
}

template <std::size_t N>
std::string_view shade(const std::array<std::string_view, N>& shades, double level) {
  return shades[static_cast<std::size_t>(std::lround(level * static_cast<double>(N - 1)))];
}

std::string text_of(const AttentionMap& map, const Drawing& drawing, bool utf8) {
  const double top = largest(map.values);
  const Starts starts = starts_of(drawing.trace.sample().segments);
  const auto shade_of = [&](double level) { return utf8 ? shade(kShades, level) : shade(kPlainShades, level); };
  std::string text = heading(drawing, "attention") + fmt::format(", {}: {} query rows\n", map.source, map.rows.size());
  for (std::int64_t row = 0; row < map.row_bins.count; ++row) {
    const std::int64_t begin = map.rows[static_cast<std::size_t>(map.row_bins.first(row))];
    const std::int64_t end = map.rows[static_cast<std::size_t>(map.row_bins.first(row + 1) - 1)] + 1;
    const bool bound = std::any_of(starts.begin(), starts.end(),
                                   [&](const auto& start) { return start.first >= begin && start.first < end; });
    text += fmt::format("{:>{}}{}", begin, kLabel, bound ? '-' : ' ');
    for (std::int64_t key = 0; key < map.key_bins.count; ++key) text += shade_of(height(map.at(row, key), top));
    text += "\n";
  }
  text += ruler(drawing.trace.sample(), map.key_bins, std::string(kLabel + 1, ' '));
  text += fmt::format("share of a row's attention: '{}' {:.1e} or less", shade_of(0), top * std::pow(10, -kDecades));
  for (int i = 1; i <= 4; ++i)
    text += fmt::format(", '{}' {:.1e}", shade_of(i / 4.0), top * std::pow(10, i - kDecades));
  return text + "; - a segment begins\n";
}

std::vector<Band> bands_of(const Sample& sample) {
  std::vector<Band> bands;
  for (const Span& span : sample.evidence)
    bands.push_back({static_cast<double>(span.begin), static_cast<double>(span.end), "evidence"});
  for (const auto& [position, name] : starts_of(sample.segments))
    bands.push_back({static_cast<double>(position), static_cast<double>(position), name});
  return bands;
}

Plot plot_of(const Profile& profile, const Drawing& drawing) {
  Plot plot{heading(drawing, "attention received"), "position", "log10 of the mean per position", {}};
  Series series{"column sums", {}};
  for (std::int64_t bin = 0; bin < profile.bins.count; ++bin) {
    const double middle = static_cast<double>(profile.bins.first(bin) + profile.bins.first(bin + 1) - 1) / 2;
    series.points.emplace_back(middle, std::log10(profile.values[static_cast<std::size_t>(bin)]));
  }
  plot.series.push_back(series);
  plot.bands = bands_of(drawing.trace.sample());
  return plot;
}

HeatMap heat_map_of(const AttentionMap& map, const Drawing& drawing) {
  HeatMap heat{heading(drawing, "attention") + ", " + map.source, "key position", "query position"};
  const double top = largest(map.values);
  heat.columns = static_cast<std::size_t>(map.key_bins.count);
  heat.width = static_cast<double>(map.key_bins.size);
  for (std::int64_t row = 0; row < map.row_bins.count; ++row)
    heat.row_labels.push_back(fmt::format("{}", map.rows[static_cast<std::size_t>(map.row_bins.first(row))]));
  for (const double value : map.values) heat.shades.push_back(height(value, top));
  heat.bands = bands_of(drawing.trace.sample());
  heat.scale = fmt::format("log scale, {:.1e} to {:.1e} of a row's attention", top * std::pow(10, -kDecades), top);
  return heat;
}

}  // namespace

std::string draw_text(const Drawing& drawing, bool utf8) {
  std::string text;
  if (drawing.profile) text += text_of(*drawing.profile, drawing, utf8);
  if (drawing.profile && drawing.map) text += "\n";
  if (drawing.map) text += text_of(*drawing.map, drawing, utf8);
  return text;
}

std::string draw_svg(const Drawing& drawing) {
  std::vector<std::string> drawings;
  if (drawing.profile) drawings.push_back(draw(plot_of(*drawing.profile, drawing)));
  if (drawing.map) drawings.push_back(draw(heat_map_of(*drawing.map, drawing)));
  return svg_page(drawing.trace.sample().id + ", " + drawing.trace.model().name, drawings);
}

}  // namespace depthkv
