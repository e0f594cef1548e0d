// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/merge/merge.h"
#include "kernels/row_norms/row_norms.h"

namespace depthkv {

MergeWeights d2o_weights(const Nearest& nearest, float threshold) {
  MergeWeights merge;
  for (const float similarity : nearest.similarity) {
    const bool leave = similarity < threshold;
    merge.weights.push_back(leave ? 0.0F : similarity);
    merge.shares.push_back(leave ? 0.0F : 1.0F);
  }
  return merge;
}

MergeWeights merging_press_weights(const Nearest& nearest, const View& values, std::span<const std::uint32_t> kept,
                                   std::span<const std::uint32_t> dropped, float threshold) {
  constexpr double kEpsilon = 1e-6;
  const Tensor all = cpu::row_norms(values, Norm::l2);
  const auto norms = all.row(0, 0);
  MergeWeights merge;
  for (std::size_t e = 0; e < dropped.size(); ++e) {
    const float similarity = nearest.similarity[e];
    double weight = 0;
    if (!(similarity < threshold || similarity < 0)) {
      const double own = static_cast<double>(norms[dropped[e]]);
      weight =
          static_cast<double>(similarity) * own / (own + static_cast<double>(norms[kept[nearest.kept[e]]]) + kEpsilon);
    }
    merge.weights.push_back(static_cast<float>(weight));
  }
  merge.shares = merge.weights;
  return merge;
}

std::vector<float> inverse_norms(const View& rows) {
  const Tensor norms = cpu::row_norms(rows, Norm::l2);
  std::vector<float> inverse;
  for (const float norm : norms.values()) inverse.push_back(norm == 0 ? 0.0F : 1.0F / norm);
  return inverse;
}

Tensor gather_rows(const View& rows, std::span<const std::uint32_t> positions) {
  Tensor gathered = Tensor::unwritten(1, static_cast<std::int64_t>(positions.size()), rows.columns);
  for (std::size_t i = 0; i < positions.size(); ++i)
    std::ranges::copy(rows.row(0, positions[i]), gathered.row(0, static_cast<std::int64_t>(i)).begin());
  return gathered;
}

MergeLists lists_of(const MergeInput& input) {
  MergeLists lists;
  lists.begins.resize(input.kept.size() + 1);
  for (std::size_t e = 0; e < input.dropped.size(); ++e)
    if (input.weights[e] != 0) ++lists.begins[input.into[e] + 1];
  for (std::size_t t = 0; t < input.kept.size(); ++t) lists.begins[t + 1] += lists.begins[t];
  lists.members.resize(lists.begins.back());
  std::vector<std::uint32_t> next(lists.begins.begin(), lists.begins.end() - 1);
  for (std::size_t e = 0; e < input.dropped.size(); ++e)
    if (input.weights[e] != 0) lists.members[next[input.into[e]]++] = static_cast<std::uint32_t>(e);
  return lists;
}

}  // namespace depthkv
