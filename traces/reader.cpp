// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "depthkv/error.h"
#include "depthkv/trace.h"
#include "kernels/half.h"
#include "traces/checksum.h"
#include "traces/describe.h"
#include "traces/layout.h"

namespace depthkv {
namespace {

std::size_t index_of(Cut cut) { return static_cast<std::size_t>(cut); }

}  // namespace

struct Trace::Impl {
  std::filesystem::path path;
  h5::Object file;
  h5::Object layers;
  ModelCard model;
  Sample sample;
  std::vector<std::int32_t> query_rows;
  bool engine_softmax = true;            // as in files that don't say
  std::vector<std::vector<bool>> holds;  // [layer][channel]

  explicit Impl(const std::filesystem::path& name) : path(name) {
    const auto held = h5::lock();
    try {
      read();
    } catch (...) {
      close();
      throw;
    }
  }

  // Under the lock: handles are closed under it, too.
  void close() noexcept {
    layers = {};
    file = {};
  }

  void read() {
    file = h5::open_file(path);
    const std::string format = h5::text_attribute(file, "format");
    if (format != layout::kFormat)
      throw Error(fmt::format("{}: format is \"{}\", expected \"{}\"", path.string(), format, layout::kFormat));
    const std::int64_t version = h5::integer_attribute(file, "version");
    if (version != layout::kVersion) {
      throw Error(fmt::format("{}: format version {}, this build reads {}; use a matching depthkv, or record again",
                              path.string(), version, layout::kVersion));
    }
    if (h5::has_attribute(file, layout::kSoftmax)) {
      const std::string softmax = h5::text_attribute(file, layout::kSoftmax);
      engine_softmax = softmax == layout::kEngine;
      if (!engine_softmax && softmax != layout::kRecomputed)
        throw Error(fmt::format("{}: softmax is \"{}\", expected \"{}\" or \"{}\"", path.string(), softmax,
                                layout::kEngine, layout::kRecomputed));
    }
    model = read_card(file);
    sample = read_sample(file);
    query_rows = read_query_rows(file);
    check_tokens();
    check_query_rows();
    check_layers();
  }

  void check_tokens() const {
    const auto [low, high] = std::ranges::minmax(sample.tokens);
    if (low < 0 || high >= model.vocabulary)
      throw Error(fmt::format("{}: sample/tokens are {} to {}, expected 0 to {}; the file is damaged", path.string(), low,
                              high, model.vocabulary - 1));
    const std::vector<std::int32_t>& offsets = sample.text_offsets;
    if (!std::ranges::is_sorted(offsets) ||
        (!offsets.empty() &&
         (offsets.front() < 0 || static_cast<std::size_t>(offsets.back()) > sample.prompt_text.size())))
      throw Error(
          fmt::format("{}: sample/text_offsets aren't rising positions inside prompt_text; the file is damaged",
                      path.string()));
  }

  void check_query_rows() const {
    const auto are = [&](bool all) {
      return std::ranges::equal(query_rows, recorded_query_rows(sample.segments, sample.size(), all));
    };
    if (!are(false) && !are(true))
      throw Error(
          fmt::format("{}: query_rows has {} rows, expected all {} of the sample or those from {} on; the file is "
                      "damaged",
                      path.string(), query_rows.size(), sample.size(),
                      std::max<std::int64_t>(0, sample.segments.context.end - kRecordedWindow)));
  }

  std::int64_t row_count(Channel channel) const {
    return channel == Channel::queries ? static_cast<std::int64_t>(query_rows.size()) : sample.size();
  }

  void check_layers() {
    layers = h5::open_group(file, "layers");
    for (std::size_t l = 0; l < model.layers.size(); ++l) {
      const h5::Object group = h5::open_group(layers, std::to_string(l));
      holds.emplace_back();
      for (const Channel channel : kChannels) {
        const bool there = h5::has(group, std::string(to_string(channel)));
        holds.back().push_back(there);
        if (!there) continue;
        const h5::Object dataset = h5::open_dataset(group, std::string(to_string(channel)));
        const h5::Extent expected =
            layout::extent(channel, model, static_cast<int>(l), row_count(channel), sample.segments);
        h5::expect_extent(dataset, h5::check_dataset(dataset, layout::type_of(channel), expected.size()), expected);
      }
    }
  }

  h5::Object dataset(int layer, Channel channel) const {
    return h5::open_dataset(h5::open_group(layers, std::to_string(layer)), std::string(to_string(channel)));
  }

  std::vector<float> read_half(const h5::Object& from, const h5::Block& block) const {
    std::size_t count = 1;
    for (const hsize_t n : block.count) count *= n;
    std::vector<std::uint16_t> half(count);
    std::vector<float> values(count);
    const auto held = h5::lock();
    h5::read(from, h5::Type::f16, block, half.data());
    from_half(half, values);
    return values;
  }

  // One part (a cut, say) of a statistic stored [part, head, columns] or [part, head, rows, columns]; columns may be
  // fewer than stored.
  Tensor read_statistic(int layer, Channel channel, std::size_t part, std::int64_t rows, std::int64_t columns) const {
    const auto held = h5::lock();
    const LayerShape& shape = model.layers.at(static_cast<std::size_t>(layer));
    h5::Block block;
    block.count = layout::extent(channel, model, layer, 0, sample.segments);
    block.start.assign(block.count.size(), 0);
    block.start[0] = part;
    block.count[0] = 1;
    block.count.back() = static_cast<hsize_t>(columns);
    Tensor tensor(shape.query_heads, rows, columns);
    h5::read(dataset(layer, channel), layout::type_of(channel), block, tensor.values().data());
    return tensor;
  }

  // A statistic of all the prompt, as it is stored.
  std::vector<float> read_whole(int layer, Channel channel) const {
    const auto held = h5::lock();
    const h5::Extent extent = layout::extent(channel, model, layer, 0, sample.segments);
    std::vector<float> values(extent[0] * extent[1]);
    h5::read(dataset(layer, channel), h5::Type::f32, {{0, 0}, extent}, values.data());
    return values;
  }

  Tensor read_by_stage(int layer, Channel channel, std::int64_t columns) const {
    Tensor tensor(static_cast<std::int64_t>(kStages.size()), 1, columns);
    std::ranges::copy(read_whole(layer, channel), tensor.values().begin());
    return tensor;
  }

  // Stored [row, head, d], wanted [head, row, d].
  Tensor read_by_head(int layer, Channel channel, int heads) const {
    const auto held = h5::lock();
    const LayerShape& shape = model.layers.at(static_cast<std::size_t>(layer));
    const std::int64_t rows = row_count(channel);
    const h5::Extent extent = layout::extent(channel, model, layer, rows, sample.segments);
    const std::vector<float> stored = read_half(dataset(layer, channel), {{0, 0, 0}, extent});
    Tensor tensor = Tensor::unwritten(heads, rows, shape.head_dim);
    auto from = stored.begin();
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t h = 0; h < heads; ++h, from += shape.head_dim)
        std::copy_n(from, shape.head_dim, tensor.row(h, r).begin());
    }
    return tensor;
  }
};

Trace::Trace(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Trace::Trace(Trace&&) noexcept = default;
Trace& Trace::operator=(Trace&& other) noexcept {
  const auto held = h5::lock();
  impl_ = std::move(other.impl_);
  return *this;
}
Trace::~Trace() {
  const auto held = h5::lock();
  impl_.reset();
}

std::string Trace::content_hash() const { return file_checksum(path()); }

Trace Trace::open(const std::filesystem::path& file) { return Trace(std::make_unique<Impl>(file)); }

const std::filesystem::path& Trace::path() const { return impl_->path; }
const ModelCard& Trace::model() const { return impl_->model; }
const Sample& Trace::sample() const { return impl_->sample; }
std::span<const std::int32_t> Trace::query_rows() const { return impl_->query_rows; }
bool Trace::engine_softmax() const { return impl_->engine_softmax; }
bool Trace::has(Channel channel, int layer) const {
  if (channel == Channel::output_projection) return false;  // of the set: TraceWeights
  return impl_->holds.at(static_cast<std::size_t>(layer))[static_cast<std::size_t>(channel)];
}

ChannelStorage Trace::storage(Channel channel, int layer) const {
  const auto held = h5::lock();
  const h5::Object dataset = impl_->dataset(layer, channel);
  std::int64_t bytes = layout::type_of(channel) == h5::Type::f16 ? sizeof(std::uint16_t) : sizeof(float);
  for (const hsize_t n : h5::extent_of(dataset)) bytes *= static_cast<std::int64_t>(n);
  return {bytes, static_cast<std::int64_t>(h5::stored_bytes(dataset)), h5::codec_of(dataset)};
}

Tensor Trace::keys(int layer) const {
  return impl_->read_by_head(layer, Channel::keys, impl_->model.layers.at(static_cast<std::size_t>(layer)).kv_heads);
}
Tensor Trace::values(int layer) const {
  return impl_->read_by_head(layer, Channel::values, impl_->model.layers.at(static_cast<std::size_t>(layer)).kv_heads);
}
Tensor Trace::queries(int layer) const {
  return impl_->read_by_head(layer, Channel::queries,
                             impl_->model.layers.at(static_cast<std::size_t>(layer)).query_heads);
}

Tensor Trace::column_sums(int layer, Cut cut) const {
  return impl_->read_statistic(layer, Channel::column_sums, index_of(cut), 1, impl_->sample.segments.at(cut));
}
Tensor Trace::query_mean(int layer, Cut cut) const {
  return impl_->read_statistic(layer, Channel::query_mean, index_of(cut), 1,
                               impl_->model.layers.at(static_cast<std::size_t>(layer)).head_dim);
}
Tensor Trace::query_second_moment(int layer, Cut cut) const {
  const std::int64_t d = impl_->model.layers.at(static_cast<std::size_t>(layer)).head_dim;
  return impl_->read_statistic(layer, Channel::query_second_moment, index_of(cut), d, d);
}
Tensor Trace::repeat_max(int layer, Repeat repeat, Cut cut) const {
  return impl_->read_statistic(layer, Channel::repeat_max, static_cast<std::size_t>(repeat), 1,
                               impl_->sample.segments.at(cut));
}

Tensor Trace::value_output_norms(int layer, Norm norm) const {
  const auto held = h5::lock();
  const LayerShape& shape = impl_->model.layers.at(static_cast<std::size_t>(layer));
  const std::int64_t tokens = impl_->sample.size();
  h5::Extent extent = layout::extent(Channel::value_output_norms, impl_->model, layer, tokens, impl_->sample.segments);
  extent[2] = 1;
  std::vector<float> stored(static_cast<std::size_t>(tokens * shape.query_heads));
  h5::read(impl_->dataset(layer, Channel::value_output_norms), h5::Type::f32,
           {{0, 0, static_cast<hsize_t>(norm)}, extent}, stored.data());
  Tensor norms(shape.query_heads, 1, tokens);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t h = 0; h < shape.query_heads; ++h)
      norms.row(h, 0)[static_cast<std::size_t>(t)] = stored[static_cast<std::size_t>(t * shape.query_heads + h)];
  }
  return norms;
}

Tensor Trace::hidden_mean(int layer) const {
  return impl_->read_by_stage(layer, Channel::hidden_mean, impl_->model.embedding);
}
Tensor Trace::hidden_unit_mean(int layer) const {
  return impl_->read_by_stage(layer, Channel::hidden_unit_mean, impl_->model.embedding);
}
Tensor Trace::hidden_scalars(int layer) const {
  return impl_->read_by_stage(layer, Channel::hidden_scalars, kHiddenScalars.size());
}

Tensor Trace::attention_cosines(int layer) const {
  const std::vector<float> stored = impl_->read_whole(layer, Channel::attention_cosines);  // [token, 2]
  Tensor cosines(2, 1, static_cast<std::int64_t>(stored.size() / 2));
  for (std::size_t i = 0; i < stored.size(); ++i) cosines.row(static_cast<std::int64_t>(i % 2), 0)[i / 2] = stored[i];
  return cosines;
}

Tensor Trace::attention(int layer, Span rows) const {
  const auto held = h5::lock();
  const std::int64_t heads = impl_->model.layers.at(static_cast<std::size_t>(layer)).query_heads;
  const std::int64_t tokens = impl_->sample.size();
  if (rows.begin < 0 || rows.begin > rows.end || rows.end > tokens)
    throw Error(fmt::format("{}: attention rows {} to {}, the sample has {}", impl_->path.string(), rows.begin,
                            rows.end, tokens));
  Tensor tensor(heads, rows.end - rows.begin, tokens);
  const h5::Object dataset = impl_->dataset(layer, Channel::attention);
  // Band by band, so that tiles above the diagonal, which aren't there, aren't looked for.
  for (std::int64_t first = rows.begin, end = 0; first < rows.end; first = end) {
    const auto tile = static_cast<std::int64_t>(layout::kTile);
    end = std::min(rows.end, (first / tile + 1) * tile);
    const std::vector<float> values = impl_->read_half(
        dataset, {{0, static_cast<hsize_t>(first), 0},
                  {static_cast<hsize_t>(heads), static_cast<hsize_t>(end - first), static_cast<hsize_t>(end)}});
    auto from = values.begin();
    for (std::int64_t head = 0; head < heads; ++head) {
      for (std::int64_t row = first; row < end; ++row, from += end)
        std::copy_n(from, end, tensor.row(head, row - rows.begin).begin());
    }
  }
  return tensor;
}

}  // namespace depthkv
