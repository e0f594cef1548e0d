// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_rows/attention_rows.h"
#include "kernels/attention_sums/attention_sums.h"

namespace depthkv::reference {

void attention_sums(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                    std::span<double> sums) {
  const Tensor rows = attention_rows(queries, keys, first, spec);
  for (std::int64_t h = 0; h < rows.heads(); ++h)
    for (std::int64_t r = 0; r < rows.rows(); ++r)
      for (std::int64_t j = 0; j < rows.columns(); ++j)
        sums[static_cast<std::size_t>(h * keys.rows + j)] +=
            static_cast<double>(rows.row(h, r)[static_cast<std::size_t>(j)]);
}

}  // namespace depthkv::reference
