// SPDX-License-Identifier: Apache-2.0
// The one place that dispatches.
#include "depthkv/ops.h"

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/attention_rows/attention_rows.h"
#include "kernels/column_sums/column_sums.h"
#include "kernels/rank/rank.h"
#include "kernels/row_norms/row_norms.h"

namespace depthkv {

std::string_view to_string(Device device) { return device == Device::cpu ? "cpu" : "reference"; }

const Ops& ops_for(Device device) {
  static const Ops kCpu{"cpu",          cpu::attention_rows, cpu::column_sums,
                        cpu::row_norms, cpu::rank,           cpu::accumulate_losses};
  static const Ops kReference{"reference",          reference::attention_rows, reference::column_sums,
                              reference::row_norms, reference::rank,           reference::accumulate_losses};
  return device == Device::cpu ? kCpu : kReference;
}

}  // namespace depthkv
