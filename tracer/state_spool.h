// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>

namespace depthkv {

// Rows of floats put down on disk until all of them are there: `series` matrices of [rows, width], written in any order
// and read back in pieces. The file has no name, so that nothing is left of it however the process ends. Different
// parts may be written and read by different threads.
class StateSpool {
 public:
  // In `folder`, which must be there. Throws Error, as do the others, if the disk fails or is full.
  StateSpool(const std::filesystem::path& folder, std::int64_t rows, std::int64_t width);
  StateSpool(const StateSpool&) = delete;
  StateSpool& operator=(const StateSpool&) = delete;
  ~StateSpool();

  // Whole rows from `first` on.
  void write(std::int64_t series, std::int64_t first, std::span<const float> rows);
  void read(std::int64_t series, std::int64_t first, std::span<float> rows) const;

 private:
  std::int64_t offset(std::int64_t series, std::int64_t first) const;

  std::filesystem::path folder_;
  std::int64_t rows_;
  std::int64_t width_;
  int descriptor_ = -1;
};

}  // namespace depthkv
