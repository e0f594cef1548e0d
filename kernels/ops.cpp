// SPDX-License-Identifier: Apache-2.0
// The one place that dispatches.
#include "depthkv/ops.h"

#include <utility>

#include "depthkv/error.h"
#include "depthkv/trace.h"
#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/attention_maxima/attention_maxima.h"
#include "kernels/attention_rows/attention_rows.h"
#include "kernels/attention_sums/attention_sums.h"
#include "kernels/column_sums/column_sums.h"
#include "kernels/cuda_backend.h"
#include "kernels/evidence_curves/evidence_curves.h"
#include "kernels/hide_entries/hide_entries.h"
#include "kernels/merge/merge.h"
#include "kernels/page_bounds/page_bounds.h"
#include "kernels/pooled_best/pooled_best.h"
#include "kernels/projected_norms/projected_norms.h"
#include "kernels/quantise/quantise.h"
#include "kernels/rank/rank.h"
#include "kernels/row_norms/row_norms.h"
#include "kernels/set_losses/set_losses.h"

namespace depthkv {

SoftmaxSpec softmax_of(const ModelCard& model, int layer) {
  return {model.attention_scale, model.logit_softcap, model.layers.at(static_cast<std::size_t>(layer)).window};
}

std::string_view to_string(Device device) {
  constexpr std::string_view kNames[] = {"cpu", "reference", "cuda"};
  return kNames[static_cast<std::size_t>(device)];
}

namespace {

CudaBackend& cuda_backend() {
#if DEPTHKV_WITH_CUDA
  static CudaBackend backend{cuda::ops, cuda::devices, cuda::device_of, cuda::gather, cuda::device_of, cuda::upload};
#else
  static CudaBackend backend{.devices = [] {
    return cuda::Devices{{}, "this build has no CUDA; build with preset cuda"};
  }};
#endif
  return backend;
}

const Ops& cuda_ops() {
  const cuda::Devices found = cuda_backend().devices();
  if (found.names.empty())
    throw InputError("device cuda: " + found.why_none + ". Say device: cpu, or auto, which takes what there is");
  return cuda_backend().ops();
}

}  // namespace

UseCudaBackend::UseCudaBackend(CudaBackend backend) : before_(std::exchange(cuda_backend(), backend)) {}
UseCudaBackend::~UseCudaBackend() { cuda_backend() = before_; }

std::optional<int> cuda_device_of(const View& queries, const HalfRows& keys) {
  return cuda_backend().devices().names.empty() ? std::nullopt : cuda_backend().device_of(queries, keys);
}

std::optional<int> cuda_device_of(const Logits& logits) {
  return cuda_backend().devices().names.empty() ? std::nullopt : cuda_backend().device_of_logits(logits);
}

std::shared_ptr<const std::uint16_t> cuda_gather(std::span<const HalfRows> pieces) {
  return cuda_backend().gather(pieces);
}

std::shared_ptr<const std::uint32_t> cuda_upload(std::span<const std::uint32_t> words) {
  return cuda_backend().upload(words);
}

Device fastest_device() { return cuda_backend().devices().names.empty() ? Device::cpu : Device::cuda; }

int device_count(Device device) {
  return device == Device::cuda ? static_cast<int>(cuda_backend().devices().names.size()) : 1;
}

std::string cuda_summary() {
  const cuda::Devices found = cuda_backend().devices();
  if (found.names.empty()) return "none (" + found.why_none + ")";
  std::string summary;
  for (const std::string& name : found.names) summary += (summary.empty() ? "" : "; ") + name;
  return summary;
}

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
                        .set_losses = cpu::set_losses,
                        .evidence_curves = cpu::evidence_curves,
                        .pooled_best = cpu::pooled_best,
                        .page_bounds = cpu::page_bounds,
                        .page_scores = cpu::page_scores,
                        .quantise = cpu::quantise,
                        .nearest_kept = cpu::nearest_kept,
                        .merge_rows = cpu::merge_rows,
                        .hide_entries = cpu::hide_entries};
  static const Ops kReference{.name = "reference",
                              .attention_rows = reference::attention_rows,
                              .attention_sums = reference::attention_sums,
                              .attention_maxima = reference::attention_maxima,
                              .column_sums = reference::column_sums,
                              .row_norms = reference::row_norms,
                              .projected_norms = reference::projected_norms,
                              .rank = reference::rank,
                              .accumulate_losses = reference::accumulate_losses,
                              .set_losses = reference::set_losses,
                              .evidence_curves = reference::evidence_curves,
                              .pooled_best = reference::pooled_best,
                              .page_bounds = reference::page_bounds,
                              .page_scores = reference::page_scores,
                              .quantise = reference::quantise,
                              .nearest_kept = reference::nearest_kept,
                              .merge_rows = reference::merge_rows,
                              .hide_entries = reference::hide_entries};
  if (device == Device::cuda) return cuda_ops();
  return device == Device::cpu ? kCpu : kReference;
}

}  // namespace depthkv
