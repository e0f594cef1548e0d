// SPDX-License-Identifier: Apache-2.0
#include "policies/scorers/cholesky.h"

#include <cmath>

namespace depthkv {

std::optional<Cholesky> Cholesky::of(std::vector<double> matrix, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    double* row = matrix.data() + i * size;
    for (std::size_t j = 0; j <= i; ++j) {
      const double* other = matrix.data() + j * size;
      double sum = row[j];
      for (std::size_t k = 0; k < j; ++k) sum -= row[k] * other[k];
      if (j < i) {
        row[j] = sum / other[j];
      } else if (sum > 0 && std::isfinite(sum)) {
        row[i] = std::sqrt(sum);
      } else {
        return std::nullopt;
      }
    }
  }
  return Cholesky(std::move(matrix), size);
}

double Cholesky::inverse_form(std::span<const double> x) const {
  std::vector<double> y(size_);  // L y = x
  double form = 0;
  for (std::size_t i = 0; i < size_; ++i) {
    const double* row = lower_.data() + i * size_;
    double sum = x[i];
    for (std::size_t k = 0; k < i; ++k) sum -= row[k] * y[k];
    y[i] = sum / row[i];
    form += y[i] * y[i];
  }
  return form;
}

}  // namespace depthkv
