// SPDX-License-Identifier: Apache-2.0
// squeeze: little for the layers whose attention changes the stream least.   Wang et al. 2024 (SqueezeAttention),
// arXiv:2404.04793
// Layers fall into three groups by the mean cosine of their input and the same after attention. The group of the most
// similar ones gets `p` times the even share, all others the same more. p is a ratio here, which the paper puts at 0.3
// to 0.4 of the even share. Their k-means is seeded at random; ours is exact: the grouping with the smallest sum of
// squares, equal cosines together, ties to the smaller most similar group. Two different cosines make two groups, one
// none: an even split.
#include <algorithm>
#include <numeric>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/measures.h"

namespace depthkv {
namespace {

// Sums of squares around the mean of stretches of sorted numbers.
class Stretches {
 public:
  explicit Stretches(std::vector<double> sorted) {
    const double middle = std::accumulate(sorted.begin(), sorted.end(), 0.0) / static_cast<double>(sorted.size());
    for (const double x : sorted) {
      sums_.push_back(sums_.back() + (x - middle));
      squares_.push_back(squares_.back() + (x - middle) * (x - middle));
    }
  }
  double spread(std::size_t begin, std::size_t end) const {
    const double sum = sums_[end] - sums_[begin];
    return squares_[end] - squares_[begin] - sum * sum / static_cast<double>(end - begin);
  }

 private:
  std::vector<double> sums_{0.0};
  std::vector<double> squares_{0.0};
};

// The lowest cosine of the most similar of three groups. In one dimension groups are stretches of the sorted numbers,
// so both cuts can be tried everywhere.
double most_similar(std::vector<double> cosines) {
  std::sort(cosines.begin(), cosines.end());
  std::vector<std::size_t> cuts;  // where a different number begins
  for (std::size_t i = 1; i < cosines.size(); ++i) {
    if (cosines[i] != cosines[i - 1]) cuts.push_back(i);
  }
  if (cuts.empty()) return cosines[0];
  if (cuts.size() == 1) return cosines[cuts[0]];
  const Stretches stretches(cosines);
  double least = std::numeric_limits<double>::infinity();
  std::size_t best = 0;
  for (std::size_t second = cuts.size() - 1; second > 0; --second) {
    for (std::size_t first = 0; first < second; ++first) {
      const double spread = stretches.spread(0, cuts[first]) + stretches.spread(cuts[first], cuts[second]) +
                            stretches.spread(cuts[second], cosines.size());
      if (spread >= least) continue;
      least = spread;
      best = cuts[second];
    }
  }
  return cosines[best];
}

// Per layer: entries per head, in even shares.
std::vector<double> shares_of(const LayerInput& input, double p) {
  std::vector<double> cosines;
  for (const std::vector<double>& measured : input.measured) cosines.push_back(measured[0]);
  const double from = most_similar(cosines);
  double similar = 0;  // their heads
  for (std::size_t l = 0; l < cosines.size(); ++l) similar += cosines[l] >= from ? input.shape.layers[l].kv_heads : 0;
  const auto heads = static_cast<double>(input.shape.heads());
  if (similar == heads) return std::vector<double>(cosines.size(), 1.0);
  std::vector<double> shares = cosines;
  for (double& share : shares) share = share >= from ? p : (heads - similar * p) / (heads - similar);
  return shares;
}

}  // namespace

LayerAllocator make_squeeze_layers(Params& params) {
  const double p = params.take_in("p", 0.35, 0.0, 1.0);
  LayerAllocator allocator;
  allocator.needs = needs({Feature::cosines});
  allocator.measure = [](const LayerFeatures& layer, const Ops&) { return std::vector<double>{mean_cosine(layer)}; };
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    return [&input, shares = shares_of(input, p)](Budget budget) { return share_per_head(input, budget, shares); };
  };
  return allocator;
}

}  // namespace depthkv
