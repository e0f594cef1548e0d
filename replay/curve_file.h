// SPDX-License-Identifier: Apache-2.0
// Ranked layers on disk: what the layer pass makes, layer by layer for all rankers, and the evaluation reads, ranker by
// ranker. A cache, not a format: only the build that wrote a file reads it, and whatever looks wrong counts as absent.
#pragma once
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "replay/curves.h"

namespace depthkv {

// The file appears under its name only when finish() has returned; destroyed before, it leaves nothing behind. One of
// each target at a time in a process; of two processes' the last stays. Throws InputError where no file can be made,
// Error when the disk is full.
class CurveWriter {
 public:
  CurveWriter(std::filesystem::path file, const std::string& key);
  CurveWriter(const CurveWriter&) = delete;
  CurveWriter& operator=(const CurveWriter&) = delete;
  ~CurveWriter();

  void add(const RankedLayer& layer);
  void add(const std::vector<double>& numbers);
  void finish();

 private:
  void put(std::span<const std::byte> values);

  std::filesystem::path file_;
  std::filesystem::path partial_;
  std::ofstream stream_;
};

// What was written under this key, `layers` layers of it; nothing if it isn't there or damaged.
std::optional<std::vector<RankedLayer>> read_curves(const std::filesystem::path& file, const std::string& key,
                                                    std::size_t layers);
std::optional<Measured> read_measured(const std::filesystem::path& file, const std::string& key, std::size_t layers);
// A look at the key alone.
bool has_curves(const std::filesystem::path& file, const std::string& key);

}  // namespace depthkv
