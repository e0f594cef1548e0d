// SPDX-License-Identifier: Apache-2.0
#include "tracer/state_spool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

#include "depthkv/error.h"

namespace depthkv {
namespace {

constexpr std::string_view kEnd = ".h5.partial";  // what is swept, should a process be killed before the name is gone

[[noreturn]] void fail(const std::filesystem::path& folder, const char* what, int reason) {
  throw Error(fmt::format(
      "{}: hidden states {} ({}); is the disk full? They need room there until their sample is finished: record fewer "
      "tokens, or without hidden_mean, hidden_unit_mean and hidden_scalars",
      folder.string(), what, reason == 0 ? "the file is shorter than it was" : std::strerror(reason)));
}

}  // namespace

StateSpool::StateSpool(const std::filesystem::path& folder, std::int64_t rows, std::int64_t width)
    : folder_(folder.empty() ? "." : folder), rows_(rows), width_(width) {
  std::string name = (folder_ / ".states-XXXXXX").string();
  name += kEnd;
  descriptor_ = mkostemps(name.data(), static_cast<int>(kEnd.size()), O_CLOEXEC);
  if (descriptor_ < 0) fail(folder_, "can't be put aside", errno);
  unlink(name.c_str());
}

StateSpool::~StateSpool() { close(descriptor_); }

std::int64_t StateSpool::offset(std::int64_t series, std::int64_t first) const {
  return (series * rows_ + first) * width_ * static_cast<std::int64_t>(sizeof(float));
}

void StateSpool::write(std::int64_t series, std::int64_t first, std::span<const float> rows) {
  auto left = std::as_bytes(rows);
  auto at = static_cast<off_t>(offset(series, first));
  while (!left.empty()) {
    const ssize_t count = pwrite(descriptor_, left.data(), left.size(), at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail(folder_, "can't be put aside", count < 0 ? errno : ENOSPC);
    left = left.subspan(static_cast<std::size_t>(count));
    at += count;
  }
}

void StateSpool::read(std::int64_t series, std::int64_t first, std::span<float> rows) const {
  auto left = std::as_writable_bytes(rows);
  auto at = static_cast<off_t>(offset(series, first));
  while (!left.empty()) {
    const ssize_t count = pread(descriptor_, left.data(), left.size(), at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail(folder_, "can't be read back", count < 0 ? errno : 0);
    left = left.subspan(static_cast<std::size_t>(count));
    at += count;
  }
}

}  // namespace depthkv
