// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <set>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/trace.h"
#include "tracer/moments.h"

namespace depthkv {

// Takes a sample's blocks as the model computes them: passes rows on to the file and reduces the rest at once, so that
// neither matrices nor whole channels have to be held.
class Recorder {
 public:
  struct Options {
    std::set<Channel> channels;
    std::vector<bool> attention;  // layers whose matrix is written
    int threads = 0;              // 0: one per core
  };
  Recorder(TraceWriter& writer, const Model& model, const Segments& segments, Options options);

  void take(const LayerBlock& block);
  // After the last block.
  void finish();

 private:
  // Rows of the context and of the rest of the prompt are added up apart: the later cut's statistic is both together.
  static constexpr std::size_t kParts = 2;
  struct Layer {
    std::array<std::vector<double>, kParts> column_sums;  // [head][column of the prompt]
    std::vector<Moments> queries;                         // [part]
  };

  bool records(Channel channel) const { return options_.channels.contains(channel); }
  // Calls body(part, first row of the block, rows) for the rows of a block that belong to each part.
  template <class Body>
  void for_each_part(const LayerBlock& block, Body body) const;
  void add_column_sums(const LayerBlock& block);
  void add_moments(const LayerBlock& block);
  void write_norms(const LayerBlock& block);
  void finish_column_sums(int layer);
  void finish_moments(int layer);

  TraceWriter& writer_;
  const Model& model_;
  Segments segments_;
  Options options_;
  std::vector<Layer> layers_;
  std::vector<float> scratch_;
};

}  // namespace depthkv
