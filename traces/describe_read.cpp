// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>
#include <string_view>
#include <utility>

#include "depthkv/error.h"
#include "traces/describe.h"

namespace depthkv {
namespace {

// Bounds on what a file may claim, so that a damaged one can't make us allocate without end.
constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;
constexpr std::int32_t kMostHeads = 1 << 12;
constexpr std::size_t kMostLayers = 1 << 12;

// Whole numbers of any width, as numpy stores them, into the width that they have to fit.
template <class T>
std::vector<T> read_list(const h5::Object& parent, const std::string& name, std::size_t rank, hsize_t second = 1) {
  const h5::Object dataset = h5::open_dataset(parent, name);
  const h5::Extent extent = h5::check_integers(dataset, rank);
  if (extent[0] > static_cast<hsize_t>(kMostTokens) || (extent[0] > 0 && rank == 2 && extent[1] != second)) {
    throw Error(fmt::format("{}: an unexpected shape; the file is not a trace or is damaged", dataset.name));
  }
  std::vector<std::int64_t> wide(extent[0] * second);
  h5::read(dataset, h5::Type::i64, {h5::Extent(rank, 0), extent}, wide.data());
  if (!std::all_of(wide.begin(), wide.end(), [](std::int64_t x) { return std::in_range<T>(x); }))
    throw Error(fmt::format("{}: holds numbers that don't fit 32 bits; the file is damaged", dataset.name));
  return {wide.begin(), wide.end()};
}

std::vector<double> read_reals(const h5::Object& parent, const std::string& name, const h5::Extent& expected) {
  const h5::Object dataset = h5::open_dataset(parent, name);
  const h5::Extent extent = h5::check_dataset(dataset, h5::Type::f64, expected.size());
  if (extent != expected)
    throw Error(fmt::format("{}: has the shape {}, expected {}; the file is damaged", dataset.name,
                            fmt::join(extent, " x "), fmt::join(expected, " x ")));
  std::vector<double> values;
  values.resize(std::accumulate(extent.begin(), extent.end(), std::size_t{1}, std::multiplies<>()));
  h5::read(dataset, h5::Type::f64, {h5::Extent(extent.size(), 0), extent}, values.data());
  return values;
}

// Per layer, or nothing where the base says it all.
std::vector<LayerRotation> read_rotations(const h5::Object& group, const std::vector<LayerShape>& layers) {
  if (!h5::has(group, "rotary_frequencies")) return {};
  const auto dimensions = read_list<std::int64_t>(group, "rotary_dimensions", 1);
  if (dimensions.size() != layers.size())
    throw Error(fmt::format("{}/rotary_dimensions: {} of them for {} layers; the file is damaged", group.name,
                            dimensions.size(), layers.size()));
  for (std::size_t l = 0; l < layers.size(); ++l)
    if (dimensions[l] < 0 || dimensions[l] > layers[l].head_dim || dimensions[l] % 2 != 0)
      throw Error(
          fmt::format("{}/rotary_dimensions: {} in layer {}, expected an even number up to {}; the file is damaged",
                      group.name, dimensions[l], l, layers[l].head_dim));
  const auto pairs = static_cast<std::size_t>(std::ranges::max(dimensions) / 2);
  const auto magnitudes = read_reals(group, "rotary_magnitudes", {layers.size()});
  const auto frequencies = read_reals(group, "rotary_frequencies", {layers.size(), pairs});
  if (!std::ranges::all_of(magnitudes, [](double x) { return std::isfinite(x) && x > 0; }))
    throw Error(fmt::format("{}/rotary_magnitudes: expected finite numbers above 0; the file is damaged", group.name));
  if (!std::ranges::all_of(frequencies, [](double x) { return std::isfinite(x) && x >= 0; }))
    throw Error(
        fmt::format("{}/rotary_frequencies: expected finite numbers, 0 or more; the file is damaged", group.name));
  std::vector<LayerRotation> rotations;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const auto row = frequencies.begin() + static_cast<std::ptrdiff_t>(l * pairs);
    rotations.push_back({{row, row + dimensions[l] / 2}, magnitudes[l]});
  }
  return rotations;
}

void check_rotary(const ModelCard& card, const std::string& group) {
  constexpr std::array<std::string_view, 4> kLayouts{"interleaved", "half_split", "none", "other"};
  if (std::ranges::find(kLayouts, card.rotary_layout) == kLayouts.end())
    throw Error(fmt::format("{} attribute rotary_layout: \"{}\", expected one of {}; the file is damaged or newer",
                            group, card.rotary_layout, fmt::join(kLayouts, ", ")));
  const bool rotates = card.rotary_layout == "interleaved" || card.rotary_layout == "half_split";
  if (!std::isfinite(card.rotary_base) || (rotates && card.rotations.empty() && card.rotary_base <= 0))
    throw Error(fmt::format("{} attribute rotary_base: {}, expected a number above 0; the file is damaged", group,
                            card.rotary_base));
}

}  // namespace

ModelCard read_card(const h5::Object& file) {
  const h5::Object group = h5::open_group(file, "model");
  ModelCard card;
  card.name = h5::text_attribute(group, "name");
  card.architecture = h5::text_attribute(group, "architecture");
  card.fingerprint = h5::text_attribute(group, "fingerprint");
  card.engine = h5::text_attribute(group, "engine");
  card.device = h5::text_attribute(group, "device");
  card.context_length = h5::integer_attribute(group, "context_length");
  card.vocabulary = h5::integer_attribute(group, "vocabulary");
  card.embedding = h5::integer_attribute(group, "embedding");
  card.rotary_layout = h5::text_attribute(group, "rotary_layout");
  card.rotary_base = h5::real_attribute(group, "rotary_base");
  card.attention_scale = h5::real_attribute(group, "attention_scale");
  card.logit_softcap = h5::real_attribute(group, "logit_softcap");
  const auto geometry = read_list<std::int32_t>(group, "layers", 2, 3);
  for (std::size_t i = 0; i + 2 < geometry.size(); i += 3)
    card.layers.push_back({geometry[i], geometry[i + 1], geometry[i + 2]});
  if (h5::has(group, "windows")) {
    const auto windows = read_list<std::int64_t>(group, "windows", 1);
    if (windows.size() != card.layers.size())
      throw Error(fmt::format("{}/windows: {} of them for {} layers; the file is damaged", group.name, windows.size(),
                              card.layers.size()));
    for (std::size_t l = 0; l < windows.size(); ++l) card.layers[l].window = windows[l];
  }
  const auto sound = [](const LayerShape& layer) {
    return layer.kv_heads > 0 && layer.query_heads >= layer.kv_heads && layer.query_heads <= kMostHeads &&
           layer.query_heads % layer.kv_heads == 0 && layer.head_dim > 0 && layer.head_dim <= kMostHeads &&
           layer.window >= 0;
  };
  if (card.layers.empty() || card.layers.size() > kMostLayers ||
      !std::all_of(card.layers.begin(), card.layers.end(), sound)) {
    throw Error(fmt::format("{}/layers: not the geometry of a model; the file is damaged", group.name));
  }
  card.rotations = read_rotations(group, card.layers);
  check_rotary(card, group.name);
  if (!(std::isfinite(card.attention_scale) && std::isfinite(card.logit_softcap) && card.logit_softcap >= 0)) {
    throw Error(
        fmt::format("{}: attention_scale or logit_softcap isn't a usable number; the file is damaged", group.name));
  }
  return card;
}

Sample read_sample(const h5::Object& file) {
  const h5::Object group = h5::open_group(file, "sample");
  const auto text = [&](const char* name) { return h5::read_texts(group, name, true).front(); };
  Sample sample;
  sample.id = text("id");
  sample.task = text("task");
  sample.metric = text("metric");
  sample.source = text("source");
  sample.license = text("license");
  sample.prompt_text = text("prompt_text");
  sample.answer_text = text("answer_text");
  sample.answer_source = text("answer_source");
  sample.answers = h5::read_texts(group, "answers", false);
  sample.tokens = read_list<std::int32_t>(group, "tokens", 1);
  sample.text_offsets = read_list<std::int32_t>(group, "text_offsets", 1);
  const auto evidence = read_list<std::int64_t>(group, "evidence", 2, 2);
  for (std::size_t i = 0; i + 1 < evidence.size(); i += 2) sample.evidence.push_back({evidence[i], evidence[i + 1]});
  Segments& segments = sample.segments;
  segments.context = {h5::integer_attribute(group, "context_begin"), h5::integer_attribute(group, "context_end")};
  segments.prompt_end = h5::integer_attribute(group, "prompt_end");
  if (h5::has_attribute(group, "truncated")) sample.truncated = h5::integer_attribute(group, "truncated");
  if (sample.truncated < 0)
    throw Error(fmt::format("{} attribute truncated: {}, expected 0 or more; the file is damaged", group.name,
                            sample.truncated));
  if (h5::has_attribute(group, "answer_limit")) sample.answer_limit = h5::integer_attribute(group, "answer_limit");
  const Span context = segments.context;
  if (context.begin < 0 || context.begin > context.end || context.end < 1 || context.end > segments.prompt_end ||
      segments.prompt_end > sample.size()) {
    throw Error(fmt::format("{}: segments 0, {}, {}, {}, {} don't rise; the file is damaged", group.name, context.begin,
                            context.end, segments.prompt_end, sample.size()));
  }
  for (const Span& span : sample.evidence) {
    if (span.begin < 0 || span.begin >= span.end || span.end > context.end) {
      throw Error(
          fmt::format("{}/evidence: span {} to {} isn't inside the context, which ends at {}; the file is damaged",
                      group.name, span.begin, span.end, context.end));
    }
  }
  return sample;
}

std::vector<std::int32_t> read_query_rows(const h5::Object& file) {
  return read_list<std::int32_t>(file, "query_rows", 1);
}

}  // namespace depthkv
