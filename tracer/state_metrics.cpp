// SPDX-License-Identifier: Apache-2.0
// Representation metrics of Skean et al. 2025, "Layer by Layer: Uncovering Hidden Representations in Language Models",
// arXiv:2502.02013. Where paper and code differ, both are here (curvature); the code clamps negative entries of the
// Gram matrix before it takes its spectrum, the paper doesn't, and neither do we.
#include "tracer/state_metrics.h"

#include <algorithm>
#include <cmath>

#include "tracer/index.h"
#include "tracer/spectrum.h"

namespace depthkv {
namespace {

constexpr std::int64_t kReadRows = 256;

double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The mean angle between each vector and the one before it.
class Angles {
 public:
  explicit Angles(std::int64_t width) : before_(to_size(width)) {}

  void add(std::span<const double> x) {
    const double square = dot(x, x);
    if (square > 0 && square_before_ > 0) {
      const double cosine = dot(before_, x) / std::sqrt(square * square_before_);
      sum_ += std::acos(std::clamp(cosine, -1.0, 1.0));
      ++count_;
    }
    std::ranges::copy(x, before_.begin());
    square_before_ = square;
  }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

 private:
  std::vector<double> before_;
  double square_before_ = 0;  // 0 before the first: no angle
  double sum_ = 0;
  std::int64_t count_ = 0;
};

// -sum p ln p over the eigenvalues' shares; `none` where all are 0.
struct Spectrum {
  double entropy = 0;
  bool none = true;
};
Spectrum entropy_of(std::span<const double> eigenvalues) {
  double total = 0;
  for (const double x : eigenvalues) total += std::max(x, 0.0);
  if (total <= 0) return {};
  double entropy = 0;
  for (const double x : eigenvalues)
    if (x > 0) entropy -= x / total * std::log(x / total);
  return {std::max(entropy, 0.0), false};
}

// The states as doubles, block after block.
void for_each_block(const ReadStates& read, std::int64_t rows, std::int64_t width,
                    const std::function<void(std::span<double>)>& visit) {
  std::vector<float> stored;
  std::vector<double> block;
  for (std::int64_t first = 0; first < rows; first += kReadRows) {
    stored.resize(to_size(std::min(kReadRows, rows - first) * width));
    read(first, stored);
    block.assign(stored.begin(), stored.end());
    visit(block);
  }
}

std::vector<double> mean_of(const ReadStates& read, std::int64_t rows, std::int64_t width) {
  std::vector<double> mean(to_size(width));
  for_each_block(read, rows, width, [&](std::span<double> block) {
    for (std::size_t i = 0; i < block.size(); i += mean.size())
      for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += block[i + j];
  });
  for (double& x : mean) x /= static_cast<double>(std::max<std::int64_t>(rows, 1));
  return mean;
}

// Centres a row and makes it a unit vector. Rows that are all the same become zero: sums of equal floats are exact in
// double, and so is their mean.
void normalise(std::span<double> row, std::span<const double> mean) {
  for (std::size_t j = 0; j < row.size(); ++j) row[j] -= mean[j];
  const double square = dot(row, row);
  const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
  for (double& x : row) x *= scale;
}

}  // namespace

StateSummary summarise_states(const ReadStates& read, std::int64_t rows, std::int64_t width, bool scalars) {
  const std::vector<double> mean = mean_of(read, rows, width);
  std::vector<double> unit_mean(mean.size());
  std::vector<double> last;  // row of the states
  std::vector<double> difference(mean.size());
  Angles turns(width);
  Angles steps(width);
  GramSpectrum gram(scalars ? rows : 0, width);
  for_each_block(read, rows, width, [&](std::span<double> block) {
    for (std::size_t i = 0; i < block.size(); i += mean.size()) {
      const std::span<double> row = block.subspan(i, mean.size());
      if (scalars && !last.empty()) {
        std::ranges::transform(row, last, difference.begin(), std::minus<>());
        turns.add(difference);
      }
      last.assign(row.begin(), row.end());
      normalise(row, mean);
      for (std::size_t j = 0; j < row.size(); ++j) unit_mean[j] += row[j];
      if (scalars) steps.add(row);
    }
    if (scalars) gram.add(block);
  });
  const Spectrum spectrum = entropy_of(gram.eigenvalues());

  StateSummary summary;
  summary.mean.assign(mean.begin(), mean.end());
  for (const double x : unit_mean)
    summary.unit_mean.push_back(static_cast<float>(x / static_cast<double>(std::max<std::int64_t>(rows, 1))));
  const auto set = [&](HiddenScalar scalar, double value) {
    summary.scalars[static_cast<std::size_t>(scalar)] = static_cast<float>(value);
  };
  set(HiddenScalar::curvature, turns.mean());
  set(HiddenScalar::curvature_code, steps.mean());
  set(HiddenScalar::prompt_entropy, spectrum.entropy);
  set(HiddenScalar::effective_rank, spectrum.none ? 0 : std::exp(spectrum.entropy));
  return summary;
}

}  // namespace depthkv
