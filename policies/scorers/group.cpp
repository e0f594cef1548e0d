// SPDX-License-Identifier: Apache-2.0
#include "policies/scorers/group.h"

#include <algorithm>

namespace depthkv {

Reduction take_reduction(Params& params, const std::string& key, const std::string& fallback, std::string& name) {
  name = params.take_choice(key, fallback, {"mean", "max", "sum"});
  return name == "mean" ? Reduction::mean : name == "max" ? Reduction::max : Reduction::sum;
}

Reduction take_group(Params& params, const std::string& fallback, std::string& name) {
  return take_reduction(params, "group", fallback, name);
}

Tensor reduce_group(const View& per_query_head, int group, Reduction reduction) {
  const std::int64_t heads = per_query_head.heads / group;
  Tensor reduced(heads, 1, per_query_head.columns);
  for (std::int64_t g = 0; g < heads; ++g) {
    const auto out = reduced.row(g, 0);
    for (std::size_t j = 0; j < out.size(); ++j) {
      double sum = 0;
      float top = per_query_head.row(g * group, 0)[j];
      for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
        sum += static_cast<double>(per_query_head.row(h, 0)[j]);
        top = std::max(top, per_query_head.row(h, 0)[j]);
      }
      out[j] = reduction == Reduction::max ? top : static_cast<float>(reduction == Reduction::mean ? sum / group : sum);
    }
  }
  return reduced;
}

}  // namespace depthkv
