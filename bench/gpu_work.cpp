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

// A block's running count takes a division for every entry.
GpuWork gpu_evidence_curves(const KernelCase& c, std::int64_t kv_heads) {
  const Sizes n(c, kv_heads);
  const double curves = n.kv_heads * (n.tokens + 1) * kFloat;
  return {.op = "evidence_curves",
          .loaded = n.kv_heads * n.tokens * (kFloat + 1),
          .stored = curves,
          .special = n.kv_heads * n.tokens,
          .to_device = n.kv_heads * n.tokens * kFloat + n.tokens,
          .to_host = curves};
}

GpuWork gpu_page_bounds(const KernelCase& c, std::int64_t kv_heads, std::int64_t page) {
  const Sizes n(c, kv_heads);
  const double numbers = n.kv_heads * n.tokens * static_cast<double>(c.columns);
  const double bounds = 2 * n.kv_heads * static_cast<double>(parts(c.tokens, page) * c.columns) * kFloat;
  return {.op = "page_bounds",
          .loaded = numbers * kFloat,
          .stored = bounds,
          .single = 3 * numbers,  // comparisons: with itself, the least and the most
          .to_device = numbers * kFloat,
          .to_host = bounds};
}

// Products of queries and bounds, each twice as long as a key.
GpuWork gpu_page_scores(const KernelCase& c, std::int64_t kv_heads, std::int64_t page) {
  const Sizes n(c, kv_heads);
  const std::int64_t pages = parts(c.tokens, page);
  const auto dimensions = static_cast<double>(padded(2 * c.columns, tile::kChunk));
  const double scores = n.heads * n.rows * static_cast<double>(pages);
  GpuWork work{.op = "page_scores"};
  work.to_device = (n.heads * n.rows + n.kv_heads * static_cast<double>(pages)) * dimensions * kFloat;
  work.to_host = scores * kFloat;
  add_tiles(work, n.heads * static_cast<double>(parts(pages, tile::kStreamed) * parts(c.rows, tile::kHeld)), dimensions,
            kFloat, kFloat);
  work.single = scores;  // scale
  work.stored = scores * kFloat;
  return work;
}

// Along tokens or channels alike.
GpuWork gpu_quantise(const KernelCase& c, std::int64_t kv_heads) {
  const Sizes n(c, kv_heads);
  const double numbers = n.kv_heads * n.tokens * static_cast<double>(c.columns);
  return {.op = "quantise",
          .loaded = 2 * numbers * kFloat,
          .stored = numbers * kFloat,
          .single = 4 * numbers,  // two comparisons, what tells infinities, its sum
          .dbl = 4 * numbers,     // difference, rounding, product, sum
          .special = numbers,
          .to_device = numbers * kFloat,
          .to_host = numbers * kFloat};
}

GpuWork gpu_nearest_kept(const KernelCase& c, std::int64_t kept) {
  const std::int64_t dropped = c.tokens - kept;
  const auto dimensions = static_cast<double>(padded(c.columns, tile::kChunk));
  const auto tiles = static_cast<double>(parts(dropped, tile::kHeld) * parts(kept, tile::kStreamed));
  GpuWork work{.op = "nearest_kept"};
  work.to_device = static_cast<double>(c.tokens) * (dimensions + 1) * kFloat;
  work.to_host = static_cast<double>(dropped) * 2 * kFloat;
  add_tiles(work, tiles, dimensions, kFloat, kFloat);
  work.loaded += (tiles * static_cast<double>(tile::kStreamed) + static_cast<double>(dropped)) * kFloat;  // inverse norms
  work.single = tiles * kTile * 2;  // scale, comparison
  work.stored = work.to_host;
  return work;
}

// What a warp's lanes have in common is counted once for it.
GpuWork gpu_merge_rows(const KernelCase& c, std::int64_t kept) {
  constexpr std::int64_t kWarp = 32;
  const auto columns = static_cast<double>(c.columns);
  const auto warps = static_cast<double>(parts(c.columns, kWarp));
  const auto rows = static_cast<double>(kept);
  const auto members = static_cast<double>(c.tokens - kept);
  GpuWork work{.op = "merge_rows"};
  work.to_device = ((rows + members) * columns + (rows + 1) + 3 * members) * kFloat;
  work.to_host = rows * columns * kFloat;
  work.loaded = (rows + members) * columns * kFloat + (2 * rows + 3 * members) * warps * kFloat;
  work.dbl = 3 * members * columns;
  work.special = rows * columns;
  work.stored = work.to_host;
  return work;
}

// Logits that lie on the device, as an engine's do there.
GpuWork gpu_hide_entries(const KernelCase& c, std::int64_t kv_heads, std::int64_t sets, double hidden) {
  const Sizes n(c, kv_heads);
  const auto words = static_cast<double>(parts(c.tokens, 32));
  return {.op = "hide_entries",
          .loaded = n.heads * n.rows * (words + 1) * kFloat,
          .stored = hidden * kFloat,
          .to_device = (n.kv_heads * static_cast<double>(sets) * words + n.rows) * kFloat};
}

std::vector<GpuWork> gpu_works_of(const KernelCase& c) {
  constexpr std::int64_t kPage = 16;
  constexpr std::int64_t kKept = 256;
  constexpr std::int64_t kSets = 4;
  const std::int64_t logits = c.kv_heads * c.group * c.rows * c.tokens;
  return {gpu_attention_rows(c, 1),
          gpu_attention_sums(c, 1),
          gpu_attention_maxima(c, 1),
          gpu_column_sums(c, c.kv_heads),
          gpu_row_norms(c, c.kv_heads),
          gpu_projected_norms(c, 1, 3 * c.columns + 1),
          gpu_rank(c, c.kv_heads),
          gpu_accumulate_losses(c, 1),
          gpu_set_losses(c, c.tokens / 2),
          gpu_evidence_curves(c, c.kv_heads),
          gpu_page_bounds(c, c.kv_heads, kPage),
          gpu_page_scores(c, 1, kPage),
          gpu_quantise(c, c.kv_heads),
          gpu_nearest_kept(c, std::min(kKept, c.tokens / 3)),
          gpu_merge_rows(c, std::min(kKept, c.tokens / 3)),
          gpu_hide_entries(c, c.kv_heads, kSets, static_cast<double>(logits) / 2)};
}

}  // namespace depthkv
