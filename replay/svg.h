// SPDX-License-Identifier: Apache-2.0
// Small plots as SVG text.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "depthkv/stats.h"

namespace depthkv {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // points that are not finite are left out
  bool dashed = false;
  std::vector<Interval> spread = {};  // of each point, drawn as a whisker; empty: none
};

// A part of the horizontal axis: shaded, or a line where from == to.
struct Band {
  double from = 0;
  double to = 0;
  std::string name;
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Series> series;
  bool lines = true;  // false: dots only
  std::vector<Band> bands = {};
};

// A matrix of shades; rows run downwards.
struct HeatMap {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::string scale = {};  // what the shades mean
  std::size_t columns = 0;
  double width = 0;                          // what the columns span together, for the axis and the bands
  std::vector<std::string> row_labels = {};  // one per row
  std::vector<double> shades = {};           // [row, column], 0 (white) to 1
  std::vector<Band> bands = {};
};

std::string draw(const Plot& plot);
std::string draw(const HeatMap& map);

// A file of its own: drawings one below the other, with the style that an HTML page would have given them.
std::string svg_page(const std::string& title, const std::vector<std::string>& drawings);

// Text made safe for HTML and SVG: markup and control characters are replaced.
std::string escaped(const std::string& text);

}  // namespace depthkv
