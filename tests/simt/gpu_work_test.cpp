// SPDX-License-Identifier: Apache-2.0
// That bench/gpu_work counts what launchers send and fetch, and knows the shapes of the kernels.
#include "bench/gpu_work.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/attention_maxima/attention_maxima.h"
#include "kernels/attention_rows/attention_rows.h"
#include "kernels/attention_sums/attention_sums.h"
#include "kernels/column_sums/column_sums.h"
#include "kernels/evidence_curves/evidence_curves.h"
#include "kernels/hide_entries/hide_entries.h"
#include "kernels/merge/merge.h"
#include "kernels/page_bounds/page_bounds.h"
#include "kernels/projected_norms/projected_norms.h"
#include "kernels/quantise/quantise.h"
#include "kernels/rank/rank.h"
#include "kernels/row_norms/row_norms.h"
#include "kernels/set_losses/set_losses.h"
#include "kernels/simt/memory.h"
#include "kernels/tiles.cuh"
#pragma GCC diagnostic ignored "-Wunused-function"
#include "kernels/accumulate_losses/device.cuh"

namespace depthkv {
namespace {

static_assert(tile::kHeld == cuda::kHeld && tile::kStreamed == cuda::kStreamed && tile::kChunk == cuda::kChunk);
static_assert(tile::kLossRows == cuda::kLossRows && tile::kTaken == cuda::kTaken);

template <class Call>
void expect_traffic(const GpuWork& work, Call call) {
  const simt::Traffic before = simt::traffic();
  call();
  const simt::Traffic after = simt::traffic();
  EXPECT_EQ(static_cast<double>(after.to_device - before.to_device), work.to_device) << work.op;
  EXPECT_EQ(static_cast<double>(after.to_host - before.to_host), work.to_host) << work.op;
}

class GpuWorks : public testing::TestWithParam<KernelCase> {
 protected:
  const KernelCase& c = GetParam();
  KernelInputs in{GetParam(), 3};
};
INSTANTIATE_TEST_SUITE_P(Cases, GpuWorks,
                         testing::Values(KernelCase{"even", 2, 2, 128, 64, 64}, KernelCase{"ragged", 3, 3, 131, 17, 40},
                                         KernelCase{"wide", 1, 2, 100, 9, 200}),
                         [](const auto& test) { return test.param.name; });

TEST_P(GpuWorks, CountWhatLaunchersSendAndFetch) {
  const View keys = in.keys.view();
  expect_traffic(gpu_attention_rows(c, c.kv_heads),
                 [&] { cuda::attention_rows(in.queries.view(), keys, in.positions, {}); });
  std::vector<double> sums(static_cast<std::size_t>(in.queries.heads() * c.tokens));
  expect_traffic(gpu_attention_sums(c, c.kv_heads),
                 [&] { cuda::attention_sums(in.queries.view(), in.halves(), c.tokens - c.rows, {}, sums); });
  std::vector<float> maxima(sums.size());
  const std::vector<float> weights(static_cast<std::size_t>(c.rows), 1.0F);
  expect_traffic(gpu_attention_maxima(c, c.kv_heads), [&] {
    cuda::attention_maxima(in.queries.view(), in.halves(), c.tokens - c.rows, {}, weights, maxima);
  });
  expect_traffic(gpu_column_sums(c, c.kv_heads), [&] { cuda::column_sums(in.attention.view()); });
  expect_traffic(gpu_row_norms(c, c.kv_heads), [&] { cuda::row_norms(keys, Norm::l2); });
  expect_traffic(gpu_projected_norms(c, c.kv_heads, in.weights.columns()),
                 [&] { cuda::projected_norms(in.values.view(), in.weights.view()); });
  const Tensor scores = cuda::row_norms(keys, Norm::l1);
  expect_traffic(gpu_rank(c, c.kv_heads), [&] { cuda::rank(scores.view(), {}); });
}

TEST_P(GpuWorks, CountWhatLossesSendAndFetch) {
  const View attention = in.attention.view().head_range(0, c.group);
  const View values = in.values.view().head_range(0, 1);
  std::vector<std::uint32_t> order(static_cast<std::size_t>(c.tokens));
  std::iota(order.begin(), order.end(), 0U);
  const std::vector<std::span<const std::uint32_t>> rankings(3, order);
  std::vector<LossCurves> curves(3, LossCurves(c.tokens));
  expect_traffic(gpu_accumulate_losses(c, 3), [&] { cuda::accumulate_losses({attention, values, rankings}, curves); });
  expect_traffic(gpu_set_losses(c, 30), [&] {
    cuda::set_losses({attention, values, std::span(order).first(30), c.tokens});
  });
}

TEST_P(GpuWorks, CountWhatOpsOnEntriesSendAndFetch) {
  const View keys = in.keys.view();
  const std::vector<std::uint8_t> marked(static_cast<std::size_t>(c.tokens), 1);
  expect_traffic(gpu_evidence_curves(c, c.kv_heads),
                 [&] { cuda::evidence_curves(shuffled_ranking(c.kv_heads, c.tokens, 1), marked); });
  expect_traffic(gpu_quantise(c, c.kv_heads), [&] { cuda::quantise(keys, {2, QuantiseSpec::Along::tokens, 32}); });
  expect_traffic(gpu_quantise(c, c.kv_heads), [&] { cuda::quantise(keys, {2, QuantiseSpec::Along::channels, 32}); });
  PageBounds bounds;
  expect_traffic(gpu_page_bounds(c, c.kv_heads, 16), [&] { bounds = cuda::page_bounds(keys, 16); });
  expect_traffic(gpu_page_scores(c, c.kv_heads, 16), [&] { cuda::page_scores(in.queries.view(), bounds); });

  const KeptAndDropped parts(c.tokens, 20);
  const auto kept = static_cast<std::int64_t>(parts.kept.size());
  const View head = keys.head_range(0, 1);
  expect_traffic(gpu_nearest_kept(c, kept), [&] { cuda::nearest_kept(head, parts.kept, parts.dropped); });
  const std::vector<std::uint32_t> into(parts.dropped.size(), 3);
  const std::vector<float> ones(into.size(), 1.0F);
  expect_traffic(gpu_merge_rows(c, kept), [&] {
    cuda::merge_rows({head, parts.kept, parts.dropped, into, ones, ones});
  });
}

TEST_P(GpuWorks, CountWhatHidingSends) {
  Tensor logits = in.attention;
  const HiddenColumns hidden(c.kv_heads, 4, c.tokens, c.rows, 1);
  simt::adopt(logits.values().data(), logits.values().size() * sizeof(float));
  expect_traffic(gpu_hide_entries(c, c.kv_heads, 4, 0), [&] {
    cuda::hide_entries({logits.values().data(), logits.heads(), logits.rows(), logits.columns()}, hidden.view(),
                       hidden.row_sets);
  });
  simt::disown_all();
}

// Kernels load all that is sent and store all that is fetched, and multiply at least what rows see.
TEST_P(GpuWorks, CountAtLeastWhatIsNeeded) {
  const auto seen = static_cast<double>(c.rows * (c.tokens - c.rows) + c.rows * (c.rows + 1) / 2);
  const double products = 2 * c.group * seen * static_cast<double>(c.columns);
  for (const GpuWork& work : gpu_works_of(c)) {
    EXPECT_GE(work.loaded, work.to_device) << work.op;
    EXPECT_GE(work.stored, work.to_host) << work.op;
    EXPECT_GE(work.products, work.op.starts_with("attention") ? products : 0.0) << work.op;
  }
}

}  // namespace
}  // namespace depthkv
