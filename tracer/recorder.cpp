// SPDX-License-Identifier: Apache-2.0
#include "tracer/recorder.h"

#include <algorithm>

namespace depthkv {
namespace {

constexpr Cut kCuts[] = {Cut::context, Cut::prompt};

}  // namespace

Recorder::Recorder(TraceWriter& writer, const ModelCard& model, const Segments& segments, std::vector<bool> attention)
    : writer_(writer),
      model_(model),
      segments_(segments),
      attention_(std::move(attention)),
      sums_(model.layers.size()) {
  for (std::size_t l = 0; l < sums_.size(); ++l) {
    for (const Cut cut : kCuts) {
      sums_[l][static_cast<std::size_t>(cut)].resize(
          static_cast<std::size_t>(model.layers[l].query_heads * segments.at(cut)));
    }
  }
}

void Recorder::take(const LayerBlock& block) {
  switch (block.channel) {
    case Channel::attention:
      add_column_sums(block);
      if (attention_[static_cast<std::size_t>(block.layer)])
        writer_.write_attention(block.layer, block.first, block.data, block.width);
      break;
    default:
      writer_.write_rows(block.channel, block.layer, block.first, block.data);
  }
}

// Rows below a cut see columns below it only.
void Recorder::add_column_sums(const LayerBlock& block) {
  const auto layer = static_cast<std::size_t>(block.layer);
  const std::int64_t heads = model_.layers[layer].query_heads;
  for (const Cut cut : kCuts) {
    const std::int64_t columns = segments_.at(cut);
    const std::int64_t rows = std::clamp<std::int64_t>(columns - block.first, 0, block.rows);
    for (std::int64_t head = 0; head < heads; ++head) {
      double* sums = sums_[layer][static_cast<std::size_t>(cut)].data() + head * columns;
      for (std::int64_t r = 0; r < rows; ++r) {
        const float* row = block.data.data() + (head * block.rows + r) * block.width;
        for (std::int64_t j = 0; j <= block.first + r; ++j) sums[j] += static_cast<double>(row[j]);
      }
    }
  }
}

void Recorder::finish() {
  for (std::size_t l = 0; l < sums_.size(); ++l) {
    const std::int64_t heads = model_.layers[l].query_heads;
    narrow_.assign(static_cast<std::size_t>(2 * heads * segments_.prompt_end), 0.0F);
    for (const Cut cut : kCuts) {
      const std::int64_t columns = segments_.at(cut);
      const double* from = sums_[l][static_cast<std::size_t>(cut)].data();
      for (std::int64_t head = 0; head < heads; ++head)
        std::copy_n(from + head * columns, columns,
                    narrow_.begin() + (static_cast<std::int64_t>(cut) * heads + head) * segments_.prompt_end);
    }
    writer_.write_whole(Channel::column_sums, static_cast<int>(l), narrow_);
  }
}

}  // namespace depthkv
