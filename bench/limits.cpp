// SPDX-License-Identifier: Apache-2.0
#include "bench/limits.h"

#include <cblas.h>

#include <memory>
#include <random>
#include <vector>

#include "depthkv/error.h"

namespace depthkv {

std::string sgemm_kernels() {
  openblas_set_num_threads(1);
  const std::string chosen = openblas_get_corename();
  if (__builtin_cpu_supports("avx2") && (chosen == "Prescott" || chosen == "Nehalem" || chosen == "Sandybridge")) {
    throw Error("OpenBLAS uses its kernels for " + chosen +
                " on a processor with AVX2, which would be no limit at all; set " +
                "OPENBLAS_CORETYPE (SkylakeX with AVX-512, Haswell without), as bench/roofline does");
  }
  return chosen;
}

std::function<void()> sgemm_of(ProductShape shape) {
  struct Matrices {
    std::vector<float> a, b, c;
  };
  const auto random_of = [](std::int64_t count) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& x : values) x = uniform(random);
    return values;
  };
  auto matrices = std::make_shared<Matrices>(Matrices{random_of(shape.m * shape.k), random_of(shape.k * shape.n),
                                                      std::vector<float>(static_cast<std::size_t>(shape.m * shape.n))});
  return [matrices, m = static_cast<int>(shape.m), n = static_cast<int>(shape.n), k = static_cast<int>(shape.k)] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1.0F, matrices->a.data(), k, matrices->b.data(), n,
                0.0F, matrices->c.data(), n);
  };
}

double flops_of(ProductShape shape) {
  return 2 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
}

}  // namespace depthkv
