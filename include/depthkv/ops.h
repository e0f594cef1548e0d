// SPDX-License-Identifier: Apache-2.0
// The kernels that scorers and the replay may call; one table per back end. Contracts: kernels/<op>/<op>.h.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/curve.h"
#include "depthkv/tensor.h"

namespace depthkv {

struct SoftmaxSpec {
  double scale = 1;
  double softcap = 0;       // 0: none
  std::int64_t window = 0;  // keys that a row sees, its own included; 0: all up to its own
};

struct ModelCard;
// Of a layer of a model.
SoftmaxSpec softmax_of(const ModelCard& model, int layer);

struct Ops {
  std::string_view name;
  // accumulate_losses is fastest with all rankings of a KV head in one call; else with one, on a thread for each.
  bool rankings_together = false;
  // Causal softmax rows. queries [H, R, d], keys [Hkv, T, d], positions [R]; returns [H, R, T], 0 where key > position.
  Tensor (*attention_rows)(const View& queries, const View& keys, std::span<const std::int32_t> positions, SoftmaxSpec);
  // Softmax rows at positions first, first + 1, ... summed per key: queries [H, R, d], keys [T, Hkv, d]; adds to sums
  // [H][T].
  void (*attention_sums)(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec,
                         std::span<double> sums);
  // The most of each key's softmax times the row's weight: weights [W][R]; raises maxima [W][H][T].
  void (*attention_maxima)(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec,
                           std::span<const float> weights, std::span<float> maxima);
  // rows [H, R, n] summed over R in double; returns [H, 1, n].
  Tensor (*column_sums)(const View& rows);
  // rows [H, n, d]; returns [H, 1, n].
  Tensor (*row_norms)(const View& rows, Norm);
  // rows [Hkv, R, d] times each query head's weights [H, d, D]; returns [H, R, 2]: L1 and L2 norm of every product.
  Tensor (*projected_norms)(const View& rows, const View& weights);
  // scores [Hkv, 1, n], larger = keep; protected positions first. Ties go to the lower position; NaN throws Error.
  Ranking (*rank)(const View& scores, Protect);
  // Adds the losses of one KV head at every kept count to `curves`, one for each ranking.
  void (*accumulate_losses)(const LossInput&, std::span<LossCurves> curves);
  // The losses of one KV head when one set of entries is kept.
  SetLosses (*set_losses)(const SetInput&);
};

// cpu gives the same bits everywhere; reference is slow and in double; cuda ranks as cpu does, bit for bit.
enum class Device { cpu, reference, cuda };
std::string_view to_string(Device device);
// Throws InputError for cuda where this build or this machine has none.
const Ops& ops_for(Device device);
// cuda where this build and this machine have it, else cpu.
Device fastest_device();
// What there is for Device::cuda, in a sentence: names of devices, or why there are none.
std::string cuda_summary();

}  // namespace depthkv
