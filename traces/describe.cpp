// SPDX-License-Identifier: Apache-2.0
#include "traces/describe.h"

#include <algorithm>

#include "traces/checksum.h"
#include "traces/layout.h"

namespace depthkv {
namespace {

void write_checksum(const h5::Object& dataset, std::span<const std::byte> bytes) {
  Checksum checksum;
  checksum.add(bytes);
  h5::write_attribute(dataset, layout::kChecksum, checksum.text());
}

template <class T>
void write_list(const h5::Object& parent, const std::string& name, h5::Type type, const std::vector<T>& values,
                const h5::Extent& extent) {
  const h5::Object dataset = h5::create_dataset(parent, name, type, extent);
  h5::write(dataset, type, {h5::Extent(extent.size(), 0), extent}, values.data());
  write_checksum(dataset, std::as_bytes(std::span(values)));
}

void write_texts(const h5::Object& parent, const std::string& name, const std::vector<std::string>& texts,
                 bool scalar) {
  const h5::WrittenText text = h5::write_text(parent, name, texts, scalar);
  write_checksum(text.dataset, std::as_bytes(std::span(text.bytes)));
}

void write_rotations(const h5::Object& group, const std::vector<LayerRotation>& rotations) {
  std::vector<std::int64_t> dimensions;
  std::vector<double> magnitudes;
  for (const LayerRotation& layer : rotations) {
    dimensions.push_back(2 * static_cast<std::int64_t>(layer.frequencies.size()));
    magnitudes.push_back(layer.magnitude);
  }
  const auto pairs = static_cast<std::size_t>(std::ranges::max(dimensions) / 2);
  std::vector<double> frequencies;
  for (const LayerRotation& layer : rotations) {
    frequencies.insert(frequencies.end(), layer.frequencies.begin(), layer.frequencies.end());
    frequencies.insert(frequencies.end(), pairs - layer.frequencies.size(), 0.0);
  }
  write_list(group, "rotary_dimensions", h5::Type::i64, dimensions, {rotations.size()});
  write_list(group, "rotary_magnitudes", h5::Type::f64, magnitudes, {rotations.size()});
  write_list(group, "rotary_frequencies", h5::Type::f64, frequencies, {rotations.size(), pairs});
}

}  // namespace

void write_card(const h5::Object& file, const ModelCard& card) {
  const h5::Object group = h5::create_group(file, "model");
  h5::write_attribute(group, "name", card.name);
  h5::write_attribute(group, "architecture", card.architecture);
  h5::write_attribute(group, "fingerprint", card.fingerprint);
  h5::write_attribute(group, "engine", card.engine);
  h5::write_attribute(group, "device", card.device);
  h5::write_attribute(group, "context_length", card.context_length);
  h5::write_attribute(group, "vocabulary", card.vocabulary);
  h5::write_attribute(group, "embedding", card.embedding);
  h5::write_attribute(group, "rotary_layout", card.rotary_layout);
  h5::write_attribute(group, "rotary_base", card.rotary_base);
  h5::write_attribute(group, "attention_scale", card.attention_scale);
  h5::write_attribute(group, "logit_softcap", card.logit_softcap);
  std::vector<std::int32_t> geometry;
  for (const LayerShape& layer : card.layers)
    geometry.insert(geometry.end(), {layer.query_heads, layer.kv_heads, layer.head_dim});
  write_list(group, "layers", h5::Type::i32, geometry, {card.layers.size(), 3});
  std::vector<std::int64_t> windows;
  for (const LayerShape& layer : card.layers) windows.push_back(layer.window);
  write_list(group, "windows", h5::Type::i64, windows, {windows.size()});
  if (!card.rotations.empty()) write_rotations(group, card.rotations);
}

void write_sample(const h5::Object& file, const Sample& sample) {
  const h5::Object group = h5::create_group(file, "sample");
  write_texts(group, "id", {sample.id}, true);
  write_texts(group, "task", {sample.task}, true);
  write_texts(group, "metric", {sample.metric}, true);
  write_texts(group, "source", {sample.source}, true);
  write_texts(group, "license", {sample.license}, true);
  write_texts(group, "prompt_text", {sample.prompt_text}, true);
  write_texts(group, "answer_text", {sample.answer_text}, true);
  write_texts(group, "answer_source", {sample.answer_source}, true);
  write_texts(group, "answers", sample.answers, false);
  h5::write_attribute(group, "context_begin", sample.segments.context.begin);
  h5::write_attribute(group, "context_end", sample.segments.context.end);
  h5::write_attribute(group, "prompt_end", sample.segments.prompt_end);
  if (sample.truncated > 0) h5::write_attribute(group, "truncated", sample.truncated);
  if (sample.answer_limit > 0) h5::write_attribute(group, "answer_limit", sample.answer_limit);
  write_list(group, "tokens", h5::Type::i32, sample.tokens, {sample.tokens.size()});
  write_list(group, "text_offsets", h5::Type::i32, sample.text_offsets, {sample.text_offsets.size()});
  std::vector<std::int64_t> evidence;
  for (const Span& span : sample.evidence) evidence.insert(evidence.end(), {span.begin, span.end});
  write_list(group, "evidence", h5::Type::i64, evidence, {sample.evidence.size(), 2});
}

void write_query_rows(const h5::Object& file, const std::vector<std::int32_t>& rows) {
  write_list(file, "query_rows", h5::Type::i32, rows, {rows.size()});
}

}  // namespace depthkv
