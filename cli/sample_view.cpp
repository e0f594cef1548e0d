// SPDX-License-Identifier: Apache-2.0
#include "cli/sample_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/ops.h"

namespace depthkv {
namespace {

constexpr std::int64_t kRowsPerBlock = 128;  // bounds the memory that a long sample takes; also a tile of the format

Span heads_of(const Trace& trace, const ViewOptions& options) {
  if (options.head) return {*options.head, *options.head + 1};
  return {0, trace.model().layers[static_cast<std::size_t>(options.layer)].query_heads};
}

// Softmax rows of some heads, a block of rows at a time.
class RowSource {
 public:
  RowSource(const Trace& trace, const ViewOptions& options)
      : trace_(trace), layer_(options.layer), heads_(heads_of(trace, options)) {
    if (trace.has(Channel::attention, layer_)) {
      rows_.resize(static_cast<std::size_t>(trace.sample().size()));
      std::iota(rows_.begin(), rows_.end(), 0);
      return;
    }
    rows_.assign(trace.query_rows().begin(), trace.query_rows().end());
    queries_ = trace.queries(layer_);
    keys_ = trace.keys(layer_);
  }

  const std::vector<std::int32_t>& rows() const { return rows_; }

  // Calls `take(index of the row, its weights)` for every row and head.
  template <class Take>
  void for_each(Take take) const {
    const auto count = static_cast<std::int64_t>(rows_.size());
    for (std::int64_t first = 0; first < count; first += kRowsPerBlock) {
      const std::int64_t block = std::min(kRowsPerBlock, count - first);
      const Tensor weights = read(first, block);
      const std::int64_t first_head = weights.heads() == heads_.end - heads_.begin ? 0 : heads_.begin;
      for (std::int64_t h = first_head; h < first_head + heads_.end - heads_.begin; ++h) {
        for (std::int64_t r = 0; r < block; ++r) take(first + r, weights.row(h, r));
      }
    }
  }

 private:
  Tensor read(std::int64_t first, std::int64_t count) const {
    if (trace_.has(Channel::attention, layer_)) return trace_.attention(layer_, {first, first + count});
    const ModelCard& model = trace_.model();
    const int group = model.layers[static_cast<std::size_t>(layer_)].group();
    const std::int64_t heads = heads_.end - heads_.begin;
    const View keys = keys_.view().head_range(heads_.begin / group, std::max<std::int64_t>(1, heads / group));
    return ops_for(Device::cpu)
        .attention_rows(queries_.view().head_range(heads_.begin, heads).row_range(first, count), keys,
                        std::span(rows_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)),
                        {model.attention_scale, model.logit_softcap});
  }

  const Trace& trace_;
  int layer_;
  Span heads_;
  std::vector<std::int32_t> rows_;
  Tensor queries_;
  Tensor keys_;
};

}  // namespace

bool has_attention(const Trace& trace, int layer) {
  return trace.has(Channel::attention, layer) ||
         (trace.has(Channel::queries, layer) && trace.has(Channel::keys, layer) && !trace.query_rows().empty());
}

void check_view(const Trace& trace, const ViewOptions& options) {
  const auto layers = static_cast<int>(trace.model().layers.size());
  if (options.layer < 0 || options.layer >= layers)
    throw InputError(fmt::format("--layer {}: the model has {} layers, 0 to {}", options.layer, layers, layers - 1));
  const int heads = trace.model().layers[static_cast<std::size_t>(options.layer)].query_heads;
  if (options.head && (*options.head < 0 || *options.head >= heads)) {
    throw InputError(
        fmt::format("--head {}: layer {} has {} query heads, 0 to {}", *options.head, options.layer, heads, heads - 1));
  }
}

Profile profile_of(const Trace& trace, const ViewOptions& options, std::int64_t most_bins) {
  if (!trace.has(Channel::column_sums, options.layer)) {
    throw InputError(fmt::format("{}: layer {} holds no column_sums, which the profile shows; use --map attention",
                                 trace.path().string(), options.layer));
  }
  const Tensor sums = trace.column_sums(options.layer, options.cut);
  const Span heads = heads_of(trace, options);
  Profile profile{Bins(sums.columns(), most_bins), {}};
  profile.values.assign(static_cast<std::size_t>(profile.bins.count), 0);
  for (std::int64_t bin = 0; bin < profile.bins.count; ++bin) {
    double sum = 0;
    const std::int64_t begin = profile.bins.first(bin);
    const std::int64_t end = profile.bins.first(bin + 1);
    for (std::int64_t h = heads.begin; h < heads.end; ++h) {
      for (std::int64_t t = begin; t < end; ++t)
        sum += static_cast<double>(sums.row(h, 0)[static_cast<std::size_t>(t)]);
    }
    profile.values[static_cast<std::size_t>(bin)] =
        sum / static_cast<double>((heads.end - heads.begin) * (end - begin));
  }
  return profile;
}

AttentionMap attention_map_of(const Trace& trace, const ViewOptions& options, std::int64_t most_rows,
                              std::int64_t most_keys) {
  if (!has_attention(trace, options.layer)) {
    throw InputError(
        fmt::format("{}: layer {} holds neither attention nor the queries and keys to recompute it from; "
                    "use --map column_sums, or record it with `depthkv trace --attention {}`",
                    trace.path().string(), options.layer, options.layer));
  }
  const RowSource source(trace, options);
  const auto count = static_cast<std::int64_t>(source.rows().size());
  AttentionMap map{trace.has(Channel::attention, options.layer) ? "recorded" : "recomputed from queries and keys",
                   source.rows(),
                   Bins(count, most_rows),
                   Bins(trace.sample().segments.at(options.cut), most_keys),
                   {}};
  map.values.assign(static_cast<std::size_t>(map.row_bins.count * map.key_bins.count), 0);
  const Span heads = heads_of(trace, options);
  source.for_each([&](std::int64_t row, std::span<const float> weights) {
    const std::int64_t bin = map.row_bins.of(row);
    const auto rows = static_cast<double>(map.row_bins.first(bin + 1) - map.row_bins.first(bin));
    const double share = 1 / (rows * static_cast<double>(heads.end - heads.begin));
    double* cells = map.values.data() + bin * map.key_bins.count;
    for (std::int64_t t = 0; t < map.key_bins.size; ++t)
      cells[map.key_bins.of(t)] += share * static_cast<double>(weights[static_cast<std::size_t>(t)]);
  });
  return map;
}

}  // namespace depthkv
