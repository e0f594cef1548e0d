// SPDX-License-Identifier: Apache-2.0
// One list of shapes for kernel tests and benchmarks.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <ostream>
#include <random>
#include <span>
#include <vector>

#include "depthkv/ops.h"
#include "kernels/half.h"

namespace depthkv {

struct KernelCase {
  const char* name;
  int kv_heads;
  int group;             // query heads per KV head
  std::int64_t tokens;   // keys
  std::int64_t rows;     // query rows, the last ones
  std::int64_t columns;  // d
};
inline std::ostream& operator<<(std::ostream& out, const KernelCase& c) { return out << c.name; }

// Small and awkward: one of everything, sizes around lanes, tiles and chunks.
inline constexpr KernelCase kTestCases[] = {
    {"one_of_everything", 1, 1, 1, 1, 1},
    {"one_token_many_heads", 3, 2, 1, 1, 4},
    {"one_head", 1, 1, 37, 11, 8},
    {"below_a_lane", 2, 2, 7, 3, 5},
    {"a_lane", 2, 1, 8, 8, 8},
    {"above_a_lane", 2, 3, 9, 9, 9},
    {"ragged", 3, 3, 131, 17, 24},
    {"no_rows", 2, 2, 16, 0, 8},
    {"wide", 1, 4, 257, 33, 80},
};

// For device code: sizes around its tiles and blocks (16 dimensions; 32 and 64 vectors; 256 columns), heads as models
// have them, several warps, and a long one.
inline constexpr KernelCase kDeviceCases[] = {
    {"one_token", 1, 1, 1, 1, 64},
    {"one_token_many_heads", 3, 2, 1, 1, 80},
    {"no_rows", 2, 2, 16, 0, 64},
    {"one_row", 1, 2, 100, 1, 128},
    {"one_head", 1, 1, 37, 11, 16},
    {"one_more_than_a_tile", 1, 1, 33, 33, 64},
    {"a_tile", 1, 1, 32, 32, 64},
    {"one_less_than_a_tile", 2, 1, 31, 31, 32},
    {"a_block", 1, 3, 64, 64, 64},
    {"one_more_than_a_block", 1, 2, 65, 65, 96},
    {"one_less_than_a_block", 2, 2, 63, 63, 80},
    {"rows_of_two_blocks", 1, 1, 160, 129, 48},
    {"ragged", 3, 3, 131, 17, 112},
    {"wide", 1, 4, 257, 33, 80},
    {"columns_of_a_block", 2, 1, 256, 5, 128},
    {"columns_of_three_blocks", 1, 1, 513, 70, 64},
    {"gemma", 1, 8, 300, 24, 256},
    {"phi", 2, 4, 200, 50, 96},
    {"smollm2", 3, 3, 1024, 24, 64},
    {"llama3", 2, 4, 700, 65, 128},
    {"long", 1, 1, 16384, 7, 64},
    {"long_and_wide", 1, 1, 16411, 3, 256},
};

// A layer of Llama-3.2-1B (32 heads, d 64) and one of Llama-3-70B (64 heads, d 128), with as many rows as replay judges
// at once.
inline constexpr KernelCase kBenchCases[] = {
    {"h32d64/1k", 8, 4, 1 << 10, 64, 64},  {"h64d128/1k", 8, 8, 1 << 10, 32, 128},
    {"h32d64/2k", 8, 4, 1 << 11, 64, 64},  {"h64d128/2k", 8, 8, 1 << 11, 32, 128},
    {"h32d64/4k", 8, 4, 1 << 12, 64, 64},  {"h64d128/4k", 8, 8, 1 << 12, 32, 128},
    {"h32d64/8k", 8, 4, 1 << 13, 64, 64},  {"h64d128/8k", 8, 8, 1 << 13, 32, 128},
    {"h32d64/16k", 8, 4, 1 << 14, 64, 64}, {"h64d128/16k", 8, 8, 1 << 14, 32, 128},
    {"h32d64/32k", 8, 4, 1 << 15, 64, 64}, {"h64d128/32k", 8, 8, 1 << 15, 32, 128},
};

struct KernelInputs {
  Tensor queries;    // [H, R, d]
  Tensor keys;       // [Hkv, T, d], rounded to half precision
  Tensor values;     // [Hkv, T, d]
  Tensor weights;    // [H, d, 3 d + 1]
  Tensor attention;  // [H, R, T], by the reference
  std::vector<std::int32_t> positions;
  SoftmaxSpec spec;
  std::vector<std::uint16_t> half_keys;  // [T, Hkv, d]

  KernelInputs(const KernelCase& c, std::uint64_t seed)
      : queries(c.kv_heads * c.group, c.rows, c.columns),
        keys(c.kv_heads, c.tokens, c.columns),
        values(c.kv_heads, c.tokens, c.columns),
        weights(c.kv_heads * c.group, c.columns, 3 * c.columns + 1) {
    std::mt19937_64 random(seed);
    fill(queries.values(), random);
    fill(keys.values(), random);
    fill(values.values(), random);
    fill(weights.values(), random);
    round_keys();
    for (std::int64_t r = 0; r < c.rows; ++r) positions.push_back(static_cast<std::int32_t>(c.tokens - c.rows + r));
    attention = ops_for(Device::cpu).attention_rows(queries.view(), keys.view(), positions, spec);
  }

  HalfRows halves() const {
    return {half_keys.data(), keys.heads(), keys.rows(), keys.columns(), keys.heads() * keys.columns()};
  }

  void round_keys() {
    half_keys.resize(keys.values().size());
    const auto d = static_cast<std::size_t>(keys.columns());
    auto half = half_keys.begin();
    for (std::int64_t j = 0; j < keys.rows(); ++j) {
      for (std::int64_t g = 0; g < keys.heads(); ++g, half += static_cast<std::ptrdiff_t>(d)) {
        to_half(keys.row(g, j), {half, d});
        from_half({half, d}, keys.row(g, j));
      }
    }
  }

  static void fill(std::span<float> values, std::mt19937_64& random) {
    std::normal_distribution<float> normal;
    for (float& x : values) x = normal(random);
  }
};

inline Ranking shuffled_ranking(std::int64_t heads, std::int64_t tokens, std::uint64_t seed) {
  Ranking ranking(heads, tokens);
  std::mt19937_64 random(seed);
  for (std::int64_t g = 0; g < heads; ++g) {
    std::iota(ranking.head(g).begin(), ranking.head(g).end(), 0U);
    std::shuffle(ranking.head(g).begin(), ranking.head(g).end(), random);
  }
  return ranking;
}

// Lists that fall, of uneven lengths, and what goes with them.
struct Pool {
  std::vector<float> scores;
  std::vector<std::int64_t> begins{0};
  std::vector<std::int64_t> ones;
  std::vector<std::int64_t> costs;
  std::vector<double> factors;

  // `levels` different scores, or next to no equal ones where that is 0.
  Pool(std::int64_t lists, std::int64_t tokens, int levels, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    for (std::int64_t u = 0; u < lists; ++u) {
      for (std::int64_t i = u % 3; i < tokens; ++i)
        scores.push_back(levels == 0 ? normal(random)
                                     : static_cast<float>(static_cast<int>(random() % 64) % levels - 1));
      if (u % 4 == 0 && u % 3 < tokens) scores.back() = 3e38F;
      std::sort(scores.begin() + begins.back(), scores.end(), std::greater<>());
      begins.push_back(static_cast<std::int64_t>(scores.size()));
      ones.push_back(1);
      costs.push_back(1 + u % 3);
      factors.push_back(static_cast<double>(u % 5) * 0.3);
    }
  }

  PooledLists lists() const { return {.scores = scores, .begins = begins, .costs = ones}; }
  std::vector<PooledLists> lists_in_many_ways() const {
    std::vector<PooledLists> ways(3, lists());
    ways[1].costs = costs;
    ways[1].most = 5;
    ways[2].costs = costs;
    ways[2].factors = factors;
    ways[2].unscaled = 3e38F;
    return ways;
  }
};

// Every third of some positions is kept, at most `most`.
struct KeptAndDropped {
  std::vector<std::uint32_t> kept;
  std::vector<std::uint32_t> dropped;

  explicit KeptAndDropped(std::int64_t tokens, std::size_t most = 1 << 20) {
    for (std::uint32_t j = 0; j < tokens; ++j) (j % 3 == 1 && kept.size() < most ? kept : dropped).push_back(j);
  }
};

// Columns that some of `sets` sets hide from rows of logits: none, all, runs, single ones; bits behind the last column
// are set, too. Which set is a row's changes from row to row.
struct HiddenColumns {
  std::vector<std::uint32_t> bits;
  std::vector<std::uint32_t> row_sets;
  std::int64_t kv_heads;
  std::int64_t sets;
  std::int64_t words;

  HiddenColumns(std::int64_t heads, std::int64_t count, std::int64_t columns, std::int64_t rows, std::uint64_t seed)
      : kv_heads(heads), sets(count), words((columns + 31) / 32) {
    std::mt19937_64 random(seed);
    for (std::int64_t i = 0; i < heads * count; ++i) {
      for (std::int64_t w = 0; w < words; ++w) {
        const std::uint32_t word[] = {0, ~0U, random() % 3 != 0 ? ~0U : 0U, static_cast<std::uint32_t>(random())};
        bits.push_back(word[i % 4]);
      }
    }
    for (std::int64_t r = 0; r < rows; ++r) row_sets.push_back(static_cast<std::uint32_t>(r % count));
  }

  ColumnSets view() const { return {bits.data(), kv_heads, sets, words}; }
};

// What one ranking costs.
inline LossCurves losses(const Ops& ops, const View& attention, const View& values,
                         std::span<const std::uint32_t> ranking) {
  LossCurves curves(static_cast<std::int64_t>(ranking.size()));
  const std::span<const std::uint32_t> rankings[] = {ranking};
  ops.accumulate_losses({attention, values, rankings}, {&curves, 1});
  return curves;
}

}  // namespace depthkv
