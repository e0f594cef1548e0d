// SPDX-License-Identifier: Apache-2.0
// pyramid: linearly less with depth.   Cai et al. 2024 (PyramidKV), arXiv:2406.02069
// With N entries per head to give: the last layer gets N / beta, the first 2N minus that, lowered to what there is
// beyond the window (the last then rises so that the mean stays N). `form`:
//   paper    N counts what is beyond the protected positions
//   factory  the same as in the authors' code: an even split while the prompt is shorter than 2N
//   kvpress  N counts the protected positions, too; an even split unless tokens >= first >= last >= protected
// The codes floor every division, so that their sums drift by up to L (L - 1) / 2 entries per head; here the real
// numbers are rounded once, whatever the form, and the sum is exact. The window of all three is what `protect` says.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"

namespace depthkv {
namespace {

enum class Form { paper, factory, kvpress };

std::vector<std::int64_t> split(const LayerInput& input, Budget budget, Form form, double beta) {
  const auto tokens = static_cast<double>(input.shape.tokens);
  const auto window = static_cast<double>(input.protected_per_head);
  const double base = form == Form::kvpress ? 0 : window;
  const double mean = static_cast<double>(budget.entries) / static_cast<double>(input.shape.heads()) - base;
  if (mean <= 0 || (form == Form::factory && tokens < 2 * mean)) return split_evenly(input, budget);
  const double first = std::min(tokens - window, 2 * mean - mean / beta);
  const double last = 2 * mean - first;
  if (form == Form::kvpress && !(first >= last && last >= window)) return split_evenly(input, budget);
  const auto layers = input.shape.layers.size();
  std::vector<double> per_head;
  for (std::size_t l = 0; l < layers; ++l) {
    const double depth = layers > 1 ? static_cast<double>(l) / static_cast<double>(layers - 1) : 0.5;
    per_head.push_back(base + first + (last - first) * depth);
  }
  return share_per_head(input, budget, per_head);
}

}  // namespace

LayerAllocator make_pyramid_layers(Params& params) {
  const double beta = params.take_in("beta", 20.0, 1.0, 1e6);
  const std::string name = params.take_choice("form", "paper", {"paper", "kvpress", "factory"});
  const Form form = name == "paper" ? Form::paper : name == "kvpress" ? Form::kvpress : Form::factory;
  LayerAllocator allocator;
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    return [&input, form, beta](Budget budget) { return split(input, budget, form, beta); };
  };
  return allocator;
}

}  // namespace depthkv
