// SPDX-License-Identifier: Apache-2.0
#include "policies/scorers/eviction.h"

#include <numeric>

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
                      const std::vector<double>& outputs, Eviction kind) {
  std::vector<double> changes(value.size());  // per channel: rows outside, so that channels run several at a time
  for (std::int64_t t = 0; t < rows.rows; ++t) {
    const auto a = static_cast<double>(rows.row(0, t)[static_cast<std::size_t>(j)]);
    const double* output = outputs.data() + static_cast<std::size_t>(t) * value.size();
    const bool everything = kind == Eviction::alone && 1 - a <= kNoMass;
    const double ratio = everything ? 1 : kind == Eviction::alone ? a / (1 - a) : a;
    const double centre = everything ? 0 : 1;
    for (std::size_t c = 0; c < value.size(); ++c) {
      const double gap = ratio * (centre * static_cast<double>(value[c]) - output[c]);
      changes[c] += gap * gap;
    }
  }
  return std::accumulate(changes.begin(), changes.end(), 0.0);
}

}  // namespace

Tensor eviction_errors(const View& rows, const View& values, std::int64_t tokens, Eviction kind) {
  Tensor errors(rows.heads, 1, tokens);
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    const View head = rows.head_range(h, 1);
    const View read = values.head_range(h * values.heads / rows.heads, 1);
    const std::vector<double> outputs = outputs_of(head, read);
    for (std::int64_t j = 0; j < tokens; ++j)
      errors.row(h, 0)[static_cast<std::size_t>(j)] =
          static_cast<float>(change_without(j, head, read.row(0, j), outputs, kind));
  }
  return errors;
}

}  // namespace depthkv
