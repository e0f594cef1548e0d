// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda_backend.h"

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/attention_maxima/attention_maxima.h"
#include "kernels/attention_rows/attention_rows.h"
#include "kernels/attention_sums/attention_sums.h"
#include "kernels/attention_sums/launchers.h"
#include "kernels/column_sums/column_sums.h"
#include "kernels/evidence_curves/evidence_curves.h"
#include "kernels/hide_entries/hide_entries.h"
#include "kernels/merge/merge.h"
#include "kernels/page_bounds/page_bounds.h"
#include "kernels/pooled_best/pooled_best.h"
#include "kernels/projected_norms/projected_norms.h"
#include "kernels/quantise/quantise.h"
#include "kernels/rank/rank.h"
#include "kernels/row_norms/row_norms.h"
#include "kernels/set_losses/set_losses.h"

namespace depthkv::cuda {

const Ops& ops() {
  static const Ops kCuda{.name = "cuda",
                         .rankings_together = true,
                         .attention_rows = cuda::attention_rows,
                         .attention_sums = cuda::attention_sums,
                         .attention_maxima = cuda::attention_maxima,
                         .column_sums = cuda::column_sums,
                         .row_norms = cuda::row_norms,
                         .projected_norms = cuda::projected_norms,
                         .rank = cuda::rank,
                         .accumulate_losses = cuda::accumulate_losses,
                         .set_losses = cuda::set_losses,
                         .evidence_curves = cuda::evidence_curves,
                         .pooled_best = cuda::pooled_best,
                         .page_bounds = cuda::page_bounds,
                         .page_scores = cuda::page_scores,
                         .quantise = cuda::quantise,
                         .nearest_kept = cuda::nearest_kept,
                         .merge_rows = cuda::merge_rows,
                         .hide_entries = cuda::hide_entries};
  return kCuda;
}

std::optional<int> device_of(const View& queries, const HalfRows& keys) {
  const std::optional<int> device = device_of(queries.data);
  return device == device_of(keys.data) && readable(queries, keys) ? device : std::nullopt;
}

std::optional<int> device_of(const Logits& logits) { return device_of(logits.data); }

std::shared_ptr<const std::uint32_t> upload(std::span<const std::uint32_t> words) {
  const UseLane lane;
  const std::shared_ptr<std::uint32_t> there(static_cast<std::uint32_t*>(allocate(words.size_bytes())),
                                             [](std::uint32_t* memory) { release(memory); });
  copy_to_device(there.get(), words.data(), words.size_bytes(), lane->stream());
  lane->wait();
  return there;
}

std::shared_ptr<const std::uint16_t> gather(std::span<const HalfRows> pieces) {
  const UseLane lane;
  std::size_t count = 0;
  for (const HalfRows& piece : pieces) count += static_cast<std::size_t>(piece.rows * piece.row_stride);
  const std::shared_ptr<std::uint16_t> all(static_cast<std::uint16_t*>(allocate(count * sizeof(std::uint16_t))),
                                           [](std::uint16_t* memory) { release(memory); });
  std::uint16_t* to = all.get();
  for (const HalfRows& piece : pieces) {
    const auto size = static_cast<std::size_t>(piece.rows * piece.row_stride);
    if (size > 0) copy_on_device(to, piece.data, size * sizeof(std::uint16_t), lane->stream());
    to += size;
  }
  lane->wait();
  return all;
}

}  // namespace depthkv::cuda
