// SPDX-License-Identifier: Apache-2.0
#include "replay/view_metrics.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/stats.h"
#include "tracer/spectrum.h"

namespace depthkv {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;

Index to_index(std::size_t value) { return static_cast<Index>(value); }

// -sum p ln p of the eigenvalues of a symmetric positive semidefinite matrix, divided by their sum.
double entropy_of(const MatrixXd& matrix) {
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(matrix, Eigen::EigenvaluesOnly);
  if (solver.info() != Eigen::Success) throw Error("a spectrum of views wasn't found; are there infinite values?");
  const double total = solver.eigenvalues().cwiseMax(0.0).sum();
  double entropy = 0;
  for (const double x : solver.eigenvalues())
    if (x > 0) entropy -= x / total * std::log(x / total);
  return std::max(entropy, 0.0);
}

// Centres rows and columns: of a Gram matrix, that of the vectors less their mean.
MatrixXd centred(const MatrixXd& gram) {
  const Eigen::RowVectorXd columns = gram.colwise().mean();
  const Eigen::VectorXd rows = gram.rowwise().mean();
  return ((gram.rowwise() - columns).colwise() - rows).array() + gram.mean();
}

}  // namespace

struct ViewGram::Impl {
  MatrixXd gram;  // [document * views + view, likewise]
  Index views = 0;

  // Dot products of one view of the documents with another.
  MatrixXd block(std::span<const std::size_t> documents, Index a, Index b) const {
    const auto count = to_index(documents.size());
    MatrixXd found(count, count);
    for (Index i = 0; i < count; ++i)
      for (Index j = 0; j < count; ++j)
        found(i, j) = gram(to_index(documents[static_cast<std::size_t>(i)]) * views + a,
                           to_index(documents[static_cast<std::size_t>(j)]) * views + b);
    return found;
  }

  // Of the documents' views and their means: means with means, means with deviations, deviations with deviations.
  struct Classes {
    MatrixXd means;
    MatrixXd mixed;
    MatrixXd deviations;
  };
  Classes classes(std::span<const std::size_t> documents) const {
    const auto count = to_index(documents.size());
    MatrixXd all(count * views, count * views);
    for (Index i = 0; i < count; ++i)
      for (Index j = 0; j < count; ++j)
        all.block(i * views, j * views, views, views) =
            gram.block(to_index(documents[static_cast<std::size_t>(i)]) * views,
                       to_index(documents[static_cast<std::size_t>(j)]) * views, views, views);
    MatrixXd half(count, count * views);  // means with views
    for (Index i = 0; i < count; ++i) half.row(i) = all.middleRows(i * views, views).colwise().mean();
    MatrixXd means(count, count);
    for (Index j = 0; j < count; ++j) means.col(j) = half.middleCols(j * views, views).rowwise().mean();
    Classes found{means, half, all};
    for (Index j = 0; j < count; ++j) found.mixed.middleCols(j * views, views).colwise() -= means.col(j);
    for (Index i = 0; i < count; ++i) found.deviations.middleRows(i * views, views).rowwise() -= half.row(i);
    for (Index j = 0; j < count; ++j) {  // of what is left, the part along the means' columns
      const Eigen::VectorXd column = found.deviations.middleCols(j * views, views).rowwise().mean();
      found.deviations.middleCols(j * views, views).colwise() -= column;
    }
    return found;
  }
};

ViewGram::ViewGram(const std::vector<std::span<const float>>& vectors, std::size_t views)
    : impl_(std::make_unique<Impl>()) {
  if (views < 2 || views % 2 != 0 || vectors.empty() || vectors.size() % views != 0)
    throw Error("views come in pairs, as many of every document");
  fix_block_sizes();
  MatrixXd columns(to_index(vectors[0].size()), to_index(vectors.size()));
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    if (vectors[i].size() != vectors[0].size()) throw Error("vectors of views have different lengths");
    columns.col(to_index(i)) =
        Eigen::Map<const Eigen::VectorXf>(vectors[i].data(), to_index(vectors[i].size())).cast<double>();
  }
  impl_->views = to_index(views);
  impl_->gram = columns.transpose() * columns;
}
ViewGram::ViewGram(ViewGram&&) noexcept = default;
ViewGram::~ViewGram() = default;

std::size_t ViewGram::documents() const { return static_cast<std::size_t>(impl_->gram.rows() / impl_->views); }

double ViewGram::infonce(std::span<const std::size_t> documents, double temperature) const {
  const auto count = to_index(documents.size());
  double loss = 0;
  for (Index v = 0; v < impl_->views; v += 2) {
    const MatrixXd within[2] = {impl_->block(documents, v, v), impl_->block(documents, v + 1, v + 1)};
    const MatrixXd across = impl_->block(documents, v, v + 1);
    for (Index i = 0; i < count; ++i) {
      for (const int side : {0, 1}) {
        std::vector<double> exponents{across(i, i) / temperature};
        for (Index j = 0; j < count; ++j) {
          if (j == i) continue;
          exponents.push_back(within[side](i, j) / temperature);
          exponents.push_back((side == 0 ? across(i, j) : across(j, i)) / temperature);
        }
        const double most = *std::max_element(exponents.begin(), exponents.end());
        double sum = 0;
        for (const double x : exponents) sum += std::exp(x - most);
        loss += most + std::log(sum) - exponents[0];
      }
    }
  }
  return loss / static_cast<double>(count * impl_->views);
}

double ViewGram::dime(std::span<const std::size_t> documents, int permutations, std::uint64_t seed) const {
  std::vector<std::size_t> order(documents.begin(), documents.end());
  double total = 0;
  for (Index v = 0; v < impl_->views; v += 2) {
    const MatrixXd first = impl_->block(documents, v, v);
    total -= entropy_of(first.cwiseProduct(impl_->block(documents, v + 1, v + 1)));
    for (int p = 0; p < permutations; ++p) {
      shuffle(order, seed);
      total += entropy_of(first.cwiseProduct(impl_->block(order, v + 1, v + 1))) / permutations;
    }
  }
  return total / static_cast<double>(impl_->views / 2);
}

// Everything stays in the space that the views span: with R the deviations / sqrt(n) and M the means around their mean
// / sqrt(documents), both as columns, the spectrum sought is that of M^T (R R^T + ridge)^-1 M, which by Woodbury's
// identity is (M^T M - M^T R (R^T R + ridge)^-1 R^T M) / ridge.
double ViewGram::lidar(std::span<const std::size_t> documents, double ridge) const {
  const Impl::Classes classes = impl_->classes(documents);
  const auto count = static_cast<double>(documents.size());
  const auto all = static_cast<double>(classes.deviations.rows());
  MatrixXd inner = classes.deviations / all;
  inner.diagonal().array() += ridge;
  const MatrixXd mixed = (classes.mixed.rowwise() - classes.mixed.colwise().mean()) / std::sqrt(count * all);
  const MatrixXd explained = mixed * inner.llt().solve(mixed.transpose());
  const MatrixXd between = (centred(classes.means) / count - explained) / ridge;
  return entropy_of((between + between.transpose()) / 2);
}

}  // namespace depthkv
