// SPDX-License-Identifier: Apache-2.0
// dropkv: the exact change of the output when this entry alone is dropped.   openreview MqfNzH3TVH, kvpress #285
// Without entry j row i puts out o_i + A / (1 - A) (o_i - v_j), A = A[i, j], so
// S[j] = sum over the group and the last `window` rows i of (A / (1 - A))^2 |v_j - o_i|^2, o_i = sum over all keys of
// A v. Where j holds all of a row's attention nothing remains and the change is |o_i|^2, as in output_error. window and
// the sum over the group, which makes S the group's squared error before W_O, are ours; neither could be confirmed.
#include <numeric>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {
namespace {

// What the rows of one query head put out, row by row.
std::vector<double> outputs_of(const View& rows, const View& values) {
  const auto channels = static_cast<std::size_t>(values.columns);
  std::vector<double> outputs(static_cast<std::size_t>(rows.rows) * channels);
  for (std::int64_t t = 0; t < rows.rows; ++t) {
    double* output = outputs.data() + static_cast<std::size_t>(t) * channels;
    for (std::int64_t j = 0; j < values.rows; ++j) {
      const auto a = static_cast<double>(rows.row(0, t)[static_cast<std::size_t>(j)]);
      const auto value = values.row(0, j);
      for (std::size_t c = 0; c < channels; ++c) output[c] += a * static_cast<double>(value[c]);
    }
  }
  return outputs;
}

// The summed squared changes of one query head's rows when entry j goes.
double change_without(std::int64_t j, const View& rows, std::span<const float> value,
                      const std::vector<double>& outputs) {
  std::vector<double> changes(value.size());  // per channel: rows outside, so that channels run several at a time
  for (std::int64_t t = 0; t < rows.rows; ++t) {
    const auto a = static_cast<double>(rows.row(0, t)[static_cast<std::size_t>(j)]);
    const double* output = outputs.data() + static_cast<std::size_t>(t) * value.size();
    const bool alone = 1 - a <= kNoMass;
    const double ratio = alone ? 1 : a / (1 - a);
    const double centre = alone ? 0 : 1;
    for (std::size_t c = 0; c < value.size(); ++c) {
      const double gap = ratio * (centre * static_cast<double>(value[c]) - output[c]);
      changes[c] += gap * gap;
    }
  }
  return std::accumulate(changes.begin(), changes.end(), 0.0);
}

}  // namespace

Scorer make_dropkv(Params& params) {
  const std::int64_t window = take_window(params, 64);
  Scorer scorer;
  const Reduction reduction = take_group(params, "sum", scorer.group);
  scorer.needs = needs({Feature::window, Feature::values}, window);
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const View rows = last_rows(layer, window).rows;
    Tensor per_head(rows.heads, 1, layer.tokens);
    for (std::int64_t h = 0; h < rows.heads; ++h) {
      const View head = rows.head_range(h, 1);
      const View values = layer.values.head_range(h / layer.shape.group(), 1);
      const std::vector<double> outputs = outputs_of(head, values);
      for (std::int64_t j = 0; j < layer.tokens; ++j)
        per_head.row(h, 0)[static_cast<std::size_t>(j)] =
            static_cast<float>(change_without(j, head, values.row(0, j), outputs));
    }
    return reduce_group(per_head.view(), layer.shape.group(), reduction);
  };
  return scorer;
}

}  // namespace depthkv
