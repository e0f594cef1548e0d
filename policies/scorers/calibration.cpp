// SPDX-License-Identifier: Apache-2.0
#include "policies/scorers/calibration.h"

#include <fmt/format.h>

#include "depthkv/error.h"
#include "depthkv/trace.h"

namespace depthkv {

void QuerySums::add(std::span<const float> query, double weight) {
  const std::size_t d = sum.size();
  for (std::size_t a = 0; a < d; ++a) {
    const double x = weight * static_cast<double>(query[a]);
    sum[a] += x;
    for (std::size_t b = 0; b < d; ++b) squares[a * d + b] += x * static_cast<double>(query[b]);
  }
}

Calibration::Calibration(const std::filesystem::path& folder) : folder_(folder) {
  files_ = open_trace_set(folder).files;
  if (files_.empty()) throw InputError(fmt::format("{}: holds no recorded sample to calibrate on", folder.string()));
  for (const auto& file : files_) {
    by_sample_[Trace::open(file).sample().id] = file;
    source_ += fmt::format("{} {} {}\n", file.filename().string(), std::filesystem::file_size(file),
                           std::filesystem::last_write_time(file).time_since_epoch().count());
  }
}

void Calibration::add(const std::filesystem::path& file, int layer, double weight, std::vector<QuerySums>& sums) const {
  const Trace trace = Trace::open(file);
  const Tensor queries = trace.queries(layer);
  if (sums.empty())
    sums.assign(static_cast<std::size_t>(queries.heads()), QuerySums(static_cast<std::size_t>(queries.columns())));
  if (queries.heads() != static_cast<std::int64_t>(sums.size()) ||
      queries.columns() != static_cast<std::int64_t>(sums[0].sum.size()))
    throw InputError(fmt::format("{}: queries of another shape than its neighbours'", file.string()));
  const auto rows = trace.query_rows();
  for (std::int64_t r = 0; r < queries.rows(); ++r) {
    if (rows[static_cast<std::size_t>(r)] >= trace.sample().segments.prompt_end) break;
    for (std::int64_t h = 0; h < queries.heads(); ++h) sums[static_cast<std::size_t>(h)].add(queries.row(h, r), weight);
  }
}

std::vector<QuerySums> Calibration::without(const std::string& sample, const LayerFeatures& layer) const {
  const std::lock_guard hold(mutex_);
  auto [total, missing] = totals_.try_emplace(layer.layer);
  if (missing) {
    for (const auto& file : files_) add(file, layer.layer, 1, total->second);
  }
  std::vector<QuerySums> sums = total->second;
  const auto heads = static_cast<std::size_t>(layer.first_kv_head * layer.shape.group());
  const auto wanted = heads + static_cast<std::size_t>(layer.shape.query_heads);
  if (sums.size() < wanted || sums[0].sum.size() != static_cast<std::size_t>(layer.shape.head_dim))
    throw InputError(
        fmt::format("{}: holds {} query heads of {} dimensions, the sample {} of {}; calibrate on the same model",
                    folder_.string(), sums.size(), sums[0].sum.size(), wanted, layer.shape.head_dim));
  if (const auto own = by_sample_.find(sample); own != by_sample_.end()) {
    if (files_.size() == 1)
      throw InputError(fmt::format("{}: holds sample {} only; calibrate on others than the one that is scored",
                                   folder_.string(), sample));
    add(own->second, layer.layer, -1, sums);
  }
  return {sums.begin() + static_cast<std::ptrdiff_t>(heads), sums.begin() + static_cast<std::ptrdiff_t>(wanted)};
}

}  // namespace depthkv
