// SPDX-License-Identifier: Apache-2.0
// block: the cache is filled block by block and cut back to the budget after each, so that memory never exceeds budget
// plus block.   BlockPress, as KeyDiff's paper runs it, arXiv:2504.15364
// Starts from the first `kept` positions; every next block of `size` competes with what was kept, all scored anew by
// themselves. What is kept depends on the budget in ways that nest in nothing, so sets are evaluated one by one; curves
// that allocators see are those of the scorer's plain ranking. Protected positions are kept whenever they come by.
// A scorer must be able to score a part of the cache by itself.
#include <algorithm>
#include <memory>
#include <numeric>

#include "depthkv/policy.h"
#include "policies/structures/stages.h"

namespace depthkv {
namespace {

// A head's rows at chosen positions.
Tensor gathered(const View& rows, std::int64_t first_head, std::int64_t heads, const std::vector<std::uint32_t>& at) {
  if (rows.data == nullptr) return {};
  Tensor out(heads, static_cast<std::int64_t>(at.size()), rows.columns);
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::size_t i = 0; i < at.size(); ++i)
      std::ranges::copy(rows.row(first_head + h, at[i]), out.row(h, static_cast<std::int64_t>(i)).begin());
  return out;
}

// Norms are [head, 1, n]: their columns are the positions.
Tensor gathered_columns(const View& norms, std::int64_t first_head, std::int64_t heads,
                        const std::vector<std::uint32_t>& at) {
  if (norms.data == nullptr) return {};
  Tensor out(heads, 1, static_cast<std::int64_t>(at.size()));
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::size_t i = 0; i < at.size(); ++i) out.row(h, 0)[i] = norms.row(first_head + h, 0)[at[i]];
  return out;
}

View view_of(const Tensor& tensor) { return tensor.empty() ? View{} : tensor.view(); }

// Scores of the positions `at` of one KV head, as if nothing else were there.
Tensor score_alone(const LayerFeatures& layer, const Scorer& scorer, int kv_head, const std::vector<std::uint32_t>& at,
                   const Ops& ops) {
  const int group = layer.shape.group();
  const std::int64_t first = std::int64_t{kv_head} * group;
  const Tensor keys = gathered(layer.keys, kv_head, 1, at);
  const Tensor values = gathered(layer.values, kv_head, 1, at);
  const Tensor unrotated = gathered(layer.unrotated_keys, kv_head, 1, at);
  const Tensor queries = gathered(layer.queries, first, group, at);
  const Tensor l1 = gathered_columns(layer.output_norms_l1, first, group, at);
  const Tensor l2 = gathered_columns(layer.output_norms_l2, first, group, at);
  LayerFeatures part = layer;
  part.shape.kv_heads = 1;
  part.shape.query_heads = group;
  part.first_kv_head = layer.first_kv_head + kv_head;
  part.tokens = static_cast<std::int64_t>(at.size());
  part.left_out = layer.left_out + std::int64_t{at.back()} + 1 - part.tokens;
  part.keys = view_of(keys);
  part.values = view_of(values);
  part.unrotated_keys = view_of(unrotated);
  part.queries = view_of(queries);
  part.output_norms_l1 = view_of(l1);
  part.output_norms_l2 = view_of(l2);
  if (part.query_mean.data != nullptr) part.query_mean = part.query_mean.head_range(first, group);
  if (part.query_second_moment.data != nullptr)
    part.query_second_moment = part.query_second_moment.head_range(first, group);
  return scorer.score(part, ops);
}

}  // namespace

Structure make_block(Params& params) {
  const auto size = params.take_in("size", std::int64_t{128}, 1, std::int64_t{1} << 20);
  Structure structure;
  structure.positional = true;
  structure.rank = [](const LayerFeatures& layer, const Scorer& scorer, Protect protect, const Ops& ops) {
    Ranked ranked;
    ranked.scores = scorer.score(layer, ops);
    ranked.ranking = order_of(layer, scorer, ranked.scores, protect, ops);
    return ranked;
  };
  structure.select = [=](const LayerFeatures& layer, const Scorer& scorer, Protect protect, const Ops& ops) -> KeptSet {
    return [=, &ops](int kv_head, std::int64_t kept) {
      std::vector<std::uint32_t> at(static_cast<std::size_t>(std::min(kept, layer.tokens)));
      std::iota(at.begin(), at.end(), 0U);
      for (std::int64_t next = kept; next < layer.tokens && kept > 0; next += size) {
        for (std::int64_t j = next; j < std::min(layer.tokens, next + size); ++j)
          at.push_back(static_cast<std::uint32_t>(j));
        Tensor scores = score_alone(layer, scorer, kv_head, at, ops);
        for (std::size_t i = 0; i < at.size(); ++i) {
          if (at[i] < protect.first || at[i] >= layer.tokens - protect.last) scores.row(0, 0)[i] = kForced;
        }
        const Ranking order = ops.rank(scores.view(), {});
        std::vector<std::uint32_t> best;
        for (std::int64_t i = 0; i < kept; ++i) best.push_back(at[order.head(0)[static_cast<std::size_t>(i)]]);
        std::sort(best.begin(), best.end());
        at = std::move(best);
      }
      return at;
    };
  };
  return structure;
}

}  // namespace depthkv
