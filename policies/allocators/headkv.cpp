// SPDX-License-Identifier: Apache-2.0
// headkv: more for the heads that a table calls important.   Fu et al. 2024 (HeadKV), arXiv:2410.19258
// Of the entries beyond the protected ones, 1 - 1/beta are shared evenly and 1/beta by importance. `table`: a file with
// a line per layer of the model, one importance per KV head (of published ones, which are per query head, the mean over
// the group). The authors normalise importance over the model and so move budget between layers, too; here a layer's
// budget is another axis, the normalisation cancels, and explicit layers with each line's sum do the rest. They search
// beta in 1.005 .. 10 per model and task; the default is ours.
#include <numeric>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/table.h"

namespace depthkv {

HeadAllocator make_headkv_heads(Params& params) {
  const auto file = params.take<std::string>("file", kNoFile);
  const double beta = params.take_in("beta", 1.2, 1.0, 1e6);
  HeadAllocator allocator;
  if (file == kNoFile) allocator.unavailable = "needs a table; set file=FILE";
  const NumberTable table = file == kNoFile ? NumberTable{"head allocator headkv", {}} : read_table(file, 0);
  allocator.prepare = [=](const HeadInput& input) -> HeadSplit {
    const HeadSize size = size_of(input);
    const std::vector<double>& importance = line_of(table, input.layer, size.heads);
    const double total = std::accumulate(importance.begin(), importance.end(), 0.0);
    const double even = 1 / static_cast<double>(size.heads);
    std::vector<double> weights = importance;
    for (double& weight : weights) weight = (1 - 1 / beta) * even + (total > 0 ? weight / total : even) / beta;
    return [=](std::int64_t entries) { return share_beyond_protected(size, entries, weights); };
  };
  return allocator;
}

}  // namespace depthkv
