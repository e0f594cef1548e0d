// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/trace.h"

namespace depthkv {

// Takes a sample's blocks as the model computes them: passes rows on to the file and sums attention per column, so that
// whole matrices never have to be held.
class Recorder {
 public:
  Recorder(TraceWriter& writer, const ModelCard& model, const Segments& segments, std::vector<bool> attention);

  void take(const LayerBlock& block);
  // After the last block.
  void finish();

 private:
  void add_column_sums(const LayerBlock& block);

  TraceWriter& writer_;
  const ModelCard& model_;
  Segments segments_;
  std::vector<bool> attention_;                           // layers whose matrix is written
  std::vector<std::array<std::vector<double>, 2>> sums_;  // [layer][cut]: [head][column]
  std::vector<float> narrow_;
};

}  // namespace depthkv
