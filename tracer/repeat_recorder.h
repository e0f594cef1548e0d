// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/trace.h"
#include "tracer/repetition.h"

namespace depthkv {

// Takes the queries of a repeated context as the model computes them, and keeps the most attention that each position
// gets: the channel repeat_max. Holds [3, H, prompt_end] floats per layer, and no rows of attention. The result doesn't
// depend on the number of threads.
class RepeatRecorder {
 public:
  RepeatRecorder(TraceWriter& writer, const ModelCard& model, const Segments& segments, const Repetition& repetition,
                 int threads);

  // Queries with cached keys and input norms, as Model::record hands them out.
  void take(std::size_t passage, const LayerBlock& block);
  // After the last block.
  void finish();

 private:
  void raise(int layer, Repeat repeat, std::int64_t position, std::span<const float> heads, std::int64_t width);
  // A block's queries and the keys of all positions up to its last row, on the host or a device.
  struct Rows {
    View queries;
    HalfRows keys;
    std::optional<int> device;
  };

  void take_chunk(std::size_t passage, const LayerBlock& block, const Rows& seen);
  void take_cache(std::size_t passage, const LayerBlock& block, const Rows& seen);

  TraceWriter& writer_;
  const ModelCard& model_;
  Segments segments_;
  const Repetition& repetition_;
  int threads_;
  std::vector<std::vector<float>> maxima_;  // [layer]: [Repeat][query head][position]
  std::vector<std::uint16_t> keys_;         // reused
};

}  // namespace depthkv
