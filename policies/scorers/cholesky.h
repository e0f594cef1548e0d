// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <span>
#include <vector>

namespace depthkv {

// M = L L^T of a symmetric positive definite matrix [size][size]; the bits don't depend on the machine, which a
// library's blocked form doesn't promise (docs/decisions/002).
class Cholesky {
 public:
  // Nothing where M isn't positive definite.
  static std::optional<Cholesky> of(std::vector<double> matrix, std::size_t size);
  // x^T M^-1 x.
  double inverse_form(std::span<const double> x) const;

 private:
  Cholesky(std::vector<double> lower, std::size_t size) : lower_(std::move(lower)), size_(size) {}

  std::vector<double> lower_;
  std::size_t size_;
};

}  // namespace depthkv
