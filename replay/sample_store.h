// SPDX-License-Identifier: Apache-2.0
// What a long run on the model has finished, sample by sample, on disk until all of it is there.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "depthkv/replay.h"

namespace depthkv {

// All that decides what a model makes of a sample, for SampleStore: the model and the engine, the trace's bytes, the
// sources that policies are computed with.
std::string sample_key(const ModelCard& model, const Trace& trace, const ReplayPlan& plan);
// A policy with every parameter and the contents of the files that it reads, at a keep.
std::string choice_key(const Policies& policies, const PolicyChoice& choice);

class SampleStore {
 public:
  // Nothing is kept if `folder` is empty.
  explicit SampleStore(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // What was put under exactly this key, to the bit; nothing if that isn't there, is damaged or was put under another
  // key. `sample` names the file.
  std::optional<nlohmann::json> take(const std::string& sample, const std::string& key) const;
  // Written aside and renamed. Texts may hold any bytes. Throws Error if the folder can't be written to.
  void put(const std::string& sample, const std::string& key, const nlohmann::json& found) const;
  // Removes what was put.
  void clear() const;

 private:
  std::filesystem::path file_of(const std::string& sample) const;

  std::filesystem::path folder_;
};

}  // namespace depthkv
