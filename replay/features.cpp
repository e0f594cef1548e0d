// SPDX-License-Identifier: Apache-2.0
#include "replay/features.h"

#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"
#include "kernels/parallel.h"

namespace depthkv {
namespace {

// FNV-1a: a seed that depends on the sample's name only, so that a sample's results don't depend on its neighbours.
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

// Attention of some recorded rows, KV heads in parallel: [H, rows, T].
Tensor attention_of(const View& queries, const View& keys, std::span<const std::int32_t> positions, SoftmaxSpec spec,
                    const Ops& ops, int threads) {
  Tensor all(queries.heads, queries.rows, keys.rows);
  const std::int64_t group = queries.heads / keys.heads;
  parallel_for(keys.heads, threads, [&](std::int64_t g) {
    const Tensor part =
        ops.attention_rows(queries.head_range(g * group, group), keys.head_range(g, 1), positions, spec);
    const auto target = all.values().subspan(static_cast<std::size_t>(g) * part.values().size(), part.values().size());
    std::copy(part.values().begin(), part.values().end(), target.begin());
  });
  return all;
}

}  // namespace

RowPlan plan_rows(std::span<const std::int32_t> query_rows, std::int64_t cut, std::int64_t window_rows) {
  const auto at =
      static_cast<std::int64_t>(std::lower_bound(query_rows.begin(), query_rows.end(), cut) - query_rows.begin());
  std::int64_t begin = at;
  while (begin > 0 && at - begin < window_rows &&
         query_rows[static_cast<std::size_t>(begin - 1)] == cut - (at - begin) - 1) {
    --begin;
  }
  return {{begin, at}, {at, static_cast<std::int64_t>(query_rows.size())}};
}

std::optional<std::string> missing(const Trace& trace, const Needs& needs, Cut cut) {
  const auto holds = [&] {
    std::string list;
    for (const Channel channel : kChannels) {
      if (trace.has(channel, 0)) list += fmt::format("{}{}", list.empty() ? "" : ", ", to_string(channel));
    }
    return list;
  };
  const auto lacks = [&](Feature feature, Channel channel) {
    return needs.has(feature) && !trace.has(channel, 0) ? std::optional(channel) : std::nullopt;
  };
  for (const auto& channel : {lacks(Feature::keys, Channel::keys), lacks(Feature::values, Channel::values),
                              lacks(Feature::column_sums, Channel::column_sums),
                              lacks(Feature::window, Channel::queries), lacks(Feature::judged, Channel::queries)}) {
    if (channel) return fmt::format("needs {}, the trace holds {}", to_string(*channel), holds());
  }
  const std::int64_t at = trace.sample().segments.at(cut);
  const Span window = plan_rows(trace.query_rows(), at, needs.window_rows).window;
  const std::int64_t wanted = std::min(needs.window_rows, at);
  if (needs.has(Feature::window) && window.end - window.begin < wanted) {
    return fmt::format("needs the last {} query rows before the cut, the trace holds {}", wanted,
                       window.end - window.begin);
  }
  return std::nullopt;
}

LayerData load_layer(const Trace& trace, int layer, const LoadRequest& request, const Ops& ops) {
  const ModelCard& model = trace.model();
  const std::int64_t cut = trace.sample().segments.at(request.cut);
  const RowPlan rows = plan_rows(trace.query_rows(), cut, request.window_rows);
  const SoftmaxSpec spec = softmax_of(model, layer);
  const auto take = [](Span span) {
    return std::pair(static_cast<std::size_t>(span.begin), static_cast<std::size_t>(span.end - span.begin));
  };

  LayerData data;
  data.keys = trace.keys(layer);
  data.values = trace.values(layer);
  if (request.needs.has(Feature::column_sums)) data.column_sums = trace.column_sums(layer, request.cut);
  const Tensor queries = trace.queries(layer);
  const auto attention = [&](Span span) {
    const auto [first, count] = take(span);
    return attention_of(queries.view().row_range(span.begin, span.end - span.begin), data.keys.view(),
                        trace.query_rows().subspan(first, count), spec, ops, request.threads);
  };
  if (rows.window.end > rows.window.begin) data.window = attention(rows.window);
  if (rows.judged.end > rows.judged.begin) {
    data.judged = attention(rows.judged);
    if (request.needs.has(Feature::judged)) data.judged_sums = ops.column_sums(data.judged.view().first_columns(cut));
  }

  LayerFeatures& seen = data.features;
  seen.layer = layer;
  seen.layers = static_cast<int>(model.layers.size());
  seen.shape = model.layers[static_cast<std::size_t>(layer)];
  seen.tokens = cut;
  seen.sample_seed = hash_of(trace.sample().id);
  seen.keys = data.keys.view().row_range(0, cut);
  seen.values = data.values.view().row_range(0, cut);
  seen.column_sums = data.column_sums.view();
  if (!data.window.empty()) seen.window = data.window.view().first_columns(cut);
  seen.judged_sums = data.judged_sums.view();
  return data;
}

}  // namespace depthkv
