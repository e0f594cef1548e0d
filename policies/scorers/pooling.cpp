// SPDX-License-Identifier: Apache-2.0
#include "policies/scorers/pooling.h"

#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"

namespace depthkv {

Observed last_rows(const LayerFeatures& layer, std::int64_t count) {
  const std::int64_t rows = std::min(count, layer.tokens);
  return {layer.window.row_range(layer.window.rows - rows, rows), layer.tokens - rows};
}

std::int64_t take_window(Params& params, std::int64_t fallback) {
  return params.take_in("window", fallback, std::int64_t{1}, std::int64_t{128});
}

std::int64_t take_kernel(Params& params, const std::string& scorer, std::int64_t fallback) {
  const std::int64_t kernel = params.take_in("kernel", fallback, std::int64_t{1}, std::int64_t{1023});
  if (kernel % 2 == 0) {
    throw InputError(
        fmt::format("scorer {}: kernel is {}, expected an odd number: the entry itself is the middle", scorer, kernel));
  }
  return kernel;
}

void pool(std::span<float> row, std::int64_t length, std::int64_t kernel, Pool kind) {
  const std::vector<float> in(row.begin(), row.begin() + length);
  const std::int64_t reach = kernel / 2;
  for (std::int64_t j = 0; j < length; ++j) {
    double sum = 0;
    float top = in[static_cast<std::size_t>(j)];
    for (std::int64_t i = std::max<std::int64_t>(0, j - reach); i <= std::min(length - 1, j + reach); ++i) {
      sum += static_cast<double>(in[static_cast<std::size_t>(i)]);
      top = std::max(top, in[static_cast<std::size_t>(i)]);
    }
    row[static_cast<std::size_t>(j)] = kind == Pool::avg ? static_cast<float>(sum / static_cast<double>(kernel)) : top;
  }
}

void pool_heads(Tensor& scores, std::int64_t length, std::int64_t kernel, Pool kind) {
  for (std::int64_t h = 0; h < scores.heads(); ++h) pool(scores.row(h, 0), length, kernel, kind);
}

void force_from(Tensor& scores, std::int64_t begin) {
  for (std::int64_t g = 0; g < scores.heads(); ++g) {
    const auto row = scores.row(g, 0);
    std::fill(row.begin() + begin, row.end(), kForced);
  }
}

}  // namespace depthkv
