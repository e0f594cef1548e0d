// SPDX-License-Identifier: Apache-2.0
// What the CUDA ops do on a case, counted from how their kernels are written: bytes that the kernels load and store,
// those of tiles that are loaded again included, operations by the units that a multiprocessor has for them, bytes that
// go to the device and back. Counts are exact but for what a block does once, outside of its loops.
#pragma once
#include <string_view>
#include <vector>

#include "kernels/cases.h"

namespace depthkv {

struct GpuWork {
  std::string_view op;
  double loaded = 0;     // bytes, by kernels
  double stored = 0;     // bytes, by kernels and as zeros
  double products = 0;   // operations of fused multiply-adds of floats, two each; tiles at an end count whole
  double single = 0;     // other operations of floats
  double dbl = 0;        // operations of doubles
  double special = 0;    // exponentials and divisions, which have a unit of their own
  double to_device = 0;  // bytes
  double to_host = 0;    // bytes
};

// Shapes of kernels that counts depend on; a test holds them to the kernels.
namespace tile {
inline constexpr std::int64_t kHeld = 64;      // vectors that a block holds
inline constexpr std::int64_t kStreamed = 32;  // and lets stream by
inline constexpr std::int64_t kChunk = 16;     // dimensions are padded to multiples of it
inline constexpr std::int64_t kLossRows = 16;  // rows of a block that walks a ranking
inline constexpr std::int64_t kTaken = 32;     // entries at a time
}  // namespace tile

// What one call with `kv_heads` KV heads of the case moves and computes, with one ranking; the rows are the case's
// last.
GpuWork gpu_attention_rows(const KernelCase& c, std::int64_t kv_heads);
GpuWork gpu_attention_sums(const KernelCase& c, std::int64_t kv_heads);
GpuWork gpu_attention_maxima(const KernelCase& c, std::int64_t kv_heads);
GpuWork gpu_column_sums(const KernelCase& c, std::int64_t kv_heads);
GpuWork gpu_row_norms(const KernelCase& c, std::int64_t kv_heads);
GpuWork gpu_projected_norms(const KernelCase& c, std::int64_t kv_heads, std::int64_t outputs);
GpuWork gpu_rank(const KernelCase& c, std::int64_t kv_heads);
GpuWork gpu_accumulate_losses(const KernelCase& c, std::int64_t rankings);  // one KV head, all entries ranked
GpuWork gpu_set_losses(const KernelCase& c, std::int64_t kept);             // one KV head
GpuWork gpu_evidence_curves(const KernelCase& c, std::int64_t kv_heads);
GpuWork gpu_page_bounds(const KernelCase& c, std::int64_t kv_heads, std::int64_t page);
GpuWork gpu_page_scores(const KernelCase& c, std::int64_t kv_heads, std::int64_t page);
GpuWork gpu_quantise(const KernelCase& c, std::int64_t kv_heads);
GpuWork gpu_nearest_kept(const KernelCase& c, std::int64_t kept);  // one KV head, all others dropped
GpuWork gpu_merge_rows(const KernelCase& c, std::int64_t kept);    // one KV head, all others merged
GpuWork gpu_hide_entries(const KernelCase& c, std::int64_t kv_heads, std::int64_t sets, double hidden);

// Of the calls that depthkv_bench makes for the case, but for pooled_best: one block's search, whose time is that of its
// steps, one after another.
std::vector<GpuWork> gpu_works_of(const KernelCase& c);

}  // namespace depthkv
