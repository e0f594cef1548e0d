// SPDX-License-Identifier: Apache-2.0
// What hidden states say of each layer: metrics of Skean et al. 2025, "Layer by Layer: Uncovering Hidden
// Representations in Language Models", arXiv:2502.02013, which DepthKV (arXiv:2604.24647) allocates by.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/progress.h"
#include "depthkv/stats.h"
#include "depthkv/trace.h"

namespace depthkv {

// How much of a text each kind of typing mistake touches. Words are what blanks part; those of fewer than four code
// points stay as they are.
struct Noise {
  double words = 0.1;       // share of the words, at least one where there is any
  double characters = 0.2;  // share of a touched word's code points, at least one
};

// The text with words split in two, then characters replaced by random letters and digits, then letters replaced by
// their neighbours on a QWERTY keyboard: the three augmentations of Skean et al., which takes them from nlpaug. `text`
// has to be UTF-8; so is what comes back. The same for the same seed.
std::string noised(std::string_view text, const Noise& noise, std::uint64_t seed);

// Documents are pieces of the contexts of a trace set: the first piece of every sample, then the second of every one,
// and so on. Views are noised copies of a document.
struct ViewPlan {
  std::int64_t documents = 32;
  std::int64_t views = 8;     // of each document, even
  std::int64_t tokens = 256;  // of a document before noise; a view is cut to as many
  Noise noise;
  std::uint64_t seed = 1;
  double temperature = 0.1;  // of infonce
  int threads = 0;           // 0: one per core
};

// Views in the order of documents, those of one side by side.
struct ViewSet {
  std::vector<std::filesystem::path> files;
  std::int64_t documents = 0;
  std::int64_t views = 0;  // of each
};

// Runs the model on every view and keeps the means of its unit rows per layer and stage (hidden_unit_mean) in the trace
// set `out`, where finished views are left as they are. Throws InputError if the contexts have fewer than two pieces of
// at least a quarter of plan.tokens, or the model shows no hidden states.
ViewSet record_views(Model& model, const TraceSet& traces, const ViewPlan& plan, const std::filesystem::path& out,
                     const Progress& progress);

// A metric at a stage over the prunable layers.
struct MetricProfile {
  std::string metric;
  Stage stage = Stage::pre;
  std::vector<double> value;       // [layer]
  std::vector<Interval> interval;  // [layer], 95 %
  // [draw][layer]: the metric of half of the documents, drawn without replacement, or of a bootstrap resample of the
  // samples; what intervals are made of.
  std::vector<std::vector<double>> draws;
};

// infonce, dime and lidar of the views at every stage; then curvature, curvature_code, entropy and effective_rank,
// means over the samples of the set, where they have the channel hidden_scalars.
std::vector<MetricProfile> measure_representations(const ViewSet& views, const TraceSet& traces, const ViewPlan& plan,
                                                   const Progress& progress);

// The names, as HiddenScalar orders them, and those that views give.
const std::vector<std::string>& scalar_metrics();
const std::vector<std::string>& view_metrics();

}  // namespace depthkv
