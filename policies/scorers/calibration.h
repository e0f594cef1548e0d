// SPDX-License-Identifier: Apache-2.0
// Query statistics of a trace set, for scorers that are calibrated on other samples than the one at hand.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "depthkv/policy.h"

namespace depthkv {

// Sums over some queries of one query head.
struct QuerySums {
  std::vector<double> sum;      // [d]
  std::vector<double> squares;  // [d][d], sum of q q^T
  explicit QuerySums(std::size_t d) : sum(d), squares(d * d) {}
  void add(std::span<const float> query, double weight = 1);
};

class Calibration {
 public:
  // Throws InputError if the folder has no samples. Layers are read when they are first asked for.
  explicit Calibration(const std::filesystem::path& folder);

  // Of a layer's recorded queries below the prompts' ends, per query head, over all samples but the one named. Throws
  // InputError if the traces' geometry is another one, or no sample is left. To be called from any thread.
  std::vector<QuerySums> without(const std::string& sample, const LayerFeatures& layer) const;

  // Changes when a file does.
  const std::string& source() const { return source_; }

 private:
  void add(const std::filesystem::path& file, int layer, double weight, std::vector<QuerySums>& sums) const;

  std::filesystem::path folder_;
  std::vector<std::filesystem::path> files_;
  std::map<std::string, std::filesystem::path> by_sample_;
  std::string source_;
  mutable std::mutex mutex_;
  mutable std::map<int, std::vector<QuerySums>> totals_;  // [layer]
};

}  // namespace depthkv
