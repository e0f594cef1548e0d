// SPDX-License-Identifier: Apache-2.0
#include "replay/features.h"

#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"
#include "kernels/parallel.h"
#include "kernels/rotary.h"

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
  if (threads_of(threads) == 1) return ops.attention_rows(queries, keys, positions, spec);
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

namespace {

// What a feature is taken from.
struct Source {
  Feature feature;
  Channel channel;
};
constexpr Source kSources[] = {{Feature::keys, Channel::keys},
                               {Feature::values, Channel::values},
                               {Feature::column_sums, Channel::column_sums},
                               {Feature::window, Channel::queries},
                               {Feature::question, Channel::queries},
                               {Feature::unrotated_keys, Channel::keys},
                               {Feature::queries, Channel::queries},
                               {Feature::query_moments, Channel::query_second_moment},
                               {Feature::query_moments, Channel::query_mean},
                               {Feature::output_norms, Channel::value_output_norms},
                               {Feature::cosines, Channel::attention_cosines},
                               {Feature::hidden, Channel::hidden_scalars},
                               {Feature::judged, Channel::queries},
                               {Feature::window_queries, Channel::queries},
                               {Feature::repeated, Channel::repeat_max}};

std::string channels_of(const Trace& trace) {
  std::string list;
  for (const Channel channel : kChannels) {
    if (trace.has(channel, 0)) list += fmt::format("{}{}", list.empty() ? "" : ", ", to_string(channel));
  }
  return list;
}

std::int64_t window_rows_of(const Trace& trace, const Needs& needs, Cut cut) {
  const std::int64_t at = trace.sample().segments.at(cut);
  const std::int64_t question = needs.has(Feature::question) ? at - trace.sample().segments.context.end : 0;
  return std::min(std::max(needs.window_rows, question), at);
}

}  // namespace

std::optional<std::string> missing(const Trace& trace, const Needs& needs, Cut cut) {
  for (const Source& source : kSources) {
    if (needs.has(source.feature) && !trace.has(source.channel, 0))
      return fmt::format("needs {0}, the trace holds {1}; record with {0}", to_string(source.channel),
                         channels_of(trace));
  }
  if (trace.model().rotary_layout == "other" &&
      (needs.has(Feature::unrotated_keys) || needs.has(Feature::query_moments)))
    return "needs to undo the rotation of keys or queries, which the trace can't describe (rotary_layout: other)";
  const std::int64_t at = trace.sample().segments.at(cut);
  if (needs.has(Feature::question) && at == trace.sample().segments.context.end)
    return "needs a question below the cut; there is none (cut: prompt has one where the task does)";
  const auto held = [&](std::int64_t wanted) {
    const Span window = plan_rows(trace.query_rows(), at, wanted).window;
    return window.end - window.begin;
  };
  if (needs.has(Feature::queries) && held(at) < at) return "needs the queries of all rows; record with queries: all";
  const std::int64_t wanted = window_rows_of(trace, needs, cut);
  if (held(wanted) < wanted)
    return fmt::format("needs the last {} query rows before the cut, the trace holds {}", wanted, held(wanted));
  return std::nullopt;
}

LayerData load_layer(const Trace& trace, int layer, const LoadRequest& request, const Ops& ops) {
  const ModelCard& model = trace.model();
  const Needs& wanted = request.needs;
  const std::int64_t cut = trace.sample().segments.at(request.cut);
  const RowPlan rows =
      plan_rows(trace.query_rows(), cut, std::max(request.window_rows, window_rows_of(trace, wanted, request.cut)));
  const SoftmaxSpec spec = softmax_of(model, layer);

  LayerData data;
  data.keys = trace.keys(layer);
  data.values = trace.values(layer);
  data.queries = trace.queries(layer);
  if (wanted.has(Feature::column_sums)) data.column_sums = trace.column_sums(layer, request.cut);
  if (wanted.has(Feature::query_moments)) {
    data.query_mean = trace.query_mean(layer, request.cut);
    data.query_second_moment = trace.query_second_moment(layer, request.cut);
  }
  if (wanted.has(Feature::output_norms)) {
    data.output_norms_l1 = trace.value_output_norms(layer, Norm::l1);
    data.output_norms_l2 = trace.value_output_norms(layer, Norm::l2);
  }
  if (wanted.has(Feature::cosines)) data.cosines = trace.attention_cosines(layer);
  if (wanted.has(Feature::hidden)) data.hidden_scalars = trace.hidden_scalars(layer);
  if (wanted.has(Feature::repeated)) {
    data.repeat_chunk = trace.repeat_max(layer, Repeat::chunk, request.cut);
    data.repeat_per_input = trace.repeat_max(layer, Repeat::chunk_per_input, request.cut);
    data.repeat_cache = trace.repeat_max(layer, Repeat::cache, request.cut);
  }
  const auto attention = [&](Span span) {
    const auto first = static_cast<std::size_t>(span.begin);
    const auto count = static_cast<std::size_t>(span.end - span.begin);
    return attention_of(data.queries.view().row_range(span.begin, span.end - span.begin), data.keys.view(),
                        trace.query_rows().subspan(first, count), spec, ops, request.threads);
  };
  if (rows.window.end > rows.window.begin) data.window = attention(rows.window);
  if (rows.judged.end > rows.judged.begin) {
    data.judged = attention(rows.judged);
    if (wanted.has(Feature::judged)) data.judged_sums = ops.column_sums(data.judged.view().first_columns(cut));
  }

  LayerFeatures& seen = data.features;
  seen.layer = layer;
  seen.layers = static_cast<int>(model.layers.size());
  seen.shape = model.layers[static_cast<std::size_t>(layer)];
  seen.tokens = cut;
  seen.frame_rows = trace.sample().segments.context.begin;
  seen.question_rows = cut - trace.sample().segments.context.end;
  seen.sample = trace.sample().id;
  seen.sample_seed = hash_of(trace.sample().id);
  seen.attention_scale = model.attention_scale;
  seen.rotary = rotary_of(model, layer);
  seen.keys = data.keys.view().row_range(0, cut);
  seen.values = data.values.view().row_range(0, cut);
  if (wanted.has(Feature::unrotated_keys)) {
    data.unrotated_keys = unrotated(seen.keys, seen.rotary);
    seen.unrotated_keys = data.unrotated_keys.view();
  }
  if (wanted.has(Feature::queries)) seen.queries = data.queries.view().row_range(0, cut);
  seen.column_sums = data.column_sums.view();
  seen.query_mean = data.query_mean.view();
  seen.query_second_moment = data.query_second_moment.view();
  if (wanted.has(Feature::output_norms)) {
    seen.output_norms_l1 = data.output_norms_l1.view().first_columns(cut);
    seen.output_norms_l2 = data.output_norms_l2.view().first_columns(cut);
  }
  if (wanted.has(Feature::cosines)) seen.cosines = data.cosines.view().head_range(1, 1);
  seen.hidden_scalars = data.hidden_scalars.view();
  seen.repeat_chunk = data.repeat_chunk.view();
  seen.repeat_per_input = data.repeat_per_input.view();
  seen.repeat_cache = data.repeat_cache.view();
  if (!data.window.empty()) seen.window = data.window.view().first_columns(cut);
  if (wanted.has(Feature::window_queries))
    seen.window_queries = data.queries.view().row_range(rows.window.begin, rows.window.end - rows.window.begin);
  if (wanted.has(Feature::judged)) {
    seen.judged_sums = data.judged_sums.view();
    seen.judged = data.judged.view();
    seen.all_values = data.values.view();
  }
  return data;
}

}  // namespace depthkv
