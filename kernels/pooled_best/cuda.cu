// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_lane.h"
#include "kernels/pooled_best/device.cuh"
#include "kernels/pooled_best/pooled_best.h"

namespace depthkv::cuda {
namespace {

const long long* upload_integers(Lane& lane, std::span<const std::int64_t> from) {
  static_assert(sizeof(std::int64_t) == sizeof(long long));
  const std::vector<long long> values(from.begin(), from.end());
  return lane.upload(std::span(values));
}

}  // namespace

std::vector<std::int64_t> pooled_best(const PooledLists& lists, std::int64_t entries) {
  const std::size_t count = lists.costs.size();
  if (count == 0) return {};
  std::int64_t longest = 0;
  for (std::size_t u = 0; u < count; ++u) longest = std::max(longest, lists.begins[u + 1] - lists.begins[u]);
  const UseLane lane;
  const PoolBlock pool{lane->upload(lists.scores),
                       upload_integers(*lane, lists.begins),
                       upload_integers(*lane, lists.costs),
                       lists.factors.empty() ? nullptr : lane->upload(lists.factors),
                       static_cast<int>(count),
                       longest,
                       lists.unscaled,
                       lists.most,
                       entries};
  auto* taken = lane->room<long long>(count);
  launch({.grid = {1}, .block = {kScanThreads}, .stream = lane->stream()}, pooled_best_kernel, pool,
         lane->room<long long>(count), lane->room<long long>(count), taken);
  const auto found = lane->download(taken, count);
  lane->wait();
  return {found.begin(), found.end()};
}

}  // namespace depthkv::cuda
