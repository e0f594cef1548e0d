// SPDX-License-Identifier: Apache-2.0
// What a sample costs under a ranker: order, scores and curves. Everything up to here is paid once per (sample, layer,
// ranker); everything after it is arithmetic on these small arrays.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "depthkv/curve.h"
#include "depthkv/replay.h"
#include "depthkv/trace.h"

namespace depthkv {

// Losses of one KV head at kept = 0 .. n, lower is better; empty where not measured.
struct HeadCurves {
  std::vector<float> mass;      // 1 - retained mass, mean over rows and query heads
  std::vector<float> error;     // squared output error over the layer's output energy: adds up over heads
  std::vector<float> evidence;  // share of the evidence tokens lost
};

// One layer under one ranker.
struct RankedLayer {
  Ranked ranked;
  std::vector<HeadCurves> judged;    // [KV head]
  std::vector<HeadCurves> observed;  // [KV head]; no evidence

  // What head g adds to the layer's loss when it keeps `kept`; NaN where that wasn't measured. A layer's loss is the
  // mean over heads of mass and evidence, the sum of output_error, which predicted_loss has as well.
  double head_loss(Rows rows, Metric metric, std::size_t g, std::int64_t kept) const;
  double loss(Rows rows, Metric metric, const std::vector<std::int64_t>& kept) const;
};

// What a prunable layer's loss counts for in a policy's.
double layer_weight(const Policies& policies, Metric metric, std::size_t layer, std::size_t layers);

// [cut]: 1 where a position is evidence.
std::vector<std::uint8_t> evidence_flags(const Sample& sample, std::int64_t cut);

// A ranker, or one at a certain budget where its scores depend on that.
struct Variant {
  std::size_t ranker = 0;
  std::optional<std::size_t> keep;  // in the plan
  bool operator==(const Variant&) const = default;
};
std::vector<Variant> variants_of(const Ranker& ranker, std::size_t index, const ReplayPlan& plan);

// Numbers that an allocator measured: [layer], one list each.
using Measured = std::vector<std::vector<double>>;

// All layers of a sample under one variant, ready to be allocated over.
class RankedSample {
 public:
  RankedSample(const Trace& trace, const ReplayPlan& plan, const Policies& policies, Variant variant,
               std::vector<RankedLayer> layers);

  const Variant& variant() const { return variant_; }
  const std::vector<RankedLayer>& layers() const { return layers_; }

  // [layer], over its heads. Whatever the layer allocator is, they are the same.
  std::vector<HeadSplit> head_splits(const HeadAllocator& allocator, const Measured& measured) const;

  // Splits of one pair of allocators at any budget. Checks that both keep their promise of exact sums. `heads`, which
  // stays with the caller, is of the policy's head allocator.
  class Allocator {
   public:
    Allocator(const RankedSample& sample, const Policies& policies, PolicyIndex policy, const Measured& measured,
              const std::vector<HeadSplit>& heads);
    Allocator(const Allocator&) = delete;
    Allocator& operator=(const Allocator&) = delete;
    Allocation at(double keep) const;
    // Over the heads of one layer.
    std::vector<std::int64_t> split(std::size_t layer, std::int64_t entries) const;

   private:
    const RankedSample& sample_;
    std::string layer_name_;
    std::string head_name_;
    const std::vector<HeadSplit>& heads_;
    LayerInput input_;
    LayerSplit layers_;
  };

 private:
  HeadInput head_input(std::size_t layer) const;

  Variant variant_;
  Shape shape_;
  std::vector<int> numbers_;  // of the layers in the model
  Protect protect_;
  std::vector<RankedLayer> layers_;
};

}  // namespace depthkv
