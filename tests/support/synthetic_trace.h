// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "depthkv/trace.h"

namespace depthkv {

// A small sample with random keys, values and queries; attention and column sums follow from them exactly.
struct SyntheticTrace {
  std::string id = "synthetic";
  std::uint64_t seed = 1;
  int layers = 3;
  int query_heads = 4;
  int kv_heads = 2;
  int head_dim = 8;
  Segments segments{{3, 150}, 170};
  std::int64_t tokens = 180;
  bool evidence = true;
  std::vector<std::string> answers{"one", "two, three"};
  bool column_sums = true;
  bool attention = false;  // of every layer
  bool hidden = false;     // what is recorded of hidden states; random, but what it may be
  bool all_queries = false;
  bool moments = false;       // of the queries, turned back as `rotary_layout` says
  bool output_norms = false;  // of the values through synthetic_projection()
  bool repeats = false;       // repeat_max; random, but what it may be
  std::string rotary_layout = "none";
  std::vector<LayerRotation> rotations = {};  // per layer; empty: by the base
  bool uneven = false;  // vectors with means of their own, a sink and outliers: attention and norms far from even
  Codec codec = Codec::none;
  std::vector<std::int64_t> windows = {};  // per layer, in the model card only; empty: none
  std::int64_t truncated = 0;
  std::int64_t answer_limit = 0;
};

// Writes `directory`/<id>.h5 (the folder is made) and returns its path.
std::filesystem::path write_synthetic_trace(const std::filesystem::path& directory, const SyntheticTrace& options);

// Writes weights.h5 with random output projections that half precision holds exactly.
Tensor synthetic_projection(const SyntheticTrace& options, int layer);
void write_synthetic_weights(const std::filesystem::path& directory, const SyntheticTrace& options);

ModelCard synthetic_card(const SyntheticTrace& options);

}  // namespace depthkv
