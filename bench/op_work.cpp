// SPDX-License-Identifier: Apache-2.0
#include "bench/op_work.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "kernels/loops/loops.h"

namespace depthkv {
namespace {

// Keeps a result from being optimised away.
template <class T>
void keep(const T& result) {
  asm volatile("" : : "r"(&result) : "memory");
}

struct Inputs {
  const Ops& ops;
  KernelCase c;
  KernelInputs in;
  Tensor scores;
  std::vector<std::uint32_t> ranking;
  std::vector<std::uint32_t> kept;  // the best half of it, by position
  std::vector<std::span<const std::uint32_t>> rankings;

  Inputs(const KernelCase& kernel_case, const Ops& back_end) : ops(back_end), c(kernel_case), in(c, 1) {
    scores = ops.row_norms(in.keys.view(), Norm::l2);
    const Ranking ranked = ops.rank(scores.view().head_range(0, 1), {4, 32});
    ranking.assign(ranked.head(0).begin(), ranked.head(0).end());
    kept.assign(ranking.begin(), ranking.begin() + static_cast<std::ptrdiff_t>(ranking.size() / 2));
    std::sort(kept.begin(), kept.end());
    rankings.emplace_back(ranking);
  }

  double query_heads() const { return c.kv_heads * c.group; }
  double tokens() const { return static_cast<double>(c.tokens); }
  double rows() const { return static_cast<double>(c.rows); }
  double width() const { return static_cast<double>(c.columns); }
  double group_rows() const { return c.group * rows(); }
  // Pairs of a row and a key that it sees, per head.
  double seen() const { return rows() * (tokens() - rows()) + rows() * (rows() + 1) / 2; }
};
using Shared = std::shared_ptr<const Inputs>;

constexpr double kFloat = sizeof(float);
constexpr double kHalf = sizeof(std::uint16_t);
constexpr double kDouble = sizeof(double);

OpWork attention_rows(const Shared& x) {
  const double outputs = x->group_rows() * x->tokens();
  const double inputs = x->group_rows() * x->width() + x->tokens() * x->width();
  const View queries = x->in.queries.view().head_range(0, x->c.group);
  const View keys = x->in.keys.view().head_range(0, 1);
  return {"attention_rows",
          [x, queries, keys] { keep(x->ops.attention_rows(queries, keys, x->in.positions, x->in.spec)); },
          2 * x->width() * x->seen() * x->c.group,
          kFloat * (inputs + outputs),
          {x->c.rows, x->c.tokens, x->c.columns}};
}

OpWork attention_sums(const Shared& x) {
  const View queries = x->in.queries.view().head_range(0, x->c.group);
  const HalfRows keys = x->in.halves().head(0);
  auto sums = std::make_shared<std::vector<double>>(static_cast<std::size_t>(x->c.group * x->c.tokens));
  return {
      "attention_sums",
      [x, queries, keys, sums] { x->ops.attention_sums(queries, keys, x->c.tokens - x->c.rows, x->in.spec, *sums); },
      2 * x->width() * x->seen() * x->c.group,
      kFloat * x->group_rows() * x->width() + kHalf * x->tokens() * x->width() + 2 * kDouble * x->c.group * x->tokens(),
      {x->c.rows, x->c.tokens, x->c.columns}};
}

OpWork attention_maxima(const Shared& x) {
  const View queries = x->in.queries.view().head_range(0, x->c.group);
  const HalfRows keys = x->in.halves().head(0);
  const std::vector<float> weights(static_cast<std::size_t>(x->c.rows), 1.0F);
  auto maxima = std::make_shared<std::vector<float>>(static_cast<std::size_t>(x->c.group * x->c.tokens));
  return {"attention_maxima",
          [x, queries, keys, weights, maxima] {
            x->ops.attention_maxima(queries, keys, x->c.tokens - x->c.rows, x->in.spec, weights, *maxima);
          },
          2 * x->width() * x->seen() * x->c.group,
          kFloat * (x->group_rows() * x->width() + x->rows() + 2.0 * x->c.group * x->tokens()) +
              kHalf * x->tokens() * x->width(),
          {x->c.rows, x->c.tokens, x->c.columns}};
}

OpWork column_sums(const Shared& x) {
  const double sums = x->query_heads() * x->tokens();
  return {
      "column_sums", [x] { keep(x->ops.column_sums(x->in.attention.view())); }, 0, kFloat * sums * (x->rows() + 1), {}};
}

OpWork row_norms(const Shared& x) {
  const double norms = x->c.kv_heads * x->tokens();
  return {"row_norms",
          [x] { keep(x->ops.row_norms(x->in.keys.view(), Norm::l2)); },
          0,
          kFloat * norms * (x->width() + 1),
          {}};
}

OpWork projected_norms(const Shared& x) {
  const View values = x->in.values.view().head_range(0, 1);
  const View weights = x->in.weights.view().head_range(0, x->c.group);
  const auto outputs = static_cast<double>(weights.columns);
  return {"projected_norms",
          [x, values, weights] { keep(x->ops.projected_norms(values, weights)); },
          2 * x->c.group * x->tokens() * x->width() * outputs,
          kFloat * (x->tokens() * x->width() + x->c.group * (x->width() * outputs + 2 * x->tokens())),
          {x->c.tokens, weights.columns, x->c.columns}};
}

// The outer products of one head's vectors, as the tracer adds them up.
OpWork moments(const Shared& x) {
  const auto width = static_cast<std::size_t>(x->c.columns);
  auto sums = std::make_shared<std::vector<double>>(width * width);
  const auto run = [x, sums, width] {
    for (std::int64_t first = 0; first < x->c.tokens; first += static_cast<std::int64_t>(kMomentRows))
      loops().add_products(x->in.values.row(0, first).data(), width, sums->data());
  };
  return {"moments",
          run,
          x->tokens() * x->width() * (x->width() + 1),
          kFloat * x->tokens() * x->width() + 2 * kDouble * x->width() * x->width(),
          {x->c.columns, x->c.columns, x->c.tokens}};
}

OpWork rank(const Shared& x) {
  return {"rank",
          [x] {
            keep(x->ops.rank(x->scores.view(), {4, 32}));
          },
          0,
          (kFloat + sizeof(std::uint32_t)) * x->c.kv_heads * x->tokens(),
          {}};
}

// Products: the output of all keys, the values' with it, the running output, and its norm.
OpWork accumulate_losses(const Shared& x) {
  auto curves = std::make_shared<LossCurves>(x->c.tokens);
  const LossInput input{x->in.attention.view().head_range(0, x->c.group), x->in.values.view().head_range(0, 1),
                        x->rankings};
  return {"accumulate_losses",
          [x, curves, input] {
            x->ops.accumulate_losses(input, {curves.get(), 1});
          },
          8 * x->group_rows() * x->tokens() * x->width(),
          kFloat * x->tokens() * (x->group_rows() + x->width() + 1) + 4 * kDouble * x->tokens(),
          {x->c.group * x->c.rows, x->c.columns, x->c.tokens}};
}

OpWork set_losses(const Shared& x) {
  const SetInput input{x->in.attention.view().head_range(0, x->c.group), x->in.values.view().head_range(0, 1), x->kept,
                       x->c.tokens};
  return {"set_losses",
          [x, input] { keep(x->ops.set_losses(input)); },
          2 * x->group_rows() * x->tokens() * x->width(),
          kFloat * x->tokens() * (x->group_rows() + x->width() + 0.5),
          {x->c.group * x->c.rows, x->c.columns, x->c.tokens}};
}

// A few of its tokens are marked.
OpWork evidence_curves(const Shared& x) {
  auto ranking = std::make_shared<Ranking>(shuffled_ranking(x->c.kv_heads, x->c.tokens, 1));
  std::vector<std::uint8_t> marked(static_cast<std::size_t>(x->c.tokens));
  for (std::size_t j = marked.size() / 3; j < marked.size() / 3 + 20; ++j) marked[j] = 1;
  return {"evidence_curves",
          [x, ranking, marked] { keep(x->ops.evidence_curves(*ranking, marked)); },
          0,
          (sizeof(std::uint32_t) + kFloat) * x->c.kv_heads * x->tokens() + x->tokens(),
          {}};
}

// Half of all entries of thirty-two layers. What it reads doesn't grow with the lists' lengths: its bytes are those of
// the items that each step of the search looks at.
OpWork pooled_best(const Shared& x) {
  constexpr int kLayers = 32;
  constexpr double kSteps = 32;  // bits of a threshold
  auto pool = std::make_shared<Pool>(kLayers * x->c.kv_heads, x->c.tokens, 0, 1);
  const auto half = static_cast<std::int64_t>(pool->scores.size() / 2);
  return {"pooled_best",
          [x, pool, half] { keep(x->ops.pooled_best(pool->lists(), half)); },
          0,
          kFloat * kSteps * kLayers * x->c.kv_heads * std::log2(x->tokens()),
          {}};
}

constexpr std::int64_t kPage = 16;  // tokens, as Quest has them

OpWork page_bounds(const Shared& x) {
  const double keys = x->c.kv_heads * x->tokens() * x->width();
  return {"page_bounds",
          [x] { keep(x->ops.page_bounds(x->in.keys.view(), kPage)); },
          0,
          kFloat * keys * (1 + 2.0 / kPage),
          {}};
}

// A product for each dimension; the CPU takes two.
OpWork page_scores(const Shared& x) {
  const View queries = x->in.queries.view().head_range(0, x->c.group);
  auto bounds = std::make_shared<PageBounds>(x->ops.page_bounds(x->in.keys.view().head_range(0, 1), kPage));
  const double pages = x->tokens() / kPage;
  return {"page_scores",
          [x, queries, bounds] { keep(x->ops.page_scores(queries, *bounds)); },
          2 * x->group_rows() * pages * x->width(),
          kFloat * (x->group_rows() * (x->width() + pages) + 2 * pages * x->width()),
          {x->c.group * x->c.rows, x->c.tokens / kPage, x->c.columns}};
}

// KIVI's groups of 32.
OpWork quantise(const Shared& x, std::string_view name, QuantiseSpec spec) {
  return {name,
          [x, spec] { keep(x->ops.quantise(x->in.values.view(), spec)); },
          0,
          2 * kFloat * x->c.kv_heads * x->tokens() * x->width(),
          {}};
}
OpWork quantise_keys(const Shared& x) { return quantise(x, "quantise_keys", {2, QuantiseSpec::Along::tokens, 32}); }
OpWork quantise_values(const Shared& x) {
  return quantise(x, "quantise_values", {2, QuantiseSpec::Along::channels, 32});
}

// So many entries of one head are kept at any length, so that cost grows with what is dropped.
constexpr std::size_t kKeptEntries = 256;

OpWork nearest_kept(const Shared& x) {
  auto parts = std::make_shared<KeptAndDropped>(x->c.tokens, kKeptEntries);
  const auto kept = static_cast<double>(parts->kept.size());
  const auto dropped = static_cast<double>(parts->dropped.size());
  const View keys = x->in.keys.view().head_range(0, 1);
  return {"nearest_kept",
          [x, parts, keys] { keep(x->ops.nearest_kept(keys, parts->kept, parts->dropped)); },
          2 * kept * dropped * x->width(),
          kFloat * ((kept + dropped) * (x->width() + 1) + 2 * dropped),
          {static_cast<std::int64_t>(dropped), static_cast<std::int64_t>(kept), x->c.columns}};
}

OpWork merge_rows(const Shared& x) {
  auto parts = std::make_shared<KeptAndDropped>(x->c.tokens, kKeptEntries);
  std::vector<std::uint32_t> into;
  for (std::size_t e = 0; e < parts->dropped.size(); ++e)
    into.push_back(static_cast<std::uint32_t>(e * 7 % parts->kept.size()));
  const std::vector<float> ones(into.size(), 1.0F);
  const View values = x->in.values.view().head_range(0, 1);
  const auto kept = static_cast<double>(parts->kept.size());
  const auto dropped = static_cast<double>(into.size());
  return {"merge_rows",
          [x, parts, into, ones, values] {
            keep(x->ops.merge_rows({values, parts->kept, parts->dropped, into, ones, ones}));
          },
          0,
          kFloat * ((2 * kept + dropped) * x->width() + kept + 4 * dropped),
          {}};
}

// About half of the columns of four sets, in runs and one by one.
OpWork hide_entries(const Shared& x) {
  auto logits = std::make_shared<Tensor>(x->in.attention);
  auto hidden = std::make_shared<HiddenColumns>(x->c.kv_heads, 4, x->c.tokens, x->c.rows, 1);
  double columns = 0;
  for (std::int64_t g = 0; g < hidden->kv_heads; ++g)
    for (const std::uint32_t set : hidden->row_sets)
      for (const std::uint32_t word : hidden->view().set(g, set)) columns += std::popcount(word);
  return {"hide_entries",
          [x, logits, hidden] {
            x->ops.hide_entries({logits->values().data(), logits->heads(), logits->rows(), logits->columns()},
                                hidden->view(), hidden->row_sets);
          },
          0,
          kFloat * (x->c.group * columns + static_cast<double>(hidden->bits.size() + hidden->row_sets.size())),
          {}};
}

}  // namespace

std::vector<OpWork> works_of(const KernelCase& c, Device device) {
  const auto inputs = std::make_shared<const Inputs>(c, ops_for(device));
  std::vector<OpWork> works;
  for (const auto make : {attention_rows, attention_sums, attention_maxima, column_sums, row_norms, projected_norms,
                          moments, rank, accumulate_losses, set_losses, evidence_curves, pooled_best, page_bounds,
                          page_scores, quantise_keys, quantise_values, nearest_kept, merge_rows, hide_entries})
    works.push_back(make(inputs));
  return works;
}

std::function<void()> copy_of(double bytes) {
  const auto half = static_cast<std::size_t>(bytes / 2);
  auto from = std::make_shared<std::vector<char>>(half, 'a');
  auto to = std::make_shared<std::vector<char>>(half, 'b');
  return [from, to] {
    std::memcpy(to->data(), from->data(), to->size());
    asm volatile("" : : "r"(to->data()) : "memory");
  };
}

}  // namespace depthkv
