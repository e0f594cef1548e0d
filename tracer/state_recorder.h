// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>
#include <set>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/trace.h"
#include "tracer/state_spool.h"

namespace depthkv {

// The channels that are made of hidden states. All but attention_cosines are made of all rows at once, so rows wait on
// disk until the last has come; memory holds one (layer, stage) per thread (docs/decisions/009).
bool is_of_states(Channel channel);

// What waits on disk while a sample is recorded; 0 where no channel needs it.
std::int64_t waiting_bytes(const std::set<Channel>& channels, const ModelCard& model, std::int64_t prompt_end);

// Threads that take spectra of `rows` states at once, 0 for one per core: each holds two square matrices, together at
// most 2 GiB unless one alone needs more.
int summary_threads(const ModelCard& model, std::int64_t rows, int threads);

class StateRecorder {
 public:
  struct Options {
    std::set<Channel> channels;    // others are ignored
    std::filesystem::path folder;  // where rows wait
    int threads = 0;               // 0: one per core; the results are the same
  };
  StateRecorder(TraceWriter& writer, const ModelCard& model, std::int64_t prompt_end, Options options);

  bool wanted() const;
  void take(const StateBlock& block);
  // After the last block.
  void finish();

 private:
  bool records(Channel channel) const { return options_.channels.contains(channel); }
  void add_cosines(const StateBlock& block);
  void write_summaries();

  TraceWriter& writer_;
  const ModelCard& model_;
  std::int64_t prompt_end_;
  Options options_;
  std::unique_ptr<StateSpool> spool_;        // where a channel needs it
  std::vector<std::vector<float>> cosines_;  // [layer]: [position, 2]
  std::vector<float> input_;                 // of the layer at hand, its rows of this batch
};

}  // namespace depthkv
