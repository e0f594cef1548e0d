// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/ops.h"
#include "depthkv/trace.h"
#include "tracer/parts.h"

namespace depthkv {

// The attention that every position of a prompt receives, per layer and head, added up block by block of rows. The
// result doesn't depend on the number of threads.
class ColumnSums {
 public:
  ColumnSums(const ModelCard& model, const Segments& segments, int threads);

  // Softmax rows of consecutive heads, one view [heads, rows, width] for each group of them; `first`: position of row
  // 0.
  void add(int layer, std::int64_t first, std::span<const View> rows);
  // Queries [H, rows, d], rotated, and the keys of all positions up to theirs.
  void add(int layer, std::int64_t first, const View& queries, const HalfRows& keys);
  // The same where they lie on a device, which adds up all rows at once.
  void add(int layer, std::int64_t first, const DeviceRows& rows);

  // [2, H, prompt_end] of a layer, as the channel's dataset has it.
  void write_to(int layer, std::vector<float>& out) const;

 private:
  std::span<double> sums(int layer, std::size_t part, std::int64_t head);
  // [head][position] of some heads and the first positions.
  void add(int layer, std::size_t part, std::int64_t first_head, std::int64_t heads, std::span<const double> received);

  const ModelCard& model_;
  Segments segments_;
  int threads_;
  std::vector<std::array<std::vector<double>, kPromptParts>> layers_;  // [layer][part]: [head][column]
};

}  // namespace depthkv
