// SPDX-License-Identifier: Apache-2.0
// Metrics of how a layer represents noised copies ("views") of documents.   Skean et al. 2025, arXiv:2502.02013
// All of them are functions of the dot products of the views' vectors, [document, view], and of which documents count.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace depthkv {

class ViewGram {
 public:
  // vectors: [document * views + view][D], all of the same length.
  ViewGram(const std::vector<std::span<const float>>& vectors, std::size_t views);
  ViewGram(ViewGram&&) noexcept;
  ~ViewGram();

  std::size_t documents() const;

  // InfoNCE (van den Oord et al. 2018) of pairs of views (0, 1), (2, 3), ...: per vector -ln(p / (p + sum n)), p and n
  // its exp(dot / temperature) with the same document's other view, and with the vectors of all other documents of the
  // pair; mean over vectors and pairs. A loss: low where noise changes little. At least two documents.
  double infonce(std::span<const std::size_t> documents, double temperature) const;

  // DiME (Skean et al. 2023, arXiv:2301.08164) of the same pairs: matrix-based joint entropy of the two views' Gram
  // matrices (their Hadamard product) with the documents of one of them permuted, mean over `permutations`, less that
  // with them in order; mean over pairs. High where a view tells which document it is of.
  double dime(std::span<const std::size_t> documents, int permutations, std::uint64_t seed) const;

  // LiDAR (Thilak et al. 2024, arXiv:2312.04000): entropy of the spectrum of W^-1/2 B W^-1/2, B the covariance of the
  // documents' means, W that of views around them plus `ridge` on the diagonal. The paper prints its exponential.
  double lidar(std::span<const std::size_t> documents, double ridge) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace depthkv
