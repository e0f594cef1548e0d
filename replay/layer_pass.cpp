// SPDX-License-Identifier: Apache-2.0
#include "replay/layer_pass.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/version.h"
#include "kernels/parallel.h"
#include "replay/turns.h"
#include "traces/checksum.h"

namespace depthkv {
namespace {

bool are_numbers(const LossCurves& sums) {
  const auto finite = [](double x) { return std::isfinite(x); };
  return finite(sums.energy) && std::ranges::all_of(sums.mass, finite) && std::ranges::all_of(sums.error, finite);
}

// From sums over rows to the losses that allocators and reports use.
HeadCurves to_losses(const LossCurves& sums, double layer_energy) {
  HeadCurves curves;
  curves.mass.resize(sums.mass.size());
  curves.error.resize(sums.error.size());
  for (std::size_t k = 0; k < sums.mass.size(); ++k) {
    curves.mass[k] = static_cast<float>(std::max(0.0, 1.0 - sums.mass[k] / static_cast<double>(sums.rows)));
    curves.error[k] = static_cast<float>(layer_energy > 0 ? sums.error[k] / layer_energy : 0.0);
  }
  return curves;
}

std::string short_hash(const std::string& text) {
  Checksum sum;
  sum.add(std::as_bytes(std::span(text)));
  return sum.text();
}

std::string why_not(const Trace& trace, Cut cut, const Ranker& ranker) {
  if (!ranker.scorer.unavailable.empty()) return ranker.scorer.unavailable;
  if (ranker.structure.positional && (ranker.scorer.whole_cache || !ranker.scorer.needs.positional())) {
    return fmt::format("structure {} scores parts of the cache by themselves, which {} can't: it {}",
                       ranker.structure.name, ranker.scorer.name,
                       ranker.scorer.whole_cache ? "scores the cache as a whole" : "reads attention");
  }
  return missing(trace, ranker.needs(), cut).value_or("");
}

template <class Allocator>
std::string why_not(const Trace& trace, const ReplayPlan& plan, const Allocator& allocator) {
  if (!allocator.unavailable.empty()) return allocator.unavailable;
  Needs wanted = allocator.needs;
  if (allocator.observed_curves) wanted = wanted | needs({Feature::window}, 1);
  if (auto why = missing(trace, wanted, plan.cut)) return *why;
  const bool judged = trace.sample().size() > trace.sample().segments.at(plan.cut);
  return allocator.oracle && !judged ? "needs judged rows; the answer is empty" : "";
}

}  // namespace

void expect_numbers(const Trace& trace, int layer, bool are) {
  if (are) return;
  throw InputError(
      fmt::format("{}: layer {} has attention or values that aren't numbers; `depthkv inspect --check` says whether "
                  "the file is damaged; if it isn't, record it again",
                  trace.path().string(), layer));
}

View observed_window(const LayerData& data, std::int64_t rows) {
  const std::int64_t count = std::min(rows, data.window.rows());
  if (count == 0) return {};
  return data.window.view().row_range(data.window.rows() - count, count).first_columns(data.features.tokens);
}

LoadRequest load_request(const ReplayPlan& plan, const Needs& needs) {
  LoadRequest load;
  load.cut = plan.cut;
  load.needs = needs;
  load.window_rows = std::max(needs.window_rows, plan.observed_rows);
  load.threads = plan.threads;
  return load;
}

// A folder that lives as long as this.
struct SampleCurves::Scratch {
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "depthkv-curves-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr)
      throw Error(fmt::format("{}: no folder for curves can be made there; set TMPDIR, or give --cache", name));
    path = name;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::filesystem::path path;
};

// One walk over the layers for a list of variants and allocators.
class SampleCurves::Pass {
 public:
  Pass(SampleCurves& sample, std::vector<Variant> variants, std::vector<std::size_t> layer_allocators,
       std::vector<std::size_t> head_allocators)
      : sample_(sample),
        plan_(sample.plan_),
        policies_(sample.policies_),
        ops_(ops_for(plan_.device)),
        variants_(std::move(variants)),
        layer_allocators_(std::move(layer_allocators)),
        head_allocators_(std::move(head_allocators)) {
    for (const Variant& variant : variants_) {
      const std::string key = sample_.key_of(variant);
      writers_.push_back(std::make_unique<CurveWriter>(sample_.file_of(key), key));
    }
  }

  // Two layers are in the works at a time, so that one is loaded or written while the other is measured.
  void run() {
    constexpr int kAtOnce = 2;
    const int threads = threads_of(plan_.threads);
    threads_ = std::max(1, threads / kAtOnce);
    LoadRequest load = load_request(plan_, all_needs());
    load.threads = threads_;
    const std::vector<int> layers = prunable_layers(sample_.trace_.model());
    parallel_for(static_cast<std::int64_t>(layers.size()), std::min(threads, kAtOnce), [&](std::int64_t i) {
      try {
        run(load_layer(sample_.trace_, layers[static_cast<std::size_t>(i)], load, ops_), i);
      } catch (...) {
        turns_.fail(i);
        throw;
      }
    });
    for (const auto& writer : writers_) writer->finish();
  }

 private:
  void run(const LayerData& data, std::int64_t turn) {
    std::vector<RankedLayer> ranked(variants_.size());
    rank(data, ranked);
    measure(data, Rows::judged, ranked);
    measure(data, Rows::observed, ranked);
    if (!turns_.wait_for(turn)) return;
    measure_allocators(data);
    parallel_for(count(), threads_, [&](std::int64_t i) {
      const auto v = static_cast<std::size_t>(i);
      writers_[v]->add(ranked[v]);
    });
    turns_.done(turn);
  }

  std::int64_t count() const { return static_cast<std::int64_t>(variants_.size()); }
  const Ranker& ranker(std::size_t variant) const { return policies_.rankers[variants_[variant].ranker]; }

  Needs all_needs() const {
    Needs all;
    for (std::size_t v = 0; v < variants_.size(); ++v) all = all | ranker(v).needs();
    for (const std::size_t a : layer_allocators_) all = all | policies_.layer_allocators[a].needs;
    for (const std::size_t a : head_allocators_) all = all | policies_.head_allocators[a].needs;
    return all;
  }

  void measure_allocators(const LayerData& data) {
    for (const std::size_t a : layer_allocators_)
      sample_.by_layers_[a].push_back(policies_.layer_allocators[a].measure(data.features, ops_));
    for (const std::size_t a : head_allocators_)
      sample_.by_heads_[a].push_back(policies_.head_allocators[a].measure(data.features, ops_));
  }

  void rank(const LayerData& data, std::vector<RankedLayer>& ranked) const {
    parallel_for(count(), threads_, [&](std::int64_t i) {
      const auto v = static_cast<std::size_t>(i);
      LayerFeatures seen = data.features;
      if (variants_[v].keep) seen.keep = plan_.keep[*variants_[v].keep];
      ranked[v].ranked = ranker(v).structure.rank(seen, ranker(v).scorer, ranker(v).protect, ops_);
    });
  }

  // Into how many calls a KV head's rankings go: one call makes once what all of them need, several keep all threads
  // busy.
  std::size_t calls_for_each(std::size_t heads, std::size_t rankings) const {
    constexpr std::size_t kTasksPerThread = 2;
    if (ops_.rankings_together) return 1;
    return std::clamp<std::size_t>(kTasksPerThread * static_cast<std::size_t>(threads_) / heads, 1, rankings);
  }

  // Curves of every (variant, KV head) of a layer.
  void measure(const LayerData& data, Rows rows, std::vector<RankedLayer>& ranked) const {
    const LayerShape shape = data.features.shape;
    const View attention = rows == Rows::judged ? data.judged.view() : observed_window(data, plan_.observed_rows);
    if (attention.rows == 0 || ranked.empty()) return;
    const auto heads = static_cast<std::size_t>(shape.kv_heads);
    // [head][ranked]
    std::vector<LossCurves> sums(ranked.size() * heads, LossCurves(data.features.tokens));
    const std::size_t calls = calls_for_each(heads, ranked.size());
    parallel_for(static_cast<std::int64_t>(calls * heads), threads_, [&](std::int64_t task) {
      const std::size_t call = static_cast<std::size_t>(task) % calls;
      const std::size_t first = call * ranked.size() / calls;
      const std::size_t behind = (call + 1) * ranked.size() / calls;
      const std::size_t head = static_cast<std::size_t>(task) / calls;
      const auto g = static_cast<std::int64_t>(head);
      std::vector<std::span<const std::uint32_t>> rankings;
      for (std::size_t v = first; v < behind; ++v) rankings.push_back(ranked[v].ranked.ranking.head(g));
      ops_.accumulate_losses({attention.head_range(g * shape.group(), shape.group()),
                              data.values.view().row_range(0, attention.columns).head_range(g, 1), rankings},
                             std::span(sums).subspan(head * ranked.size() + first, behind - first));
    });
    for (const LossCurves& each : sums) expect_numbers(sample_.trace_, data.features.layer, are_numbers(each));
    for (std::size_t v = 0; v < ranked.size(); ++v) {
      double energy = 0;
      for (std::size_t g = 0; g < heads; ++g) energy += sums[g * ranked.size() + v].energy;
      for (std::size_t g = 0; g < heads; ++g)
        (rows == Rows::judged ? ranked[v].judged : ranked[v].observed)
            .push_back(to_losses(sums[g * ranked.size() + v], energy));
    }
  }

  SampleCurves& sample_;
  const ReplayPlan& plan_;
  const Policies& policies_;
  const Ops& ops_;
  std::vector<Variant> variants_;
  std::vector<std::size_t> layer_allocators_;
  std::vector<std::size_t> head_allocators_;
  std::vector<std::unique_ptr<CurveWriter>> writers_;
  int threads_ = 1;  // of each layer in the works
  Turns turns_;
};

SampleCurves::SampleCurves(const Trace& trace, const ReplayPlan& plan, const Policies& policies)
    : trace_(trace), plan_(plan), policies_(policies), layers_(prunable_layers(trace.model()).size()) {
  if (layers_ == 0) {
    throw InputError(fmt::format("{}: every layer of {} has a sliding window, so nothing can be pruned",
                                 trace_.path().string(), trace_.model().name));
  }
  for (const Ranker& ranker : policies.rankers) ranker_skipped.push_back(why_not(trace, plan.cut, ranker));
  for (const LayerAllocator& a : policies.layer_allocators) layer_skipped.push_back(why_not(trace, plan, a));
  for (const HeadAllocator& a : policies.head_allocators) head_skipped.push_back(why_not(trace, plan, a));
  by_layers_.resize(policies.layer_allocators.size());
  by_heads_.resize(policies.head_allocators.size());
  open_folder();
}

SampleCurves::~SampleCurves() = default;

void SampleCurves::open_folder() {
  if (plan_.cache.empty()) {
    scratch_ = std::make_unique<Scratch>();
    folder_ = scratch_->path;
    trace_key_ = "scratch";
    return;
  }
  folder_ = plan_.cache;
  std::error_code failure;
  std::filesystem::create_directories(folder_, failure);
  if (failure)
    throw InputError(fmt::format("{}: no folder for curves can be made ({}); give another one with --cache, or none",
                                 folder_.string(), failure.message()));
  trace_key_ = fmt::format("trace {} cut {} observed {} device {} build {}", trace_.content_hash(),
                           to_string(plan_.cut), plan_.observed_rows, to_string(plan_.device), kSourcesHash);
}

std::string SampleCurves::key_of(Variant variant) const {
  const Ranker& ranker = policies_.rankers[variant.ranker];
  std::string key = fmt::format("{}\nscorer {} {}\nstructure {} {}\nprotect {}+{}", trace_key_, ranker.scorer.name,
                                ranker.scorer.params, ranker.structure.name, ranker.structure.params,
                                ranker.protect.first, ranker.protect.last);
  if (!ranker.scorer.source.empty()) key += "\nsource " + ranker.scorer.source;
  if (variant.keep) key += fmt::format("\nkeep {}", plan_.keep[*variant.keep]);
  return key;
}

std::string SampleCurves::key_of(const char* kind, const std::string& name, const std::string& params) const {
  return fmt::format("{}\n{} {} {}", trace_key_, kind, name, params);
}

std::filesystem::path SampleCurves::file_of(const std::string& key) const {
  return folder_ / (short_hash(key) + ".curves");
}

template <class Allocator>
void SampleCurves::find_measured(const std::vector<Allocator>& allocators, const std::vector<std::string>& skipped,
                                 const char* kind, std::vector<Measured>& found,
                                 std::vector<std::size_t>& wanted) const {
  for (std::size_t a = 0; a < allocators.size(); ++a) {
    if (!allocators[a].measure || !skipped[a].empty() || !found[a].empty()) continue;
    const std::string key = key_of(kind, allocators[a].name, allocators[a].params);
    if (auto measured = read_measured(file_of(key), key, layers_)) {
      found[a] = std::move(*measured);
    } else {
      wanted.push_back(a);
    }
  }
}

void SampleCurves::run(const std::vector<bool>& rankers) {
  std::vector<Variant> variants;
  for (std::size_t r = 0; r < rankers.size(); ++r) {
    if (!rankers[r] || !ranker_skipped[r].empty()) continue;
    for (const Variant& variant : variants_of(policies_.rankers[r], r, plan_)) {
      const std::string key = key_of(variant);
      if (!has_curves(file_of(key), key)) variants.push_back(variant);
    }
  }
  std::vector<std::size_t> layer_allocators;
  std::vector<std::size_t> head_allocators;
  find_measured(policies_.layer_allocators, layer_skipped, "layer allocator", by_layers_, layer_allocators);
  find_measured(policies_.head_allocators, head_skipped, "head allocator", by_heads_, head_allocators);
  if (variants.empty() && layer_allocators.empty() && head_allocators.empty()) return;
  Pass(*this, variants, layer_allocators, head_allocators).run();
  const auto save = [&](const char* kind, const auto& allocator, const Measured& measured) {
    const std::string key = key_of(kind, allocator.name, allocator.params);
    CurveWriter writer(file_of(key), key);
    for (const std::vector<double>& numbers : measured) writer.add(numbers);
    writer.finish();
  };
  for (const std::size_t a : layer_allocators) save("layer allocator", policies_.layer_allocators[a], by_layers_[a]);
  for (const std::size_t a : head_allocators) save("head allocator", policies_.head_allocators[a], by_heads_[a]);
}

RankedSample SampleCurves::load(Variant variant) {
  const std::string key = key_of(variant);
  auto layers = read_curves(file_of(key), key, layers_);
  if (!layers) {  // damaged since, or removed by somebody
    std::filesystem::remove(file_of(key));
    Pass(*this, {variant}, {}, {}).run();
    layers = read_curves(file_of(key), key, layers_);
  }
  if (!layers) throw Error(fmt::format("{}: curves vanish as soon as they are written", folder_.string()));
  return {trace_, plan_, policies_, variant, std::move(*layers)};
}

}  // namespace depthkv
