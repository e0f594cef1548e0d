// SPDX-License-Identifier: Apache-2.0
// Every op on a case as one piece of work, with what it costs at least: one list for depthkv_bench, depthkv_roofline
// and depthkv_growth.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "kernels/cases.h"

namespace depthkv {

// The matrix product [m, k] x [k, n] that an op's products amount to, or all zeros.
struct ProductShape {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
};

struct OpWork {
  std::string_view op;
  std::function<void()> run;
  // Floating-point operations of its products, a fused multiply-add counted as two; exponentials, sums and scaling
  // aren't counted.
  double flops = 0;
  double bytes = 0;  // inputs read once, outputs written once
  ProductShape shape;
};

// Flops and bytes of one run are exact. Ops run on one thread: callers hand every thread a KV head. Rows of attention
// are the case's last ones. `moments` is the CPU's on any device. column_sums, row_norms, rank,
// evidence_curves, page_bounds, quantise and hide_entries take all heads, pooled_best all of 32 layers; the others one
// KV head and its query heads.
std::vector<OpWork> works_of(const KernelCase& c, Device device = Device::cpu);
// Their names, in that order.
inline constexpr std::string_view kOpNames[] = {
    "attention_rows", "attention_sums", "attention_maxima",  "column_sums",     "row_norms",       "projected_norms",
    "moments",        "rank",           "accumulate_losses", "set_losses",      "evidence_curves", "pooled_best",
    "page_bounds",    "page_scores",    "quantise_keys",     "quantise_values", "nearest_kept",    "merge_rows",
    "hide_entries"};

// Copies `bytes` / 2 from one place to another: `bytes` in all are read or written.
std::function<void()> copy_of(double bytes);

}  // namespace depthkv
