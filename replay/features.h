// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>

#include "depthkv/ops.h"
#include "depthkv/policy.h"
#include "depthkv/trace.h"

namespace depthkv {

// Which recorded query rows stand for what at a cut: indices into Trace::query_rows().
struct RowPlan {
  Span window;  // consecutive positions right before the cut
  Span judged;  // positions at or after the cut
};
RowPlan plan_rows(std::span<const std::int32_t> query_rows, std::int64_t cut, std::int64_t window_rows);

// Why what needs this can't run on a trace, or nothing.
std::optional<std::string> missing(const Trace& trace, const Needs& needs, Cut cut);

// One layer's tensors and the views of them that policies get.
struct LayerData {
  Tensor keys;                              // [Hkv, T, d]
  Tensor values;                            // [Hkv, T, d]
  Tensor unrotated_keys;                    // [Hkv, n, d]
  Tensor queries;                           // [H, R, d] recorded rows
  Tensor column_sums;                       // [H, 1, n]
  Tensor query_mean, query_second_moment;   // [H, 1, d], [H, d, d]
  Tensor output_norms_l1, output_norms_l2;  // [H, 1, T]
  Tensor cosines, hidden_scalars;           // as recorded
  Tensor repeat_chunk, repeat_per_input;    // [H, 1, n]
  Tensor repeat_cache;                      // [H, 1, n]
  Tensor window;                            // [H, W, T] attention of the observed window
  Tensor judged;                            // [H, R, T] attention of the judged rows
  Tensor judged_sums;                       // [H, 1, n]
  LayerFeatures features;
};

struct LoadRequest {
  Cut cut = Cut::prompt;
  Needs needs;                   // of all policies together
  std::int64_t window_rows = 0;  // of policies and observed curves together
  int threads = 0;
};
LayerData load_layer(const Trace& trace, int layer, const LoadRequest& request, const Ops& ops);

}  // namespace depthkv
