// SPDX-License-Identifier: Apache-2.0
// With replay/view_metrics.cpp the only code that includes Eigen, which takes its time to compile.
#include "tracer/spectrum.h"

#include <fmt/format.h>

#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <mutex>
#include <utility>

#include "depthkv/error.h"

namespace depthkv {
namespace {

using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace

void fix_block_sizes() {
  static std::once_flag once;
  std::call_once(once, [] { Eigen::setCpuCacheSizes(32 << 10, 512 << 10, 4 << 20); });
}

struct GramSpectrum::Impl {
  std::int64_t rows;
  std::int64_t width;
  std::int64_t filled = 0;
  Rows held;             // all rows, where they are the fewer
  Eigen::MatrixXd gram;  // lower half

  bool few_rows() const { return rows <= width; }
};

GramSpectrum::GramSpectrum(std::int64_t rows, std::int64_t width) : impl_(std::make_unique<Impl>()) {
  fix_block_sizes();
  impl_->rows = rows;
  impl_->width = width;
  if (impl_->few_rows()) {
    impl_->held.resize(rows, width);
  } else {
    impl_->gram = Eigen::MatrixXd::Zero(width, width);
  }
}
GramSpectrum::GramSpectrum(GramSpectrum&&) noexcept = default;
GramSpectrum::~GramSpectrum() = default;

void GramSpectrum::add(std::span<const double> rows) {
  const auto count = static_cast<std::int64_t>(rows.size()) / impl_->width;
  if (impl_->filled + count > impl_->rows)
    throw Error(fmt::format("{} rows of hidden states came, expected {}", impl_->filled + count, impl_->rows));
  const Eigen::Map<const Rows> block(rows.data(), count, impl_->width);
  if (impl_->few_rows()) {
    impl_->held.middleRows(impl_->filled, count) = block;
  } else {
    impl_->gram.selfadjointView<Eigen::Lower>().rankUpdate(block.transpose());
  }
  impl_->filled += count;
}

std::vector<double> GramSpectrum::eigenvalues() {
  if (impl_->filled != impl_->rows)
    throw Error(fmt::format("{} rows of hidden states came, expected {}", impl_->filled, impl_->rows));
  if (impl_->rows == 0) return {};
  if (impl_->few_rows()) {
    impl_->gram = Eigen::MatrixXd::Zero(impl_->rows, impl_->rows);
    impl_->gram.selfadjointView<Eigen::Lower>().rankUpdate(impl_->held);
    impl_->held.resize(0, 0);
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(impl_->gram, Eigen::EigenvaluesOnly);
  if (solver.info() != Eigen::Success)
    throw Error("the spectrum of hidden states wasn't found; are there infinite values in them?");
  return {solver.eigenvalues().begin(), solver.eigenvalues().end()};
}

}  // namespace depthkv
