// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/trace.h"
#include "traces/describe.h"
#include "traces/layout.h"
#include "traces/partial.h"
#include "traces/streams.h"

namespace depthkv {
namespace {

std::size_t index_of(Channel channel) { return static_cast<std::size_t>(channel); }

}  // namespace

std::string_view to_string(Cut cut) { return cut == Cut::context ? "context" : "prompt"; }

std::string_view to_string(Channel channel) {
  constexpr std::array<std::string_view, kChannels.size() + 1> kNames{"keys",
                                                                      "values",
                                                                      "queries",
                                                                      "column_sums",
                                                                      "attention",
                                                                      "query_mean",
                                                                      "query_second_moment",
                                                                      "value_output_norms",
                                                                      "hidden_mean",
                                                                      "hidden_unit_mean",
                                                                      "hidden_scalars",
                                                                      "attention_cosines",
                                                                      "repeat_max",
                                                                      "output_projection"};
  return kNames[static_cast<std::size_t>(channel)];
}

std::string_view to_string(Stage stage) {
  constexpr std::array<std::string_view, kStages.size()> kNames{"pre", "att", "res", "mlp"};
  return kNames[static_cast<std::size_t>(stage)];
}

std::string_view to_string(HiddenScalar scalar) {
  constexpr std::array<std::string_view, kHiddenScalars.size()> kNames{"curvature", "curvature_code", "prompt_entropy",
                                                                       "effective_rank"};
  return kNames[static_cast<std::size_t>(scalar)];
}

std::string_view to_string(Repeat repeat) {
  constexpr std::array<std::string_view, kRepeats.size()> kNames{"chunk", "chunk_per_input", "cache"};
  return kNames[static_cast<std::size_t>(repeat)];
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
    std::array<std::unique_ptr<RowStream>, kChannels.size()> rows;  // statistics, too, once they have come
    std::unique_ptr<AttentionStream> attention;
    std::array<std::int64_t, kChannels.size()> next{};  // row that has to come next

    bool has(Channel channel) const {
      return channel == Channel::attention ? attention != nullptr : rows[index_of(channel)] != nullptr;
    }
  };

  std::filesystem::path target;
  ModelCard model;
  Segments segments;
  std::int64_t capacity;
  RecordOptions options;
  std::vector<std::int32_t> query_rows;  // of `capacity` tokens
  PartialFile aside;
  h5::Object file;
  std::vector<Layer> layers;
  ChunkOutput output;
  std::vector<float> picked;  // reused

  Impl(const std::filesystem::path& name, const ModelCard& card, const Segments& bounds, std::int64_t most,
       const RecordOptions& record)
      : target(name),
        model(card),
        segments(bounds),
        capacity(most),
        options(record),
        query_rows(recorded_query_rows(bounds, most, record.all_queries)),
        aside(name, PartialFile::IfBusy::fail),
        output(record.codec, record.threads) {
    const auto held = h5::lock();
    try {
      file = h5::create_file(aside.path());
      create_layout();
    } catch (...) {
      close();
      throw;
    }
  }

  ~Impl() {
    output.io.stop();
    close();
  }

  void close() {
    const auto held = h5::lock();
    layers.clear();
    file = {};
  }

  void create_layout() {
    h5::write_attribute(file, "format", std::string(layout::kFormat));
    h5::write_attribute(file, "version", layout::kVersion);
    h5::write_attribute(file, layout::kSoftmax,
                        std::string(options.engine_softmax ? layout::kEngine : layout::kRecomputed));
    write_card(file, model);
    h5::create_group(file, "layers");
    for (std::size_t l = 0; l < model.layers.size(); ++l) {
      Layer layer;
      layer.group = h5::create_group(file, layout::layer_group(static_cast<int>(l)));
      for (const Channel channel : options.channels) {
        if (!layout::by_rows(channel) || channel == Channel::attention) continue;
        layer.rows[index_of(channel)] =
            std::make_unique<RowStream>(output, layer.group, channel, most_of(l, channel), layout::kRowsPerChunk);
      }
      if (options.attention.size() > l && options.attention[l])
        layer.attention = std::make_unique<AttentionStream>(output, layer.group, most_of(l, Channel::attention));
      layers.push_back(std::move(layer));
    }
  }

  h5::Extent most_of(std::size_t layer, Channel channel) const {
    const std::int64_t rows = channel == Channel::queries ? static_cast<std::int64_t>(query_rows.size()) : capacity;
    return layout::extent(channel, model, static_cast<int>(layer), rows, segments);
  }

  Layer& expect_rows(int layer, Channel channel, std::int64_t first, std::int64_t rows) {
    Layer& it = layers.at(static_cast<std::size_t>(layer));
    std::int64_t& next = it.next[index_of(channel)];
    if (!it.has(channel))
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
    if (!layout::by_rows(channel) || channel == Channel::attention)
      throw Error(fmt::format("{}: {} doesn't come by rows", target.string(), to_string(channel)));
    const h5::Extent row = layout::extent(channel, model, layer, 1, segments);
    const auto width = static_cast<std::int64_t>(row[1] * row[2]);
    const std::int64_t count = static_cast<std::int64_t>(rows.size()) / width;
    const Layer& it = expect_rows(layer, channel, first, count);
    if (channel == Channel::queries) {
      const auto begin = std::lower_bound(query_rows.begin(), query_rows.end(), first);
      const auto end = std::lower_bound(begin, query_rows.end(), first + count);
      picked.clear();
      for (auto wanted = begin; wanted != end; ++wanted) {
        const auto from = rows.begin() + (*wanted - first) * width;
        picked.insert(picked.end(), from, from + width);
      }
      rows = picked;
    }
    it.rows[index_of(channel)]->append(rows);
  }

  void write_attention(int layer, std::int64_t first, std::span<const View> rows) {
    std::int64_t heads = 0;
    for (const View& view : rows) heads += view.heads;
    const std::int64_t count = rows.front().rows;
    const LayerShape& shape = model.layers.at(static_cast<std::size_t>(layer));
    if (heads != shape.query_heads || rows.front().columns < first + count)
      throw Error(
          fmt::format("{}: attention rows of layer {} of {} heads are {} wide, expected {} heads and at least {}",
                      target.string(), layer, heads, rows.front().columns, shape.query_heads, first + count));
    expect_rows(layer, Channel::attention, first, count).attention->append(first, rows);
  }

  void write_whole(Channel channel, int layer, std::span<const float> values) {
    const h5::Extent extent = layout::extent(channel, model, layer, 0, segments);
    const hsize_t expected = std::accumulate(extent.begin(), extent.end(), hsize_t{1}, std::multiplies<>());
    Layer& it = layers.at(static_cast<std::size_t>(layer));
    if (layout::by_rows(channel) || channel == Channel::output_projection || values.size() != expected ||
        it.has(channel))
      throw Error(fmt::format("{}: {} values of layer {} {}, expected {}, once", target.string(), values.size(), layer,
                              to_string(channel), expected));
    it.rows[index_of(channel)] =
        std::make_unique<RowStream>(output, it.group, channel, extent, layout::whole_chunk_rows(channel));
    it.rows[index_of(channel)]->append(values);
  }

  void check_complete(const Sample& sample) const {
    const std::int64_t tokens = sample.size();
    if (tokens > capacity || tokens < segments.prompt_end)
      throw Error(
          fmt::format("{}: {} tokens, expected {} to {}", target.string(), tokens, segments.prompt_end, capacity));
    for (std::size_t l = 0; l < layers.size(); ++l) {
      for (const Channel channel : kChannels) {
        const std::int64_t rows = layers[l].next[index_of(channel)];
        if (!layout::by_rows(channel) || !layers[l].has(channel) || rows == tokens) continue;
        throw Error(fmt::format("{}: layer {} {} has {} rows, the sample {} tokens", target.string(), l,
                                to_string(channel), rows, tokens));
      }
    }
  }

  // `visit` on every dataset of the layers.
  void for_each_stream(const auto& visit) {
    for (Layer& layer : layers) {
      for (const auto& stream : layer.rows) {
        if (stream) visit(*stream);
      }
      if (layer.attention) visit(*layer.attention);
    }
  }

  void finish(const Sample& sample) {
    check_complete(sample);
    for_each_stream([](auto& stream) { stream.flush(); });
    output.io.drain();
    {
      const auto held = h5::lock();
      for_each_stream([](auto& stream) { stream.close(); });
      write_sample(file, sample);
      write_query_rows(file, recorded_query_rows(segments, sample.size(), options.all_queries));
      layers.clear();
      h5::flush(file);
      file = {};
    }
    aside.publish();
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
void TraceWriter::write_attention(int layer, std::int64_t first, std::span<const View> rows) {
  impl_->write_attention(layer, first, rows);
}
void TraceWriter::write_whole(Channel channel, int layer, std::span<const float> values) {
  impl_->write_whole(channel, layer, values);
}
void TraceWriter::finish(const Sample& sample) { impl_->finish(sample); }

}  // namespace depthkv
