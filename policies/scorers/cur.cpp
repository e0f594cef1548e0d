// SPDX-License-Identifier: Apache-2.0
// cur: large keys with large values, among their neighbours.   Sengupta et al. 2025 (CurDKV), arXiv:2509.15038
// |k[j]|^2 and |v[j]|^2, each over its sum inside its block of `window` positions, multiplied (type kv_product; key or
// value alone, or kv_avg), over their sum in the head; the first `sinks` get 1. Named leverage in the paper; these are
// approximations of it. The last, shorter block has its own sum. The paper's random projection is left out.
#include <algorithm>

#include "depthkv/policy.h"

namespace depthkv {
namespace {

// Squared norms over their sums in each block.
std::vector<double> local_shares(std::span<const float> norms, std::size_t window) {
  std::vector<double> shares;
  for (const float x : norms) shares.push_back(static_cast<double>(x) * static_cast<double>(x));
  for (std::size_t begin = 0; begin < shares.size(); begin += window) {
    const std::size_t end = std::min(shares.size(), begin + window);
    double sum = 0;
    for (std::size_t j = begin; j < end; ++j) sum += shares[j];
    for (std::size_t j = begin; j < end; ++j) shares[j] = sum > 0 ? shares[j] / sum : 0;
  }
  return shares;
}

}  // namespace

Scorer make_cur(Params& params) {
  const std::string type = params.take_choice("type", "kv_product", {"kv_product", "key", "value", "kv_avg"});
  const auto window = static_cast<std::size_t>(params.take_in("window", std::int64_t{16}, 1, std::int64_t{1} << 20));
  const auto sinks = params.take_in("sinks", std::int64_t{4}, 0, std::int64_t{1} << 20);
  Scorer scorer;
  scorer.group = "none";
  scorer.needs = needs({Feature::keys, Feature::values});
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) {
    const Tensor key_norms = ops.row_norms(layer.keys, Norm::l2);
    const Tensor value_norms = ops.row_norms(layer.values, Norm::l2);
    Tensor scores(layer.keys.heads, 1, layer.tokens);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const std::vector<double> keys = local_shares(key_norms.row(g, 0), window);
      const std::vector<double> values = local_shares(value_norms.row(g, 0), window);
      std::vector<double> both(keys.size());
      double sum = 0;
      for (std::size_t j = 0; j < both.size(); ++j) {
        both[j] = type == "key"      ? keys[j]
                  : type == "value"  ? values[j]
                  : type == "kv_avg" ? (keys[j] + values[j]) / 2
                                     : keys[j] * values[j];
        sum += both[j];
      }
      const auto row = scores.row(g, 0);
      for (std::size_t j = 0; j < both.size(); ++j) row[j] = static_cast<float>(sum > 0 ? both[j] / sum : 0.0);
      std::fill_n(row.begin(), std::min(sinks, layer.tokens), 1.0F);
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
