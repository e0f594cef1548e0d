// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <functional>

#include "depthkv/trace.h"

namespace depthkv {

// A file in the making: `.<name>.partial` beside its target, locked for as long as this object lives. The lock is the
// system's (flock), so that a killed process leaves none behind, and what it had written is overwritten or swept.
class PartialFile {
 public:
  enum class IfBusy { fail, wait };
  // IfBusy::fail throws TraceBusy when another writer, here or in another process, has the file in the making.
  PartialFile(const std::filesystem::path& target, IfBusy if_busy);
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  // Removes the file unless it was published.
  ~PartialFile();

  const std::filesystem::path& path() const { return path_; }
  // Flushes to disk and renames to the target. The file must be complete and closed.
  void publish();

 private:
  void close_file();

  std::filesystem::path target_;
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// Visits the files in the making whose process is gone; they stay locked during the visit.
void for_each_stale_partial(const std::filesystem::path& directory,
                            const std::function<void(const std::filesystem::path&)>& visit);

}  // namespace depthkv
