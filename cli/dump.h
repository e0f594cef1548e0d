// SPDX-License-Identifier: Apache-2.0
// What replay looked at and what it kept, written down while it runs.
#pragma once
#include <filesystem>
#include <memory>

#include "depthkv/replay.h"
#include "depthkv/score_file.h"

namespace depthkv {

// Files to write; empty: none. One file may hold both.
struct DumpFiles {
  std::filesystem::path scores;
  std::filesystem::path kept;
};

class Dump {
 public:
  // Throws InputError if a file would become part of the trace set.
  Dump(const DumpFiles& files, const TraceSet& traces, Cut cut);

  ReplayWatch watch() const;  // while this object lives
  void finish();              // publishes the files, which vanish otherwise

 private:
  std::shared_ptr<ScoreFileWriter> scores_;
  std::shared_ptr<ScoreFileWriter> kept_;
};

}  // namespace depthkv
