// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace depthkv {

// Eigen cuts its products by the sizes of the processor's caches, which would make the bits depend on the machine. Called
// before any product, this makes them the same everywhere.
void fix_block_sizes();

// The eigenvalues of the Gram matrix Z Z^T of rows that come in blocks. Z Z^T and Z^T Z have the same ones but for
// zeros, so the smaller of the two is made: min(rows, width)^2 numbers are held, twice while it is solved.
class GramSpectrum {
 public:
  GramSpectrum(std::int64_t rows, std::int64_t width);
  GramSpectrum(GramSpectrum&&) noexcept;
  ~GramSpectrum();

  // [n, width], in blocks of any size. The same blocks give the same bits on every machine.
  void add(std::span<const double> rows);
  // Of all rows, which must have come: min(rows, width) numbers, ascending; rounding may leave a zero slightly below 0.
  std::vector<double> eigenvalues();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace depthkv
