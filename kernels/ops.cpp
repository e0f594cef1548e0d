// SPDX-License-Identifier: Apache-2.0
// The one place that dispatches.
#include "depthkv/ops.h"

#include "depthkv/trace.h"

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/attention_maxima/attention_maxima.h"
#include "kernels/attention_rows/attention_rows.h"
#include "kernels/attention_sums/attention_sums.h"
#include "kernels/column_sums/column_sums.h"
#include "kernels/projected_norms/projected_norms.h"
#include "kernels/rank/rank.h"
#include "kernels/row_norms/row_norms.h"
#include "kernels/set_losses/set_losses.h"

namespace depthkv {

SoftmaxSpec softmax_of(const ModelCard& model, int layer) {
  return {model.attention_scale, model.logit_softcap, model.layers.at(static_cast<std::size_t>(layer)).window};
}

std::string_view to_string(Device device) { return device == Device::cpu ? "cpu" : "reference"; }

const Ops& ops_for(Device device) {
  static const Ops kCpu{.name = "cpu",
                        .attention_rows = cpu::attention_rows,
                        .attention_sums = cpu::attention_sums,
                        .attention_maxima = cpu::attention_maxima,
                        .column_sums = cpu::column_sums,
                        .row_norms = cpu::row_norms,
                        .projected_norms = cpu::projected_norms,
                        .rank = cpu::rank,
                        .accumulate_losses = cpu::accumulate_losses,
                        .set_losses = cpu::set_losses};
  static const Ops kReference{.name = "reference",
                              .attention_rows = reference::attention_rows,
                              .attention_sums = reference::attention_sums,
                              .attention_maxima = reference::attention_maxima,
                              .column_sums = reference::column_sums,
                              .row_norms = reference::row_norms,
                              .projected_norms = reference::projected_norms,
                              .rank = reference::rank,
                              .accumulate_losses = reference::accumulate_losses,
                              .set_losses = reference::set_losses};
  return device == Device::cpu ? kCpu : kReference;
}

}  // namespace depthkv
