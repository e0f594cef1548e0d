// SPDX-License-Identifier: Apache-2.0
// Scores and kept positions as HDF5 files: what `depthkv replay --dump-scores` and `--dump-kept` write, and what the
// scorer `explicit` reads, whoever made it. docs/results.md describes them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "depthkv/tensor.h"
#include "depthkv/trace.h"

namespace depthkv {

// Who scored, or what was kept: a name for people and programs, and everything that it stands for.
struct ScoreSource {
  std::string label;
  std::vector<std::pair<std::string, std::string>> attributes;
};

// What a label or a sample's id is called in a file: itself, with '/' as %2F, because HDF5 takes that for a path.
std::string score_group_name(std::string_view label);

// Writes one file. It appears under its name only when finish() has returned; a writer destroyed before leaves nothing
// behind. Samples come one after the other, each layer of a source once. To be used by one thread at a time.
class ScoreFileWriter {
 public:
  // Throws Error if the file can't be made, TraceBusy if it is being written by somebody else.
  ScoreFileWriter(const std::filesystem::path& file, const ModelCard& model, Cut cut);
  ScoreFileWriter(ScoreFileWriter&&) noexcept;
  ~ScoreFileWriter();

  // [Hkv, 1, n], larger = keep: /<sample>/<scorer>/layer_<l>.
  void add_scores(const std::string& sample, const ScoreSource& scorer, int layer, const View& scores);
  // Ascending positions per KV head, rows padded with -1: /<sample>/<policy>/keep_<keep>/layer_<l>.
  void add_kept(const std::string& sample, const ScoreSource& policy, double keep, int layer,
                const std::vector<std::vector<std::uint32_t>>& kept);
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The scores of one file. Tensors are read on demand, from any thread. Throws Error on what isn't as it should be,
// naming file and dataset.
class ScoreFile {
 public:
  static ScoreFile open(const std::filesystem::path& file);
  ScoreFile(ScoreFile&&) noexcept;
  ~ScoreFile();

  // Whose scores of a sample there are; empty if there are none.
  std::vector<std::string> scorers(const std::string& sample) const;
  // `scorer`: a name of scorers(); may be left out where there is just one.
  bool has(const std::string& sample, int layer, const std::string& scorer = "") const;
  Tensor scores(const std::string& sample, int layer, const std::string& scorer = "") const;  // [Hkv, 1, n]
  std::string content_hash() const;  // XXH64 of the file's bytes, 16 hexadecimal digits

 private:
  struct Impl;
  explicit ScoreFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace depthkv
