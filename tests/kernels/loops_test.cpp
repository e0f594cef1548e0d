// SPDX-License-Identifier: Apache-2.0
// The loops for AVX-512 give the bits of those for the base instruction set.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/loops/loops.h"

namespace depthkv {
namespace {

std::vector<float> random_floats(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& x : values) x = normal(random);
  return values;
}

struct Softmax {
  std::vector<float> values;
  std::vector<float> inverse;
};

Softmax run_softmax(const Loops& loops, std::size_t rows, std::size_t dimensions, float softcap) {
  constexpr std::size_t kStride = 5 * kKeyTile;
  const std::vector<float> queries = random_floats(rows * dimensions, 1);
  const std::vector<float> keys = random_floats(dimensions * kStride, 2);
  std::vector<std::size_t> begin(rows);
  std::vector<std::size_t> end(rows);
  for (std::size_t r = 0; r < rows; ++r) begin[r] = 40 + r, end[r] = 90 + 2 * r;
  Softmax result{std::vector<float>(rows * kStride), std::vector<float>(rows)};
  const SoftmaxBlock block{.queries = queries.data(),
                           .query_stride = dimensions,
                           .rows = rows,
                           .dimensions = dimensions,
                           .keys = keys.data(),
                           .begin = begin.data(),
                           .end = end.data(),
                           .scale = 0.7F,
                           .softcap = softcap,
                           .first = kKeyTile,
                           .last = kStride};
  loops.softmax_block(block, result.values.data(), kStride, result.inverse.data());
  return result;
}

class LoopsTest : public testing::Test {
 protected:
  void SetUp() override {
    // Nothing to compare with on a processor without AVX-512; every other test runs the base loops then.
    if (avx512_loops() != nullptr) other_ = avx512_loops();
  }
  const Loops* other_ = &base_loops();
};

TEST_F(LoopsTest, SoftmaxBlocksHaveTheSameBits) {
  for (const std::size_t rows : {1U, 5U, 8U, 24U})
    for (const std::size_t dimensions : {1U, 7U, 64U})
      for (const float softcap : {0.0F, 3.0F}) {
        const Softmax a = run_softmax(base_loops(), rows, dimensions, softcap);
        const Softmax b = run_softmax(*other_, rows, dimensions, softcap);
        EXPECT_EQ(a.values, b.values) << rows << ' ' << dimensions << ' ' << softcap;
        EXPECT_EQ(a.inverse, b.inverse) << rows << ' ' << dimensions << ' ' << softcap;
      }
}

TEST_F(LoopsTest, SumsHaveTheSameBits) {
  const std::vector<float> values = random_floats(24 * 4 * kKeyTile, 3);
  const std::vector<float> weights = random_floats(24, 4);
  std::vector<double> a(4 * kKeyTile, 0.5);
  std::vector<double> b = a;
  base_loops().add_weighted_rows(values.data(), 4 * kKeyTile, weights.data(), 24, kKeyTile, 3 * kKeyTile, a.data());
  other_->add_weighted_rows(values.data(), 4 * kKeyTile, weights.data(), 24, kKeyTile, 3 * kKeyTile, b.data());
  EXPECT_EQ(a, b);
  EXPECT_EQ(a.front(), 0.5);
  EXPECT_EQ(a.back(), 0.5);
}

TEST_F(LoopsTest, ProjectedNormsHaveTheSameBits) {
  constexpr std::size_t kDimensions = 19;
  for (const std::size_t columns : {1U, 16U, 31U, 32U, 49U, 100U}) {
    const std::vector<float> rows = random_floats(kNormRows * kDimensions, 5);
    const std::vector<float> weights = random_floats(kDimensions * columns, 6);
    for (const std::size_t count : {std::size_t{1}, std::size_t{13}, kNormRows}) {
      std::vector<float> norms[4];
      for (auto& norm : norms) norm.assign(count, 0.0F);
      base_loops().projected_norms(rows.data(), kDimensions, count, weights.data(), columns, kDimensions, columns,
                                   norms[0].data(), norms[1].data());
      other_->projected_norms(rows.data(), kDimensions, count, weights.data(), columns, kDimensions, columns,
                              norms[2].data(), norms[3].data());
      EXPECT_EQ(norms[0], norms[2]) << columns << ' ' << count;
      EXPECT_EQ(norms[1], norms[3]) << columns << ' ' << count;
    }
  }
}

TEST_F(LoopsTest, ProductsHaveTheSameBitsAndAreRight) {
  for (const std::size_t width : {1U, 6U, 16U, 40U, 64U, 80U}) {
    const std::vector<float> rows = random_floats(kMomentRows * width, 7);
    std::vector<double> a(width * width, 1.0);
    std::vector<double> b = a;
    base_loops().add_products(rows.data(), width, a.data());
    other_->add_products(rows.data(), width, b.data());
    for (std::size_t i = 0; i < width; ++i) {
      for (std::size_t j = i; j < width; ++j) {
        double exact = 1;
        for (std::size_t r = 0; r < kMomentRows; ++r)
          exact += static_cast<double>(rows[r * width + i]) * static_cast<double>(rows[r * width + j]);
        ASSERT_EQ(a[i * width + j], b[i * width + j]) << width << ' ' << i << ' ' << j;
        ASSERT_NEAR(a[i * width + j], exact, 1e-4) << width << ' ' << i << ' ' << j;
      }
    }
  }
}

constexpr std::size_t kPairStride = 2 * kWalkRows;  // attention, products
constexpr std::size_t kValueStride = kWalkWidth + 5;
constexpr std::size_t kSumCount = kWalkWidth * kWalkRows;

struct Walked {
  std::vector<float> rows;
  std::vector<float> full = std::vector<float>(kSumCount);
  std::vector<float> sums = std::vector<float>(kSumCount);
  std::vector<double> mass = std::vector<double>(kWalkRows);
  std::vector<float> energy = std::vector<float>(kWalkRows);
  std::vector<float> product = std::vector<float>(kWalkRows);
  std::vector<float> norms;
  std::vector<float> shares;
  std::vector<float> losses;
  bool operator==(const Walked&) const = default;
};

std::vector<std::uint32_t> some_order(std::size_t entries) {
  std::vector<std::uint32_t> order(entries);
  for (std::size_t i = 0; i < entries; ++i) order[i] = static_cast<std::uint32_t>(i * 7 % entries);
  return order;
}

TEST_F(LoopsTest, WeightedSumsHaveTheSameBitsAndAreRight) {
  constexpr std::size_t kKeys = 40;
  const std::vector<float> attention = random_floats(kKeys * kPairStride, 11);
  const std::vector<float> values = random_floats(kKeys * kValueStride, 12);
  const std::vector<std::uint32_t> chosen{0, 3, 4, 17, 38, 5, 39};
  for (std::size_t count = 0; count <= chosen.size(); ++count) {
    std::vector<float> a(kSumCount, 0.25F);
    std::vector<float> b = a;
    const EntryWalk in{attention.data(), kPairStride, values.data(), kValueStride, chosen.data(), count};
    base_loops().weighted_sums(in, a.data());
    other_->weighted_sums(in, b.data());
    EXPECT_EQ(a, b);
    for (std::size_t r = 0; r < kWalkRows; ++r) {
      for (std::size_t c = 0; c < kWalkWidth; ++c) {
        double exact = 0.25;
        for (std::size_t i = 0; i < count; ++i)
          exact += static_cast<double>(attention[chosen[i] * kPairStride + r]) *
                   static_cast<double>(values[chosen[i] * kValueStride + c]);
        EXPECT_NEAR(a[c * kWalkRows + r], exact, 1e-5) << count << ' ' << r << ' ' << c;
      }
    }
  }
}

// A third of the entries join the sums, the others are priced; losses replace what is there or are added to it. Odd
// rows are priced from the sum over all, row 4 has no attention at all.
Walked run_walk(const Loops& loops, std::size_t entries, bool first_losses) {
  std::vector<float> weights = random_floats(entries * kWalkRows, 8);
  for (std::size_t r = 0; r < kWalkRows; ++r) {
    float sum = 0;
    for (std::size_t i = r; i < weights.size(); i += kWalkRows) sum += weights[i] *= weights[i];
    for (std::size_t i = r; i < weights.size(); i += kWalkRows) weights[i] = r == 4 ? 0 : weights[i] / sum;
  }
  Walked walked;
  walked.rows.resize(entries * kPairStride);
  for (std::size_t i = 0; i < weights.size(); ++i)
    walked.rows[i / kWalkRows * kPairStride + i % kWalkRows] = weights[i];
  const std::vector<float> values = random_floats(entries * kValueStride, 9);
  const std::vector<std::uint32_t> order = some_order(entries);
  EntryWalk walk{walked.rows.data(), kPairStride, values.data(), kValueStride, order.data(), entries};
  loops.weighted_sums(walk, walked.full.data());
  loops.row_products(values.data(), kValueStride, entries, walked.full.data(), true, walked.rows.data() + kWalkRows,
                     kPairStride);
  loops.sum_products(walked.full.data(), walked.full.data(), kWalkWidth, walked.energy.data());
  walked.energy[4] = 3;  // told apart from nothing

  walk.entries = entries / 3;
  std::vector<float> none((entries + 1) * kWalkRows);
  loops.weighted_sums(walk, walked.sums.data());
  loops.walk_masses(walk, none.data(), walked.mass.data(), none.data());
  std::vector<float> from_all(kWalkRows);
  for (std::size_t r = 1; r < kWalkRows; r += 2) {
    from_all[r] = 1;
    for (std::size_t at = r; at < kSumCount; at += kWalkRows) walked.sums[at] -= walked.full[at];
  }
  walk.order += walk.entries;
  walk.entries = entries - walk.entries;
  loops.sum_products(walked.sums.data(), walked.full.data(), kWalkWidth, walked.product.data());
  walked.norms.resize(walk.entries * kPairStride);
  walked.shares.resize(walk.entries * kWalkRows);
  walked.losses.assign(walk.entries * kWalkRows, 1.0F);
  loops.walk_norms(walk, true, walked.sums.data(), walked.norms.data());
  loops.walk_masses(walk, from_all.data(), walked.mass.data(), walked.shares.data());
  loops.walk_losses(walk,
                    {.norms = walked.norms.data(),
                     .shares = walked.shares.data(),
                     .products = walked.rows.data() + kWalkRows,
                     .from_all = from_all.data(),
                     .energy = walked.energy.data(),
                     .product = walked.product.data()},
                    first_losses, walked.losses.data());
  return walked;
}

// [entries][kWalkRows] in double, of all entries in order.
std::vector<double> exact_losses(const Walked& walked, std::size_t entries) {
  const std::vector<float> values = random_floats(entries * kValueStride, 9);
  std::vector<double> losses(entries * kWalkRows);
  for (std::size_t r = 0; r < kWalkRows; ++r) {
    double mass = 0;
    std::vector<double> sum(kWalkWidth);
    for (std::size_t i = 0; const std::uint32_t j : some_order(entries)) {
      double& loss = losses[i++ * kWalkRows + r];
      for (std::size_t c = 0; c < kWalkWidth; ++c) {
        const double o = walked.full[c * kWalkRows + r];
        loss += mass > 1e-6 ? std::pow(sum[c] / mass - o, 2) : o * o;
      }
      const double weight = walked.rows[j * kPairStride + r];
      mass += weight;
      for (std::size_t c = 0; c < kWalkWidth; ++c) sum[c] += weight * static_cast<double>(values[j * kValueStride + c]);
    }
  }
  return losses;
}

TEST_F(LoopsTest, WalksHaveTheSameBitsAndAreRight) {
  for (const std::size_t entries : {1U, 2U, 13U, 129U}) {
    const Walked a = run_walk(base_loops(), entries, true);
    EXPECT_TRUE(a == run_walk(*other_, entries, true)) << entries;
    const Walked added = run_walk(base_loops(), entries, false);
    EXPECT_TRUE(added == run_walk(*other_, entries, false)) << entries;
    const std::vector<double> exact = exact_losses(a, entries);
    for (std::size_t i = 0; i < a.losses.size(); ++i) {
      const double loss = i % kWalkRows == 4 ? 3 : exact[entries / 3 * kWalkRows + i];
      // An odd row's sum over all cancels, which is why rows with little mass aren't priced from it.
      const double allowed = 1e-5 * (1 + loss) * (i % 2 == 1 ? 1 / std::pow(1 - a.shares[i], 2) : 1.0);
      EXPECT_NEAR(a.losses[i], loss, allowed) << entries << ' ' << i;
      EXPECT_NEAR(added.losses[i], 1 + loss, allowed) << entries << ' ' << i;
    }
    for (std::size_t r = 0; r < kWalkRows; ++r) {
      EXPECT_NEAR(a.mass[r], r == 4 ? 0 : 1, 1e-5) << entries << ' ' << r;
      const float rest = r % 2 == 1 ? a.full[r] : 0.0F;  // of the first dimension
      EXPECT_NEAR(a.sums[r] + rest, a.full[r], 1e-6) << entries << ' ' << r;
    }
  }
}

TEST_F(LoopsTest, LossesAddUpToTheSameBits) {
  for (const std::size_t keys : {1U, 4U, 7U}) {
    const std::vector<float> losses = random_floats(keys * kWalkRows, 15);
    std::vector<double> a(keys, 0.25);
    std::vector<double> b = a;
    base_loops().add_losses(losses.data(), keys, a.data());
    other_->add_losses(losses.data(), keys, b.data());
    EXPECT_EQ(a, b) << keys;
    for (std::size_t k = 0; k < keys; ++k) {
      const auto line = losses.begin() + static_cast<std::ptrdiff_t>(k * kWalkRows);
      EXPECT_NEAR(a[k], std::accumulate(line, line + kWalkRows, 0.25), 1e-12) << keys << ' ' << k;
    }
  }
}

TEST_F(LoopsTest, NormsAndMaskedSumsHaveTheSameBits) {
  for (const std::size_t columns : {1U, 7U, 8U, 31U, 64U}) {
    for (const std::size_t rows : {1U, 3U, 4U, 9U}) {
      const std::vector<float> values = random_floats(rows * columns, 13);
      for (const bool squared : {false, true}) {
        std::vector<float> a(rows);
        std::vector<float> b(rows);
        base_loops().row_norms({values.data(), columns, rows, columns}, squared, a.data());
        other_->row_norms({values.data(), columns, rows, columns}, squared, b.data());
        EXPECT_EQ(a, b) << columns << ' ' << rows << ' ' << squared;
        // A row's norm doesn't depend on its neighbours.
        base_loops().row_norms({values.data() + (rows - 1) * columns, columns, 1, columns}, squared, b.data());
        EXPECT_EQ(a.back(), b.front()) << columns << ' ' << rows << ' ' << squared;
      }
    }
    std::vector<std::uint32_t> mask(columns, ~0U);
    for (std::size_t i = 0; i < columns; i += 3) mask[i] = 0;
    const std::vector<float> row = random_floats(columns, 14);
    double exact = 0;
    for (std::size_t i = 0; i < columns; ++i) exact += mask[i] != 0 ? static_cast<double>(row[i]) : 0.0;
    EXPECT_EQ(base_loops().masked_sum(row.data(), mask.data(), columns),
              other_->masked_sum(row.data(), mask.data(), columns));
    EXPECT_NEAR(base_loops().masked_sum(row.data(), mask.data(), columns), exact, 1e-12) << columns;
  }
}

// Through a softmax of two keys, whose difference is the exponent.
TEST_F(LoopsTest, ExponentialsAreAccurate) {
  for (float x = 0; x > -100; x -= 0.37F) {
    std::vector<float> keys(kKeyTile);
    keys[1] = x;
    const float one = 1;
    const std::size_t begin = 0;
    const std::size_t end = 2;
    std::vector<float> out(kKeyTile);
    float inverse = 0;
    base_loops().softmax_block({.queries = &one,
                                .query_stride = 1,
                                .rows = 1,
                                .dimensions = 1,
                                .keys = keys.data(),
                                .begin = &begin,
                                .end = &end,
                                .last = kKeyTile},
                               out.data(), kKeyTile, &inverse);
    const double exact = x < -87 ? 0.0 : std::exp(static_cast<double>(x));
    EXPECT_NEAR(out[1], exact, 2e-7 * exact) << x;
    EXPECT_NEAR(inverse, 1 / (1 + exact), 1e-7);
    EXPECT_EQ(out[0], 1.0F);
    EXPECT_EQ(out[2], 0.0F);
  }
}

}  // namespace
}  // namespace depthkv
