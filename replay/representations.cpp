// SPDX-License-Identifier: Apache-2.0
// Metrics of hidden states per layer and stage, with what chance could make of them.
#include "depthkv/representations.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "depthkv/error.h"
#include "kernels/parallel.h"
#include "replay/view_metrics.h"

namespace depthkv {
namespace {

constexpr int kDraws = 200;
constexpr int kDimePermutations = 10;                      // of dime, as in the paper's code
constexpr double kRidge = 1e-4;                            // of lidar, likewise
constexpr std::size_t kHeldBytes = std::size_t{1} << 30U;  // of views' vectors in memory

using Chosen = std::vector<std::size_t>;  // documents, or samples

Chosen all_of(std::size_t count) {
  Chosen all(count);
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

// Halves of the documents: the metrics compare documents with one another, which a resample that holds some of them
// twice would not do. Half of them deviate from the whole by as much as the whole from what it estimates.
std::vector<Chosen> halves(std::size_t count, std::uint64_t seed) {
  std::vector<Chosen> found;
  for (int d = 0; d < kDraws; ++d) {
    Chosen order = all_of(count);
    shuffle(order, seed);
    order.resize(std::max<std::size_t>(2, count / 2));
    std::sort(order.begin(), order.end());
    found.push_back(std::move(order));
  }
  return found;
}

// Around the value, as the draws lie around their mean.
std::vector<Interval> intervals_of(const MetricProfile& profile) {
  std::vector<Interval> intervals;
  for (std::size_t l = 0; l < profile.value.size(); ++l) {
    std::vector<double> at;
    for (const std::vector<double>& draw : profile.draws) at.push_back(draw[l]);
    const double shift = profile.value[l] - mean(at);
    const Interval around = percentile_interval(at);
    intervals.push_back({around.low + shift, around.high + shift});
  }
  return intervals;
}

// The metrics of views, in the order of view_metrics().
std::array<double, 3> measure_views(const ViewGram& gram, const Chosen& documents, const ViewPlan& plan) {
  return {gram.infonce(documents, plan.temperature), gram.dime(documents, kDimePermutations, plan.seed),
          gram.lidar(documents, kRidge)};
}

std::vector<MetricProfile> profiles_of(const std::vector<std::string>& metrics, std::size_t layers) {
  std::vector<MetricProfile> profiles;
  for (const std::string& metric : metrics)
    for (const Stage stage : kStages)
      profiles.push_back(
          {metric, stage, std::vector<double>(layers), {}, std::vector(kDraws, std::vector<double>(layers))});
  return profiles;
}

// As many layers at once as memory allows, each file read once for them.
std::vector<MetricProfile> of_views(const ViewSet& views, const std::vector<int>& layers, const ViewPlan& plan,
                                    const Progress& progress) {
  std::vector<MetricProfile> profiles = profiles_of(view_metrics(), layers.size());
  const std::vector<Chosen> drawn = halves(static_cast<std::size_t>(views.documents), plan.seed);
  const Chosen whole = all_of(static_cast<std::size_t>(views.documents));
  const Trace first = Trace::open(views.files[0]);
  const std::size_t bytes =
      views.files.size() * kStages.size() * static_cast<std::size_t>(first.model().embedding) * sizeof(float);
  const std::size_t group = std::max<std::size_t>(1, kHeldBytes / bytes);
  for (std::size_t begin = 0; begin < layers.size(); begin += group) {
    const std::size_t end = std::min(begin + group, layers.size());
    progress("representations", static_cast<std::int64_t>(begin), static_cast<std::int64_t>(layers.size()), "");
    std::vector<std::vector<Tensor>> means(end - begin);  // [layer][view]
    for (const auto& file : views.files) {
      const Trace trace = Trace::open(file);
      for (std::size_t l = begin; l < end; ++l) means[l - begin].push_back(trace.hidden_unit_mean(layers[l]));
    }
    parallel_for(static_cast<std::int64_t>((end - begin) * kStages.size()), plan.threads, [&](std::int64_t task) {
      const std::size_t at = static_cast<std::size_t>(task) / kStages.size();
      const std::size_t stage = static_cast<std::size_t>(task) % kStages.size();
      std::vector<std::span<const float>> vectors;
      for (const Tensor& mean : means[at]) vectors.push_back(mean.view().row(static_cast<std::int64_t>(stage), 0));
      const ViewGram gram(vectors, static_cast<std::size_t>(views.views));
      const auto value = [&](std::size_t metric) -> MetricProfile& {
        return profiles[metric * kStages.size() + stage];
      };
      const auto now = measure_views(gram, whole, plan);
      for (std::size_t m = 0; m < now.size(); ++m) value(m).value[begin + at] = now[m];
      for (std::size_t d = 0; d < drawn.size(); ++d) {
        const auto part = measure_views(gram, drawn[d], plan);
        for (std::size_t m = 0; m < part.size(); ++m) value(m).draws[d][begin + at] = part[m];
      }
    });
  }
  return profiles;
}

// Means over the samples that have the channel; nothing where none has it.
std::vector<MetricProfile> of_samples(const TraceSet& traces, const std::vector<int>& layers, std::uint64_t seed) {
  std::vector<std::vector<std::vector<double>>> found;  // [sample][metric, stage][layer]
  for (const auto& file : traces.files) {
    const Trace trace = Trace::open(file);
    if (!std::ranges::all_of(layers, [&](int l) { return trace.has(Channel::hidden_scalars, l); })) continue;
    found.emplace_back(kHiddenScalars.size() * kStages.size(), std::vector<double>(layers.size()));
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const Tensor scalars = trace.hidden_scalars(layers[l]);
      for (std::size_t i = 0; i < found.back().size(); ++i)
        found.back()[i][l] = static_cast<double>(
            scalars.view().row(static_cast<std::int64_t>(i % kStages.size()), 0)[i / kStages.size()]);
    }
  }
  if (found.empty()) return {};
  std::vector<MetricProfile> profiles = profiles_of(scalar_metrics(), layers.size());
  std::vector<Chosen> drawn{all_of(found.size())};
  for (int d = 0; d < kDraws; ++d) drawn.push_back(resample(found.size(), seed));
  for (std::size_t i = 0; i < profiles.size(); ++i) {
    for (std::size_t d = 0; d < drawn.size(); ++d) {
      std::vector<double>& sums = d == 0 ? profiles[i].value : profiles[i].draws[d - 1];
      for (const std::size_t s : drawn[d])
        for (std::size_t l = 0; l < layers.size(); ++l) sums[l] += found[s][i][l] / static_cast<double>(found.size());
    }
  }
  return profiles;
}

}  // namespace

const std::vector<std::string>& view_metrics() {
  static const std::vector<std::string> kNames{"infonce", "dime", "lidar"};
  return kNames;
}

const std::vector<std::string>& scalar_metrics() {
  static const std::vector<std::string> kNames{"curvature", "curvature_code", "entropy", "effective_rank"};
  return kNames;
}

std::vector<MetricProfile> measure_representations(const ViewSet& views, const TraceSet& traces, const ViewPlan& plan,
                                                   const Progress& progress) {
  const std::vector<int> layers = prunable_layers(Trace::open(views.files.at(0)).model());
  std::vector<MetricProfile> profiles = of_views(views, layers, plan, progress);
  std::ranges::move(of_samples(traces, layers, plan.seed), std::back_inserter(profiles));
  for (MetricProfile& profile : profiles) profile.interval = intervals_of(profile);
  progress("representations", 1, 1, "");
  return profiles;
}

}  // namespace depthkv
