// SPDX-License-Identifier: Apache-2.0
// explicit: shares as given, for what is found elsewhere: searched, trained or published ones.
// Over layers `ratios` has one number per layer that can be pruned, or `file` a line with one number for each. Over
// heads `ratios` has one per KV head, the same in every layer, or `file` a line per layer of the model with one number
// per KV head. Only proportions matter: keep ratios 0.1, 0.1, 0.2 at a keep of 0.4 become 0.3, 0.3, 0.6 (an evolved or
// calibrated list is meant for one budget). kvpress's PerLayerCompressionPress takes the shares removed instead: give 1
// minus those.
#include <fmt/format.h>

#include <limits>

#include "depthkv/error.h"
#include "depthkv/policy.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/table.h"

namespace depthkv {
namespace {

constexpr const char* kMissing = "needs ratios; set ratios=LIST or file=FILE";

}  // namespace

LayerAllocator make_explicit_layers(Params& params) {
  const std::string who = "layer allocator explicit";
  const PerLayer ratios = take_per_layer(params, who, "ratios", 0);
  LayerAllocator allocator;
  if (ratios.values.empty()) allocator.unavailable = kMissing;
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    ratios.expect(who, input.shape.layers.size());
    return [&input, ratios](Budget budget) { return share_per_head(input, budget, ratios.values); };
  };
  return allocator;
}

HeadAllocator make_explicit_heads(Params& params) {
  const auto ratios = params.take<std::vector<double>>("ratios", {});
  const auto file = params.take<std::string>("file", kNoFile);
  if (!ratios.empty() && file != kNoFile)
    throw InputError("head allocator explicit: has both ratios and file; give one of them");
  const NumberTable table = file == kNoFile ? NumberTable{"head allocator explicit", {}} : read_table(file, 0);
  HeadAllocator allocator;
  if (ratios.empty() && file == kNoFile) allocator.unavailable = kMissing;
  for (const double ratio : ratios) {
    if (!(ratio >= 0 && ratio <= std::numeric_limits<float>::max()))
      throw InputError(fmt::format("head allocator explicit: ratios has {}, expected a number of at least 0", ratio));
  }
  allocator.prepare = [=](const HeadInput& input) -> HeadSplit {
    const HeadSize size = size_of(input);
    if (file == kNoFile && ratios.size() != size.heads)
      throw InputError(
          fmt::format("head allocator explicit: ratios has {} numbers, layer {} has {} KV heads; give one "
                      "for each",
                      ratios.size(), input.layer, size.heads));
    const std::vector<double> weights = file == kNoFile ? ratios : line_of(table, input.layer, size.heads);
    return [=](std::int64_t entries) {
      const Limits limits = head_limits(size, entries);
      return share_out(entries, weights, limits.floors, limits.caps);
    };
  };
  return allocator;
}

}  // namespace depthkv
