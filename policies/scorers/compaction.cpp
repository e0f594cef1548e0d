// SPDX-License-Identifier: Apache-2.0
#include "policies/scorers/compaction.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "policies/scorers/cholesky.h"
#include "policies/scorers/group.h"
#include "policies/scorers/noise.h"
#include "policies/scorers/pooling.h"

namespace depthkv {
namespace {

// To mean 0 and unbiased deviation 1 over all heads and positions together. Heads' sums are added from the smallest up,
// so that the order of heads doesn't matter.
void standardise(Tensor& scores) {
  const auto over_heads = [&](const auto& term) {
    std::vector<double> sums;
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const auto row = scores.row(g, 0);
      sums.push_back(std::accumulate(row.begin(), row.end(), 0.0,
                                     [&](double sum, float x) { return sum + term(static_cast<double>(x)); }));
    }
    std::sort(sums.begin(), sums.end());
    return std::accumulate(sums.begin(), sums.end(), 0.0);
  };
  constexpr double kLeast = 1e-6;
  const auto count = static_cast<double>(scores.values().size());
  const double mean = over_heads([](double x) { return x; }) / count;
  const double squares = over_heads([&](double x) { return (x - mean) * (x - mean); });
  const double deviation = std::max(kLeast, count > 1 ? std::sqrt(squares / (count - 1)) : 0.0);
  for (float& x : scores.values()) x = static_cast<float>((static_cast<double>(x) - mean) / deviation);
}

// Standard normal numbers [from][to], the same for all heads of a layer (Box and Muller 1958), over sqrt(to).
std::vector<double> gaussian_sketch(const LayerFeatures& layer, const LeverageOptions& options, std::size_t from,
                                    std::size_t to) {
  const Noise noise(options.seed, layer, 0);
  std::vector<double> sketch(from * to);
  for (std::size_t i = 0; i < sketch.size(); ++i) {
    const double radius = std::sqrt(-2 * std::log(1 - static_cast<double>(noise.uniform(2 * i))));
    const double angle = 2 * std::numbers::pi * static_cast<double>(noise.uniform(2 * i + 1));
    sketch[i] = radius * std::cos(angle) / std::sqrt(static_cast<double>(to));
  }
  return sketch;
}

// One head's keys minus their mean, sketched: [n][width].
std::vector<double> centred_rows(const View& keys, std::int64_t head, const std::vector<double>& sketch,
                                 std::size_t width) {
  const auto d = static_cast<std::size_t>(keys.columns);
  std::vector<double> mean(d);
  for (std::int64_t j = 0; j < keys.rows; ++j)
    for (std::size_t c = 0; c < d; ++c)
      mean[c] += static_cast<double>(keys.row(head, j)[c]) / static_cast<double>(keys.rows);
  std::vector<double> rows;
  std::vector<double> centred(d);
  for (std::int64_t j = 0; j < keys.rows; ++j) {
    for (std::size_t c = 0; c < d; ++c) centred[c] = static_cast<double>(keys.row(head, j)[c]) - mean[c];
    if (sketch.empty()) {
      rows.insert(rows.end(), centred.begin(), centred.end());
      continue;
    }
    const std::size_t at = rows.size();
    rows.resize(at + width);
    for (std::size_t c = 0; c < d; ++c)
      for (std::size_t k = 0; k < width; ++k) rows[at + k] += centred[c] * sketch[c * width + k];
  }
  return rows;
}

Cholesky regularised(const std::vector<double>& rows, std::size_t width, double jitter) {
  std::vector<double> gram(width * width);
  for (std::size_t at = 0; at < rows.size(); at += width)
    for (std::size_t a = 0; a < width; ++a)
      for (std::size_t b = 0; b < width; ++b) gram[a * width + b] += rows[at + a] * rows[at + b];
  for (double more = jitter;; more *= 10) {  // as in kvpress: grows until the matrix can be inverted
    std::vector<double> matrix = gram;
    for (std::size_t a = 0; a < width; ++a) matrix[a * width + a] += more;
    if (auto found = Cholesky::of(std::move(matrix), width)) return *found;
  }
}

// Softmax of the products of queries and keys of one chunk, summed over its queries.
class ChunkAttention {
 public:
  ChunkAttention(const View& keys, std::int64_t head, std::int64_t begin, std::int64_t end, std::int64_t missing)
      : count_(static_cast<std::size_t>(end - begin)), missing_(static_cast<double>(missing)), sums_(count_) {
    transposed_.resize(count_ * static_cast<std::size_t>(keys.columns));
    for (std::size_t j = 0; j < count_; ++j) {
      const auto key = keys.row(head, begin + static_cast<std::int64_t>(j));
      for (std::size_t c = 0; c < key.size(); ++c) transposed_[c * count_ + j] = key[c];
    }
    // Rows of padding are 0 and so attend to everything alike.
    for (double& sum : sums_) sum = missing_ / (static_cast<double>(count_) + missing_);
  }

  void add(std::span<const float> query) {
    std::vector<float> logits(count_);
    for (std::size_t c = 0; c < query.size(); ++c) {
      const float* keys = transposed_.data() + c * count_;
      for (std::size_t j = 0; j < count_; ++j) logits[j] += query[c] * keys[j];
    }
    const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    const double top = missing_ > 0 ? std::max(largest, kPadding) : largest;
    double sum = missing_ * std::exp(kPadding - top);
    std::vector<double> weights;
    for (const float x : logits) sum += weights.emplace_back(std::exp(static_cast<double>(x) - top));
    for (std::size_t j = 0; j < count_; ++j) sums_[j] += weights[j] / sum;
  }

  const std::vector<double>& sums() const { return sums_; }

 private:
  static constexpr double kPadding = -1e-9;  // kvpress's logit of a key of padding, meant to be -1e9

  std::size_t count_;
  double missing_;
  std::vector<float> transposed_;
  std::vector<double> sums_;
};

}  // namespace

LeverageOptions take_leverage(Params& params) {
  return {params.take_in("sketch", std::int64_t{48}, 0, 4096), params.take_in("jitter", 1e-2, 1e-12, 1e6),
          static_cast<std::uint64_t>(params.take<std::int64_t>("seed", 0))};
}

Tensor leverage_scores(const LayerFeatures& layer, const LeverageOptions& options) {
  const auto d = static_cast<std::size_t>(layer.unrotated_keys.columns);
  const auto width = options.sketch == 0 ? d : static_cast<std::size_t>(options.sketch);
  const std::vector<double> sketch =
      options.sketch == 0 ? std::vector<double>{} : gaussian_sketch(layer, options, d, width);
  Tensor scores(layer.unrotated_keys.heads, 1, layer.tokens);
  for (std::int64_t g = 0; g < scores.heads(); ++g) {
    const std::vector<double> rows = centred_rows(layer.unrotated_keys, g, sketch, width);
    const Cholesky inverse = regularised(rows, width, options.jitter);
    for (std::size_t j = 0; j < static_cast<std::size_t>(layer.tokens); ++j)
      scores.row(g, 0)[j] = static_cast<float>(inverse.inverse_form(std::span(rows).subspan(j * width, width)));
  }
  standardise(scores);
  return scores;
}

NoncausalOptions take_noncausal(Params& params) {
  return {params.take_in("chunk", std::int64_t{256}, 1, std::int64_t{1} << 20), params.take("parity_bugs", false)};
}

Tensor noncausal_scores(const LayerFeatures& layer, const NoncausalOptions& options, const Ops& ops) {
  Tensor per_head(layer.queries.heads, 1, layer.tokens);
  for (std::int64_t h = 0; h < per_head.heads(); ++h) {
    for (std::int64_t begin = 0; begin < layer.tokens; begin += options.chunk) {
      const std::int64_t end = std::min(layer.tokens, begin + options.chunk);
      const std::int64_t missing = options.parity_bugs ? begin + options.chunk - end : 0;
      ChunkAttention chunk(layer.keys, h / layer.shape.group(), begin, end, missing);
      for (std::int64_t i = begin; i < end; ++i) chunk.add(layer.queries.row(h, i));
      std::ranges::transform(chunk.sums(), per_head.row(h, 0).begin() + begin,
                             [](double sum) { return static_cast<float>(sum); });
    }
  }
  Tensor scores = reduce_group(per_head.view(), layer.shape.group(), Reduction::mean);
  const Tensor norms = ops.row_norms(layer.values, Norm::l2);
  for (std::size_t i = 0; i < scores.values().size(); ++i) scores.values()[i] *= norms.values()[i];
  constexpr std::int64_t kKernel = 3;
  pool_heads(scores, layer.tokens, kKernel, Pool::avg);
  standardise(scores);
  return scores;
}

}  // namespace depthkv
