// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/merge/merge.h"

namespace depthkv::reference {
namespace {

double cosine(std::span<const float> x, std::span<const float> y) {
  double product = 0;
  double x_square = 0;
  double y_square = 0;
  for (std::size_t c = 0; c < x.size(); ++c) {
    product += static_cast<double>(x[c]) * static_cast<double>(y[c]);
    x_square += static_cast<double>(x[c]) * static_cast<double>(x[c]);
    y_square += static_cast<double>(y[c]) * static_cast<double>(y[c]);
  }
  return x_square == 0 || y_square == 0 ? product * 0 : product / std::sqrt(x_square) / std::sqrt(y_square);
}

}  // namespace

Nearest nearest_kept(const View& keys, std::span<const std::uint32_t> kept, std::span<const std::uint32_t> dropped) {
  Nearest nearest;
  for (const std::uint32_t e : dropped) {
    std::uint32_t best = 0;
    double most = kept.empty() ? -1 : cosine(keys.row(0, e), keys.row(0, kept[0]));
    for (std::uint32_t t = 1; t < kept.size() && !std::isnan(most); ++t) {
      const double similarity = cosine(keys.row(0, e), keys.row(0, kept[t]));
      if (!std::isnan(similarity) && similarity <= most) continue;
      best = t;
      most = similarity;
    }
    nearest.kept.push_back(best);
    nearest.similarity.push_back(static_cast<float>(most));
  }
  return nearest;
}

Tensor merge_rows(const MergeInput& input) {
  Tensor merged(1, static_cast<std::int64_t>(input.kept.size()), input.rows.columns);
  for (std::size_t t = 0; t < input.kept.size(); ++t) {
    for (std::size_t c = 0; c < static_cast<std::size_t>(input.rows.columns); ++c) {
      double sum = static_cast<double>(input.rows.row(0, input.kept[t])[c]);
      double divisor = 1;
      for (std::size_t e = 0; e < input.dropped.size(); ++e) {
        if (input.into[e] != t || input.weights[e] == 0) continue;
        sum += static_cast<double>(input.weights[e]) * static_cast<double>(input.rows.row(0, input.dropped[e])[c]);
        divisor += static_cast<double>(input.shares[e]);
      }
      merged.row(0, static_cast<std::int64_t>(t))[c] = static_cast<float>(sum / divisor);
    }
  }
  return merged;
}

}  // namespace depthkv::reference
