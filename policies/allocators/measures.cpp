// SPDX-License-Identifier: Apache-2.0
#include "policies/allocators/measures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "policies/allocators/limits.h"
#include "policies/allocators/sorted_lists.h"

namespace depthkv {
namespace {

// Sum over columns of the variance over rows. One row has none.
double variance_over_rows(const View& rows, std::int64_t head) {
  if (rows.rows < 2) return 0;
  std::vector<double> means(static_cast<std::size_t>(rows.columns));
  for (std::int64_t t = 0; t < rows.rows; ++t) {
    const auto row = rows.row(head, t);
    for (std::size_t j = 0; j < means.size(); ++j)
      means[j] += static_cast<double>(row[j]) / static_cast<double>(rows.rows);
  }
  double sum = 0;
  for (std::int64_t t = 0; t < rows.rows; ++t) {
    const auto row = rows.row(head, t);
    for (std::size_t j = 0; j < means.size(); ++j) {
      const double off = static_cast<double>(row[j]) - means[j];
      sum += off * off;
    }
  }
  return sum / static_cast<double>(rows.rows - 1);
}

}  // namespace

double mean_cosine(const LayerFeatures& layer) {
  const auto cosines = layer.cosines.row(0, 0).first(static_cast<std::size_t>(layer.tokens));
  return std::accumulate(cosines.begin(), cosines.end(), 0.0) / static_cast<double>(layer.tokens);
}

AttentionSpread attention_spread(const LayerFeatures& layer, std::int64_t window) {
  constexpr double kEpsilon = 1e-10;
  const std::int64_t count = std::min(window, layer.tokens);
  const View rows = layer.window.row_range(layer.window.rows - count, count).first_columns(layer.tokens - count);
  AttentionSpread spread;
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    for (std::int64_t t = 0; t < rows.rows; ++t) {
      for (const float a : rows.row(h, t))
        spread.entropy -= static_cast<double>(a) * std::log(static_cast<double>(a) + kEpsilon);
    }
    spread.variance += variance_over_rows(rows, h);
  }
  spread.entropy = std::max(0.0, spread.entropy);  // the epsilon makes a row of one 1 fall below by itself
  return spread;
}

std::vector<float> open_scores(const HeadInput& input, std::int64_t head) {
  std::vector<float> scores = falling_scores(input, head, size_of(input).skip);
  std::erase_if(scores, [](float score) { return score >= kForced; });
  return scores;
}

double minimal_entries(const HeadInput& input, double tau) {
  double sum = 0;
  for (std::int64_t g = 0; g < input.scores.heads; ++g) {
    std::vector<float> scores = open_scores(input, g);
    std::sort(scores.begin(), scores.end(), std::greater<>());
    for (float& score : scores) score = std::max(score, 0.0F);
    const double wanted = tau * std::accumulate(scores.begin(), scores.end(), 0.0);
    double mass = 0;
    for (std::size_t k = 0; k < scores.size() && mass < wanted; ++k) {
      mass += static_cast<double>(scores[k]);
      sum += 1;
    }
  }
  return sum / static_cast<double>(input.scores.heads);
}

}  // namespace depthkv
