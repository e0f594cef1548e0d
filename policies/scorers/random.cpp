// SPDX-License-Identifier: Apache-2.0
// random: uniform noise, independent per (sample, layer, KV head, position). The floor that every scorer has to beat.
// Other tools draw the same numbers in every layer; here each entry has its own, whatever order or thread asks for it.
#include "depthkv/policy.h"

namespace depthkv {
namespace {

// SplitMix64's finaliser (Steele, Lea, Flood 2014): neighbouring inputs give unrelated outputs.
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

Scorer make_random(Params& params) {
  const auto seed = static_cast<std::uint64_t>(params.take<std::int64_t>("seed", 0));
  Scorer scorer;
  scorer.group = "none";
  scorer.depends_on_head_number = true;
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    Tensor scores(layer.shape.kv_heads, 1, layer.tokens);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const std::uint64_t head =
          mixed(mixed(seed ^ mixed(layer.sample_seed)) + static_cast<std::uint64_t>(layer.layer) * 0x10000 +
                static_cast<std::uint64_t>(g));
      const auto row = scores.row(g, 0);
      for (std::size_t j = 0; j < row.size(); ++j)
        row[j] = static_cast<float>(mixed(head + j) >> 40) / static_cast<float>(1 << 24);
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
