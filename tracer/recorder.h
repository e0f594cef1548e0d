// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/trace.h"
#include "tracer/column_sums.h"
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
  bool records(Channel channel) const { return options_.channels.contains(channel); }
  const LayerShape& shape(int layer) const { return model_.card().layers[static_cast<std::size_t>(layer)]; }
  void take_matrix(int layer, std::int64_t first, std::span<const View> rows);
  void recompute_attention(const LayerBlock& queries);
  void add_moments(const LayerBlock& block);
  void write_norms(const LayerBlock& block);
  void finish_moments(int layer);

  TraceWriter& writer_;
  const Model& model_;
  Segments segments_;
  Options options_;
  std::optional<ColumnSums> column_sums_;
  std::vector<std::vector<Moments>> queries_;  // [layer][part]; empty: not wanted
  std::vector<float> scratch_;
};

}  // namespace depthkv
