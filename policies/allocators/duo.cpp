// SPDX-License-Identifier: Apache-2.0
// duo: heads that look far back against heads that need sinks and recent positions only.
// Xiao et al. 2024 (DuoAttention), arXiv:2410.10819; the score on the fly is NVIDIA/kvpress's
// A head's mean query and key before rotation are rotated to positions 0 .. 499; of the last position's softmax row the
// cumulative sums are averaged: large where mass lies far back. Mean over the group. The lowest-scored `sparsity` of a
// layer's heads, rounded, stream: they keep as many entries as sinks + recent are (never more than the even share;
// which ones is the ranking's matter), the others share what remains. The authors train gates instead, compare heads
// over all layers, and leave the others whole; here a layer's budget is another axis, and kvpress's average over 50
// texts is the sample's own.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "depthkv/policy.h"
#include "kernels/rotary.h"
#include "policies/allocators/limits.h"

namespace depthkv {
namespace {

constexpr std::int64_t kPositions = 500;

// The mean of a KV head's keys, as it would be seen at each position.
Tensor mean_key_everywhere(const LayerFeatures& layer, std::int64_t kv_head) {
  const View& keys = layer.unrotated_keys;
  std::vector<double> sums(static_cast<std::size_t>(keys.columns));
  for (std::int64_t j = 0; j < keys.rows; ++j) {
    const auto key = keys.row(kv_head, j);
    for (std::size_t c = 0; c < sums.size(); ++c) sums[c] += static_cast<double>(key[c]);
  }
  Tensor everywhere(1, kPositions, keys.columns);
  for (std::int64_t p = 0; p < kPositions; ++p) {
    const auto key = everywhere.row(0, p);
    for (std::size_t c = 0; c < sums.size(); ++c) key[c] = static_cast<float>(sums[c] / static_cast<double>(keys.rows));
    rotate(key, static_cast<double>(p), layer.rotary);
  }
  return everywhere;
}

// Mean of the cumulative sums of the softmax row that the last position pays.
double look_back(std::span<const float> mean_query, const Tensor& keys, const LayerFeatures& layer) {
  std::vector<float> query(mean_query.begin(), mean_query.end());
  rotate(query, static_cast<double>(kPositions - 1), layer.rotary);
  std::vector<double> row;
  for (std::int64_t p = 0; p < kPositions; ++p) {
    const auto key = keys.row(0, p);
    double logit = 0;
    for (std::size_t c = 0; c < query.size(); ++c) logit += static_cast<double>(query[c]) * static_cast<double>(key[c]);
    row.push_back(logit * layer.attention_scale);
  }
  const double top = *std::max_element(row.begin(), row.end());
  for (double& x : row) x = std::exp(x - top);
  const double total = std::accumulate(row.begin(), row.end(), 0.0);
  double sum = 0;
  double score = 0;
  for (const double x : row) {
    sum += x / total;
    score += sum / static_cast<double>(kPositions);
  }
  return score;
}

std::vector<double> look_back(const LayerFeatures& layer) {
  std::vector<double> scores;
  const std::int64_t group = layer.shape.group();
  for (std::int64_t g = 0; g < layer.shape.kv_heads; ++g) {
    const Tensor keys = mean_key_everywhere(layer, g);
    double sum = 0;
    for (std::int64_t h = g * group; h < (g + 1) * group; ++h)
      sum += look_back(layer.query_mean.row(h, 0), keys, layer);
    scores.push_back(sum / static_cast<double>(group));
  }
  return scores;
}

}  // namespace

HeadAllocator make_duo_heads(Params& params) {
  const double sparsity = params.take_in("sparsity", 0.5, 0.0, 1.0);
  const auto sinks = params.take_in("sinks", std::int64_t{128}, 0, std::int64_t{1} << 20);
  const auto recent = params.take_in("recent", std::int64_t{256}, 0, std::int64_t{1} << 20);
  HeadAllocator allocator;
  allocator.needs = needs({Feature::query_moments, Feature::unrotated_keys});
  allocator.measure = [](const LayerFeatures& layer, const Ops&) { return look_back(layer); };
  allocator.prepare = [=](const HeadInput& input) -> HeadSplit {
    const HeadSize size = size_of(input);
    std::vector<std::size_t> order(size.heads);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return input.measured[a] < input.measured[b]; });
    order.resize(static_cast<std::size_t>(std::floor(sparsity * static_cast<double>(size.heads) + 0.5)));
    std::vector<std::optional<std::int64_t>> streaming(size.heads);
    for (const std::size_t head : order) streaming[head] = std::min(size.tokens, sinks + recent);
    return [=](std::int64_t entries) { return share_leanly(entries, streaming, head_limits(size, entries)); };
  };
  return allocator;
}

}  // namespace depthkv
