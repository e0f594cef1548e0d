// SPDX-License-Identifier: Apache-2.0
// Parts of validate_trace_set().
#pragma once
#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "depthkv/trace.h"

namespace depthkv {

// The first of many problems of a kind, and how many there are.
class Tally {
 public:
  void note(const auto& describe) {
    if (count_++ == 0) first_ = describe();
  }
  bool any() const { return count_ > 0; }
  std::string text() const { return count_ == 1 ? first_ : fmt::format("{} (and {} more)", first_, count_ - 1); }

 private:
  std::int64_t count_ = 0;
  std::string first_;
};

using AddProblem = std::function<void(const std::string& dataset, const std::string& what)>;

// What the numbers about hidden states that a layer has may be.
void check_hidden(const Trace& trace, int layer, const AddProblem& add);

// What the maxima of a layer's repeated context may be, where it has them.
void check_repeats(const Trace& trace, int layer, const AddProblem& add);

// index.h5 against the samples and weights that are there.
void check_index(const TraceSet& set, std::vector<std::string>& problems);

// The set's weights, where it has some: structure, checksums, values; of the model that the samples are of.
void check_weights(const std::filesystem::path& directory, const ModelCard& model, std::vector<std::string>& problems);

}  // namespace depthkv
