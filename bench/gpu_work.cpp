// SPDX-License-Identifier: Apache-2.0
#include "bench/gpu_work.h"

#include <algorithm>

namespace depthkv {
namespace {

constexpr double kFloat = sizeof(float);
constexpr double kHalf = sizeof(std::uint16_t);
constexpr double kDouble = sizeof(double);
constexpr double kTile = static_cast<double>(tile::kHeld * tile::kStreamed);  // products of a tile

std::int64_t parts(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }
std::int64_t padded(std::int64_t count, std::int64_t size) { return parts(count, size) * size; }

// Sizes as numbers to count with.
struct Sizes {
  double heads;  // query heads
  double kv_heads;
  double rows;
  double tokens;
  double dimensions;  // padded
  double seen;        // pairs of a row and a key that it sees, per head

  Sizes(const KernelCase& c, std::int64_t kv)
      : heads(static_cast<double>(kv * c.group)),
        kv_heads(static_cast<double>(kv)),
        rows(static_cast<double>(c.rows)),
        tokens(static_cast<double>(c.tokens)),
        dimensions(static_cast<double>(padded(c.columns, tile::kChunk))),
        seen(rows * (tokens - rows) + rows * (rows + 1) / 2) {}
};

// A block's tile: 64 held and 32 streamed vectors are loaded, multiplied and added.
void add_tiles(GpuWork& work, double tiles, double dimensions, double held_bytes, double streamed_bytes) {
  work.loaded +=
      tiles * dimensions *
      (static_cast<double>(tile::kHeld) * held_bytes + static_cast<double>(tile::kStreamed) * streamed_bytes);
  work.products += tiles * kTile * dimensions * 2;
}

// Tiles of all blocks of one head in the pass over rows: keys up to a block's last row stream by.
double tiles_by_rows(const KernelCase& c) {
  double tiles = 0;
  for (std::int64_t first = 0; first < c.rows; first += tile::kHeld)
    tiles +=
        static_cast<double>(parts(c.tokens - c.rows + first + std::min(tile::kHeld, c.rows - first), tile::kStreamed));
  return tiles;
}

// Likewise over keys: rows from a block's first key on stream by.
double tiles_by_keys(const KernelCase& c) {
  double tiles = 0;
  for (std::int64_t key = 0; key < c.tokens; key += tile::kHeld)
    tiles += static_cast<double>(parts(c.rows - std::max<std::int64_t>(0, key - (c.tokens - c.rows)), tile::kStreamed));
  return tiles;
}

// The passes that attention_sums and attention_maxima share: what is sent, and every row's normaliser.
GpuWork attention_passes(std::string_view op, const KernelCase& c, const Sizes& n) {
  GpuWork work{.op = op};
  work.to_device = n.heads * n.rows * n.dimensions * kFloat + n.tokens * n.kv_heads * n.dimensions * kHalf;
  add_tiles(work, n.heads * tiles_by_rows(c), n.dimensions, kFloat, kHalf);
  // A logit is scaled, compared and subtracted from twice; the sum so far is rescaled and added to.
  work.single += n.heads * n.seen * 4;
  work.dbl += n.heads * n.seen * 2;
  work.special += n.heads * n.seen * 2;
  work.stored += n.heads * n.rows * kFloat;
  add_tiles(work, n.heads * tiles_by_keys(c), n.dimensions, kHalf, kFloat);
  work.special += n.heads * n.seen;
  work.loaded += n.heads * tiles_by_keys(c) * static_cast<double>(tile::kStreamed) * kFloat;
  return work;
}

// What accumulate_losses and set_losses share: rows and values are sent, rows turned over.
struct LossSizes {
  double rows;
  double padded_rows;
  double tokens;
  double columns;  // padded
  double blocks;   // of rows

  explicit LossSizes(const KernelCase& c)
      : rows(static_cast<double>(c.group * c.rows)),
        padded_rows(static_cast<double>(padded(c.group * c.rows, tile::kLossRows))),
        tokens(static_cast<double>(c.tokens)),
        columns(static_cast<double>(c.columns > 128 ? 256 : padded(c.columns, 32))),
        blocks(padded_rows / static_cast<double>(tile::kLossRows)) {}
};

GpuWork rows_and_values(std::string_view op, const LossSizes& n) {
  GpuWork work{.op = op};
  work.to_device = n.tokens * (n.columns + n.rows) * kFloat;
  work.loaded = n.tokens * n.rows * kFloat;
  work.stored = n.tokens * n.padded_rows * kFloat;
  return work;
}

// Entries as the blocks of rows take them: values and weights, 32 entries at a time, and the order if there is one.
double taken(const LossSizes& n, std::int64_t entries, bool ordered) {
  const auto count = static_cast<double>(padded(entries, tile::kTaken));
  return n.blocks * count * (n.columns * kFloat + static_cast<double>(tile::kLossRows) * kFloat + (ordered ? 4 : 0));
}

void add_weighted_sums(GpuWork& work, const LossSizes& n, std::int64_t entries, bool ordered) {
  if (entries == 0) {
    work.stored += n.padded_rows * (n.columns * kFloat + kDouble);
    return;
  }
  const auto count = static_cast<double>(padded(entries, tile::kTaken));
  work.loaded += taken(n, entries, ordered);
  work.products += n.padded_rows * count * n.columns * 2;
  work.dbl += n.padded_rows * count;
  work.stored += n.padded_rows * (n.columns * kFloat + kDouble);
}

}  // namespace

GpuWork gpu_attention_rows(const KernelCase& c, std::int64_t kv_heads) {
  const Sizes n(c, kv_heads);
  GpuWork work{.op = "attention_rows"};
  work.to_device = (n.heads * n.rows + n.kv_heads * n.tokens) * n.dimensions * kFloat + n.rows * kFloat;
  work.to_host = n.heads * n.rows * n.tokens * kFloat;
  const auto tiles = static_cast<double>(parts(c.tokens, tile::kStreamed) * parts(c.rows, tile::kHeld));
  add_tiles(work, n.heads * tiles, n.dimensions, kFloat, kFloat);
  work.single += n.heads * n.rows * n.tokens;  // scale
  work.stored += n.heads * n.rows * n.tokens * kFloat;
  // A logit is read for the maximum, for its exponential, and for the product with the inverse sum.
  work.loaded += 3 * n.heads * n.seen * kFloat + n.heads * n.rows * kFloat;
  work.stored += n.heads * (n.seen + n.rows * n.tokens) * kFloat;
  work.products += 16 * n.heads * n.seen;  // our own exponential is eight fused multiply-adds
  work.single += 9 * n.heads * n.seen;     // and five more; comparison, difference, sum, product
  return work;
}

GpuWork gpu_attention_sums(const KernelCase& c, std::int64_t kv_heads) {
  const Sizes n(c, kv_heads);
  GpuWork work = attention_passes("attention_sums", c, n);
  const double sums = n.heads * n.tokens * kDouble;
  work.to_device += sums;
  work.to_host = sums;
  work.single += 2 * n.heads * n.seen;  // scale, difference
  work.dbl += n.heads * n.seen;
  work.loaded += sums;
  work.stored += sums;
  return work;
}

GpuWork gpu_attention_maxima(const KernelCase& c, std::int64_t kv_heads) {
  const Sizes n(c, kv_heads);
  GpuWork work = attention_passes("attention_maxima", c, n);
  const double maxima = n.heads * n.tokens * kFloat;
  work.to_device += maxima + n.rows * kFloat;
  work.to_host = maxima;
  work.single += 4 * n.heads * n.seen;  // scale, difference, weight, comparison
  work.loaded += maxima + n.heads * tiles_by_keys(c) * static_cast<double>(tile::kStreamed) * kFloat;  // weights
  work.stored += maxima;
  return work;
}

GpuWork gpu_column_sums(const KernelCase& c, std::int64_t kv_heads) {
  const Sizes n(c, kv_heads);
  const double rows = n.heads * n.rows * n.tokens * kFloat;
  const double sums = n.heads * n.tokens * kFloat;
  return {.op = "column_sums",
          .loaded = rows,
          .stored = sums,
          .dbl = n.heads * n.rows * n.tokens,
          .to_device = rows,
          .to_host = sums};
}

GpuWork gpu_row_norms(const KernelCase& c, std::int64_t kv_heads) {
  const Sizes n(c, kv_heads);
  const double numbers = n.kv_heads * n.tokens * static_cast<double>(c.columns);
  const double norms = n.kv_heads * n.tokens * kFloat;
  return {.op = "row_norms",
          .loaded = numbers * kFloat,
          .stored = norms,
          .dbl = 2 * numbers,
          .to_device = numbers * kFloat,
          .to_host = norms};
}

GpuWork gpu_projected_norms(const KernelCase& c, std::int64_t kv_heads, std::int64_t outputs) {
  const Sizes n(c, kv_heads);
  const auto columns = static_cast<double>(outputs);
  GpuWork work{.op = "projected_norms"};
  work.to_device = (n.kv_heads * n.tokens + n.heads * columns) * n.dimensions * kFloat;
  work.to_host = n.heads * n.tokens * 2 * kFloat;
  const std::int64_t blocks = parts(c.tokens, tile::kHeld);
  add_tiles(work, n.heads * static_cast<double>(blocks * parts(outputs, tile::kStreamed)), n.dimensions, kFloat,
            kFloat);
  work.dbl = 3 * n.heads * static_cast<double>(blocks * tile::kHeld) * columns;
  work.stored = n.heads * n.tokens * 2 * kFloat;
  return work;
}

// Keys of 64 bits. A radix sort takes eight bits at a time: it reads all once for its counts, and then reads and writes
// them once for each digit.
GpuWork gpu_rank(const KernelCase& c, std::int64_t kv_heads) {
  const double scores = static_cast<double>(kv_heads * c.tokens);
  constexpr double kKey = 8;
  constexpr double kDigits = 8;
  GpuWork work{.op = "rank", .to_device = scores * kFloat, .to_host = scores * kFloat};
  work.loaded = scores * (kFloat + kFloat + kKey + kDigits * kKey + kKey);
  work.stored = scores * (kKey + kDigits * kKey + kFloat);
  return work;
}

GpuWork gpu_accumulate_losses(const KernelCase& c, std::int64_t rankings) {
  const LossSizes n(c);
  GpuWork work = rows_and_values("accumulate_losses", n);
  const auto orders = static_cast<double>(rankings);
  const auto walked = static_cast<double>(padded(c.tokens, tile::kTaken));
  work.to_device += orders * n.tokens * 4;
  work.to_host = n.padded_rows * n.columns * kFloat + 2 * orders * n.tokens * kDouble;
  work.stored += 2 * orders * n.tokens * kDouble;  // zeros that sums start from
  add_weighted_sums(work, n, 0, false);
  add_weighted_sums(work, n, c.tokens, false);
  work.loaded += n.padded_rows * (n.columns * kFloat + kDouble);  // which the latter starts from
  // The walk, per row, entry and dimension: the gap, its square, the sum.
  work.loaded += orders * (taken(n, c.tokens, true) + n.padded_rows * (2 * n.columns * kFloat + kDouble));
  work.products += orders * n.padded_rows * walked * n.columns * 6;
  // Per row and entry: a scan of five steps, the mass before, after and of all rows, one division.
  work.dbl += orders * n.padded_rows * walked * 8;
  work.special += orders * n.padded_rows * walked;
  work.single += orders * n.padded_rows / 4 * walked * 31;  // losses of a warp's four rows, added up over lanes
  const double part = n.blocks * 2 * orders * n.tokens;     // sums of blocks, added up in order
  work.stored += part * kDouble + 2 * orders * n.tokens * kDouble;
  work.loaded += part * kDouble + 2 * orders * n.tokens * kDouble;
  work.dbl += part * (1 + 4);
  return work;
}

GpuWork gpu_set_losses(const KernelCase& c, std::int64_t kept) {
  const LossSizes n(c);
  GpuWork work = rows_and_values("set_losses", n);
  work.to_device += n.tokens * 4;
  work.to_host = n.padded_rows * (2 * n.columns * kFloat + kDouble);
  add_weighted_sums(work, n, kept, true);
  add_weighted_sums(work, n, c.tokens - kept, true);
  return work;
}

std::vector<GpuWork> gpu_works_of(const KernelCase& c) {
  return {gpu_attention_rows(c, 1),       gpu_attention_sums(c, 1),     gpu_attention_maxima(c, 1),
          gpu_column_sums(c, c.kv_heads), gpu_row_norms(c, c.kv_heads), gpu_projected_norms(c, 1, 3 * c.columns + 1),
          gpu_rank(c, c.kv_heads),        gpu_accumulate_losses(c, 1),  gpu_set_losses(c, c.tokens / 2)};
}

}  // namespace depthkv
