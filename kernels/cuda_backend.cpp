// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda_backend.h"

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/attention_maxima/attention_maxima.h"
#include "kernels/attention_rows/attention_rows.h"
#include "kernels/attention_sums/attention_sums.h"
#include "kernels/column_sums/column_sums.h"
#include "kernels/projected_norms/projected_norms.h"
#include "kernels/rank/rank.h"
#include "kernels/row_norms/row_norms.h"
#include "kernels/set_losses/set_losses.h"

namespace depthkv::cuda {

const Ops& ops() {
  static const Ops kCuda{.name = "cuda",
                         .rankings_together = true,
                         .attention_rows = cuda::attention_rows,
                         .attention_sums = cuda::attention_sums,
                         .attention_maxima = cpu::attention_maxima,  // only recording asks for it, on the CPU
                         .column_sums = cuda::column_sums,
                         .row_norms = cuda::row_norms,
                         .projected_norms = cuda::projected_norms,
                         .rank = cuda::rank,
                         .accumulate_losses = cuda::accumulate_losses,
                         .set_losses = cuda::set_losses};
  return kCuda;
}

}  // namespace depthkv::cuda
