// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/trace.h"
#include "traces/half.h"
#include "traces/layout.h"

namespace depthkv {
namespace {

std::size_t index_of(Channel channel) { return static_cast<std::size_t>(channel); }

template <class T>
void write_list(const h5::Object& parent, const std::string& name, h5::Type type, const std::vector<T>& values,
                const h5::Extent& extent) {
  h5::write(h5::create_dataset(parent, name, type, extent), type, {h5::Extent(extent.size(), 0), extent},
            values.data());
}

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
  const h5::Extent extent{card.layers.size(), 3};
  h5::write(h5::create_dataset(group, "layers", h5::Type::i32, extent), h5::Type::i32, {{0, 0}, extent},
            geometry.data());
  std::vector<std::int64_t> windows;
  for (const LayerShape& layer : card.layers) windows.push_back(layer.window);
  write_list(group, "windows", h5::Type::i64, windows, {windows.size()});
}

void write_sample(const h5::Object& file, const Sample& sample) {
  const h5::Object group = h5::create_group(file, "sample");
  h5::write_text(group, "id", {sample.id}, true);
  h5::write_text(group, "task", {sample.task}, true);
  h5::write_text(group, "metric", {sample.metric}, true);
  h5::write_text(group, "source", {sample.source}, true);
  h5::write_text(group, "license", {sample.license}, true);
  h5::write_text(group, "prompt_text", {sample.prompt_text}, true);
  h5::write_text(group, "answer_text", {sample.answer_text}, true);
  h5::write_text(group, "answer_source", {sample.answer_source}, true);
  h5::write_text(group, "answers", sample.answers, false);
  h5::write_attribute(group, "context_begin", sample.segments.context.begin);
  h5::write_attribute(group, "context_end", sample.segments.context.end);
  h5::write_attribute(group, "prompt_end", sample.segments.prompt_end);
  if (sample.truncated > 0) h5::write_attribute(group, "truncated", sample.truncated);
  write_list(group, "tokens", h5::Type::i32, sample.tokens, {sample.tokens.size()});
  write_list(group, "text_offsets", h5::Type::i32, sample.text_offsets, {sample.text_offsets.size()});
  std::vector<std::int64_t> evidence;
  for (const Span& span : sample.evidence) evidence.insert(evidence.end(), {span.begin, span.end});
  write_list(group, "evidence", h5::Type::i64, evidence, {sample.evidence.size(), 2});
}

void sync(const std::filesystem::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY);
  const bool synced = descriptor >= 0 && fsync(descriptor) == 0;
  if (descriptor >= 0) close(descriptor);
  if (!synced) throw Error(fmt::format("{}: can't be flushed to disk; is the disk full?", path.string()));
}

}  // namespace

std::string_view to_string(Cut cut) { return cut == Cut::context ? "context" : "prompt"; }

std::string_view to_string(Channel channel) {
  constexpr std::array<std::string_view, kChannels.size()> kNames{"keys",
                                                                  "values",
                                                                  "queries",
                                                                  "column_sums",
                                                                  "attention",
                                                                  "query_mean",
                                                                  "query_second_moment",
                                                                  "value_output_norms"};
  return kNames[static_cast<std::size_t>(channel)];
}

std::vector<std::int32_t> recorded_query_rows(const Segments& segments, std::int64_t tokens, bool all) {
  std::vector<std::int32_t> rows;
  for (std::int64_t row = 0; row < tokens; ++row) {
    if (all || row >= segments.context.end - kRecordedWindow) rows.push_back(static_cast<std::int32_t>(row));
  }
  return rows;
}

struct TraceWriter::Impl {
  struct Layer {
    h5::Object group;
    std::array<h5::Object, kChannels.size()> datasets;
    std::array<std::int64_t, kChannels.size()> next{};  // row that has to come next
  };

  std::filesystem::path target;
  std::filesystem::path aside;
  ModelCard model;
  Segments segments;
  std::int64_t capacity;
  RecordOptions options;
  std::vector<std::int32_t> query_rows;  // of `capacity` tokens
  h5::Object file;
  std::vector<Layer> layers;
  std::vector<std::uint16_t> half;  // reused
  std::vector<float> picked;        // reused
  bool published = false;

  Impl(const std::filesystem::path& name, const ModelCard& card, const Segments& bounds, std::int64_t most,
       const RecordOptions& record)
      : target(name),
        model(card),
        segments(bounds),
        capacity(most),
        options(record),
        query_rows(recorded_query_rows(bounds, most, record.all_queries)) {
    aside = target.parent_path() / fmt::format(".{}.partial-{}", target.filename().string(), getpid());
    const auto held = h5::lock();
    std::filesystem::remove(aside);
    file = h5::create_file(aside);
    try {
      create_layout();
    } catch (...) {
      discard();
      throw;
    }
  }

  ~Impl() {
    if (!published) discard();
  }

  void discard() {
    const auto held = h5::lock();
    layers.clear();
    file = {};
    std::error_code ignored;
    std::filesystem::remove(aside, ignored);
  }

  void create_layout() {
    h5::write_attribute(file, "format", std::string(layout::kFormat));
    h5::write_attribute(file, "version", layout::kVersion);
    write_card(file, model);
    h5::create_group(file, "layers");
    for (std::size_t l = 0; l < model.layers.size(); ++l) {
      Layer layer;
      layer.group = h5::create_group(file, layout::layer_group(static_cast<int>(l)));
      for (const Channel channel : kChannels) {
        if (!layout::by_rows(channel)) continue;
        const bool wanted = channel == Channel::attention ? options.attention.size() > l && options.attention[l]
                                                          : options.channels.contains(channel);
        if (wanted) create_stream(layer, l, channel);
      }
      layers.push_back(std::move(layer));
    }
  }

  std::int64_t row_count(Channel channel, std::int64_t tokens) const {
    if (channel != Channel::queries) return tokens;
    return std::lower_bound(query_rows.begin(), query_rows.end(), tokens) - query_rows.begin();
  }

  void create_stream(Layer& layer, std::size_t index, Channel channel) {
    const h5::Extent extent = layout::extent(channel, model.layers[index], row_count(channel, capacity), segments);
    h5::Extent chunk = extent;
    if (channel == Channel::attention) {
      chunk = {1, layout::kTile, layout::kTile};
    } else {
      chunk[0] = layout::kRowsPerChunk;
    }
    layer.datasets[index_of(channel)] =
        h5::create_dataset(layer.group, std::string(to_string(channel)), layout::type_of(channel), extent, chunk,
                           options.codec == Codec::deflate);
  }

  Layer& expect_rows(int layer, Channel channel, std::int64_t first, std::int64_t rows) {
    Layer& it = layers.at(static_cast<std::size_t>(layer));
    std::int64_t& next = it.next[index_of(channel)];
    if (it.datasets[index_of(channel)].id() < 0)
      throw Error(fmt::format("{}: rows of layer {} {} arrived, which isn't recorded", target.string(), layer,
                              to_string(channel)));
    if (first != next || rows < 1 || first + rows > capacity) {
      throw Error(fmt::format("{}: rows {} to {} of layer {} {} arrived, expected row {} next and at most {} rows",
                              target.string(), first, first + rows, layer, to_string(channel), next, capacity));
    }
    next += rows;
    return it;
  }

  void write_rows(Channel channel, int layer, std::int64_t first, std::span<const float> rows) {
    const LayerShape& shape = model.layers.at(static_cast<std::size_t>(layer));
    h5::Extent block = layout::extent(channel, shape, 1, segments);
    const auto width = static_cast<std::int64_t>(block[1] * block[2]);
    const std::int64_t count = static_cast<std::int64_t>(rows.size()) / width;
    const Layer& it = expect_rows(layer, channel, first, count);
    std::int64_t start = first;
    if (channel == Channel::queries) {
      // The rows wanted are copied together; they lie at consecutive places of the dataset.
      const auto begin = std::lower_bound(query_rows.begin(), query_rows.end(), first);
      const auto end = std::lower_bound(begin, query_rows.end(), first + count);
      picked.clear();
      for (auto row = begin; row != end; ++row) {
        const auto from = rows.begin() + (*row - first) * width;
        picked.insert(picked.end(), from, from + width);
      }
      rows = picked;
      start = begin - query_rows.begin();
    }
    block[0] = rows.size() / static_cast<std::size_t>(width);
    const h5::Type type = layout::type_of(channel);
    const void* data = rows.data();
    if (type == h5::Type::f16) {
      half.resize(rows.size());
      to_half(rows, half);
      data = half.data();
    }
    const auto held = h5::lock();
    h5::write(it.datasets[index_of(channel)], type, {{static_cast<hsize_t>(start), 0, 0}, block}, data);
  }

  // One head's rows of one band of tiles, up to the diagonal tile's end; zeros above the diagonal.
  void write_band(const Layer& layer, std::int64_t head, std::int64_t first, std::int64_t count, const float* rows,
                  std::int64_t width) {
    const std::int64_t columns = first + count;
    picked.assign(static_cast<std::size_t>(count * columns), 0.0F);
    for (std::int64_t r = 0; r < count; ++r) std::copy_n(rows + r * width, first + r + 1, picked.begin() + r * columns);
    half.resize(picked.size());
    to_half(picked, half);
    h5::write(layer.datasets[index_of(Channel::attention)], h5::Type::f16,
              {{static_cast<hsize_t>(head), static_cast<hsize_t>(first), 0},
               {1, static_cast<hsize_t>(count), static_cast<hsize_t>(columns)}},
              half.data());
  }

  void write_attention(int layer, std::int64_t first, std::span<const float> rows, std::int64_t width) {
    const std::int64_t heads = model.layers.at(static_cast<std::size_t>(layer)).query_heads;
    const std::int64_t count = static_cast<std::int64_t>(rows.size()) / (heads * width);
    if (width < first + count)
      throw Error(fmt::format("{}: attention rows of layer {} are {} wide, expected at least {}", target.string(),
                              layer, width, first + count));
    const Layer& it = expect_rows(layer, Channel::attention, first, count);
    const auto tile = static_cast<std::int64_t>(layout::kTile);
    const auto held = h5::lock();
    for (std::int64_t head = 0; head < heads; ++head) {
      for (std::int64_t row = first; row < first + count;) {
        const std::int64_t band = std::min(first + count, (row / tile + 1) * tile) - row;
        write_band(it, head, row, band, rows.data() + (head * count + row - first) * width, width);
        row += band;
      }
    }
  }

  void write_whole(Channel channel, int layer, std::span<const float> values) {
    const h5::Extent extent = layout::extent(channel, model.layers.at(static_cast<std::size_t>(layer)), 0, segments);
    const hsize_t expected = std::accumulate(extent.begin(), extent.end(), hsize_t{1}, std::multiplies<>());
    Layer& it = layers.at(static_cast<std::size_t>(layer));
    h5::Object& dataset = it.datasets[index_of(channel)];
    if (layout::by_rows(channel) || values.size() != expected || dataset.id() >= 0)
      throw Error(fmt::format("{}: {} values of layer {} {}, expected {}, once", target.string(), values.size(), layer,
                              to_string(channel), expected));
    const auto held = h5::lock();
    dataset = h5::create_dataset(it.group, std::string(to_string(channel)), layout::type_of(channel), extent);
    h5::write(dataset, layout::type_of(channel), {h5::Extent(extent.size(), 0), extent}, values.data());
  }

  void check_complete(const Sample& sample) const {
    const std::int64_t tokens = sample.size();
    if (tokens > capacity || tokens < segments.prompt_end)
      throw Error(
          fmt::format("{}: {} tokens, expected {} to {}", target.string(), tokens, segments.prompt_end, capacity));
    for (std::size_t l = 0; l < layers.size(); ++l) {
      for (const Channel channel : kChannels) {
        const std::size_t index = index_of(channel);
        if (!layout::by_rows(channel) || layers[l].datasets[index].id() < 0 || layers[l].next[index] == tokens)
          continue;
        throw Error(fmt::format("{}: layer {} {} has {} rows, the sample {} tokens", target.string(), l,
                                to_string(channel), layers[l].next[index], tokens));
      }
    }
  }

  void finish(const Sample& sample) {
    check_complete(sample);
    const auto held = h5::lock();
    write_sample(file, sample);
    query_rows = recorded_query_rows(segments, sample.size(), options.all_queries);
    write_list(file, "query_rows", h5::Type::i32, query_rows, {query_rows.size()});
    for (std::size_t l = 0; l < layers.size(); ++l) {
      for (const Channel channel : kChannels) {
        const h5::Object& stream = layers[l].datasets[index_of(channel)];
        if (layout::by_rows(channel) && stream.id() >= 0)
          h5::resize(stream, layout::extent(channel, model.layers[l], row_count(channel, sample.size()), segments));
      }
    }
    layers.clear();
    h5::flush(file);
    file = {};
    sync(aside);
    std::filesystem::rename(aside, target);
    published = true;
    sync(target.parent_path().empty() ? "." : target.parent_path());
  }
};

TraceWriter::TraceWriter(const std::filesystem::path& file, const ModelCard& model, const Segments& segments,
                         std::int64_t capacity, const RecordOptions& options)
    : impl_(std::make_unique<Impl>(file, model, segments, capacity, options)) {}
TraceWriter::TraceWriter(TraceWriter&&) noexcept = default;
TraceWriter::~TraceWriter() = default;

void TraceWriter::write_rows(Channel channel, int layer, std::int64_t first, std::span<const float> rows) {
  impl_->write_rows(channel, layer, first, rows);
}
void TraceWriter::write_attention(int layer, std::int64_t first, std::span<const float> rows, std::int64_t width) {
  impl_->write_attention(layer, first, rows, width);
}
void TraceWriter::write_whole(Channel channel, int layer, std::span<const float> values) {
  impl_->write_whole(channel, layer, values);
}
void TraceWriter::finish(const Sample& sample) { impl_->finish(sample); }

}  // namespace depthkv
