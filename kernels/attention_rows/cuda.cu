// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_rows/attention_rows.h"
#include "kernels/attention_rows/device.cuh"
#include "kernels/device_lane.h"

namespace depthkv::cuda {
namespace {

unsigned parts(std::int64_t count, int size) { return static_cast<unsigned>((count + size - 1) / size); }

// Rows [first, first + queries.rows) of all.
void compute(Lane& lane, const View& queries, const View& keys, std::span<const std::int32_t> positions,
             SoftmaxSpec spec, std::int64_t first, Tensor& out) {
  const std::int64_t dimensions = parts(keys.columns, kChunk) * kChunk;
  const ProductBlock products{lane.upload(queries, dimensions), lane.upload(keys, dimensions),
                              static_cast<int>(dimensions),     static_cast<int>(queries.rows),
                              static_cast<int>(keys.rows),      static_cast<int>(queries.heads / keys.heads),
                              static_cast<float>(spec.scale)};
  const RowsBlock block{lane.upload(positions), products.rows_each, products.keys_each, static_cast<int>(spec.window),
                        static_cast<float>(spec.softcap)};
  const auto row_count = static_cast<std::size_t>(queries.heads * queries.rows);
  const auto tokens = static_cast<std::size_t>(keys.rows);
  auto* rows = lane.room<float>(row_count * tokens);
  const auto heads = static_cast<unsigned>(queries.heads);
  launch({.grid = product_grid(products, queries.heads), .block = {kTileThreads}, .stream = lane.stream()},
         product_rows_kernel, products, rows);
  launch({.grid = {parts(queries.rows, kSoftmaxWarps), heads}, .block = {kSoftmaxWarps * 32}, .stream = lane.stream()},
         row_softmax_kernel, block, rows);
  const auto there = lane.download(rows, row_count * tokens);
  lane.wait();
  for (std::int64_t h = 0; h < queries.heads; ++h) {
    const auto from = there.subspan(static_cast<std::size_t>(h * queries.rows) * tokens,
                                    static_cast<std::size_t>(queries.rows) * tokens);
    std::ranges::copy(from, out.row(h, first).data());
  }
}

}  // namespace

Tensor attention_rows(const View& queries, const View& keys, std::span<const std::int32_t> positions,
                      SoftmaxSpec spec) {
  Tensor rows(queries.heads, queries.rows, keys.rows);
  in_parts(queries.rows, 1, [&](Lane& lane, std::int64_t first, std::int64_t count) {
    compute(lane, queries.row_range(first, count), keys,
            positions.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)), spec, first, rows);
  });
  return rows;
}

}  // namespace depthkv::cuda
