// SPDX-License-Identifier: Apache-2.0
// Small plots as SVG text.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace depthkv {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // points that are not finite are left out
  bool dashed = false;
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Series> series;
  bool lines = true;  // false: dots only
};

std::string draw(const Plot& plot);

// Text made safe for HTML and SVG: markup and control characters are replaced.
std::string escaped(const std::string& text);

}  // namespace depthkv
