// SPDX-License-Identifier: Apache-2.0
#include "traces/streams.h"

#include <algorithm>
#include <cstring>

#include "kernels/half.h"
#include "kernels/parallel.h"

namespace depthkv {
namespace {

h5::Extent with_first(h5::Extent extent, hsize_t first) {
  extent[0] = first;
  return extent;
}

std::span<std::uint16_t> halves(std::byte* memory, std::size_t count) {
  return {reinterpret_cast<std::uint16_t*>(memory), count};
}

}  // namespace

ChunkedDataset::ChunkedDataset(ChunkOutput& output, const h5::Object& group, Channel channel, const h5::Extent& most,
                               const h5::Extent& chunk)
    : output_(output), width_(h5::width_of(layout::type_of(channel))) {
  const auto held = h5::lock();
  dataset_ = h5::create_chunked(group, std::string(to_string(channel)), layout::type_of(channel), most, chunk,
                                filters_of(output.codec, width_));
}

void ChunkedDataset::grow(const h5::Extent& extent) {
  const auto held = h5::lock();
  h5::resize(dataset_, extent);
}

void ChunkedDataset::put(const h5::Extent& start, std::span<const std::byte> values) {
  put_encoded(start, encoder_of_this_thread(output_.codec).encode(values, width_));
}

void ChunkedDataset::put_encoded(const h5::Extent& start, std::span<const std::byte> stored) {
  const auto held = h5::lock();
  h5::write_chunk(dataset_, start, stored);
}

void ChunkedDataset::close() {
  const auto held = h5::lock();
  h5::write_attribute(dataset_, layout::kChecksum, checksum_.text());
  dataset_ = {};
}

RowStream::RowStream(ChunkOutput& output, const h5::Object& group, Channel channel, const h5::Extent& most,
                     hsize_t chunk_rows)
    : output_(output),
      dataset_(output, group, channel, most, with_first(most, std::min(chunk_rows, most[0]))),
      most_(most),
      type_(layout::type_of(channel)),
      row_values_(1),
      chunk_rows_(std::min(chunk_rows, most[0])) {
  for (std::size_t i = 1; i < most.size(); ++i) row_values_ *= most[i];
  row_bytes_ = row_values_ * h5::width_of(type_);
}

void RowStream::store(std::span<const float> values, std::byte* to) const {
  if (type_ == h5::Type::f16) {
    to_half(values, halves(to, values.size()));
  } else {
    std::memcpy(to, values.data(), values.size_bytes());
  }
}

void RowStream::append(std::span<const float> values) {
  while (!values.empty()) {
    if (filled_ == 0) chunk_ = output_.io.take(chunk_rows_ * row_bytes_);
    const std::size_t rows = std::min(values.size() / row_values_, chunk_rows_ - filled_);
    store(values.first(rows * row_values_), chunk_.memory.get() + filled_ * row_bytes_);
    values = values.subspan(rows * row_values_);
    filled_ += rows;
    if (filled_ == chunk_rows_) flush();
  }
}

void RowStream::flush() {
  if (filled_ == 0) return;
  const std::size_t bytes = filled_ * row_bytes_;
  std::fill(chunk_.memory.get() + bytes, chunk_.memory.get() + chunk_.size, std::byte{0});
  output_.io.submit(std::move(chunk_),
                    [this, start = rows_, end = rows_ + filled_, bytes](std::span<std::byte> values) {
                      dataset_.checksum().add(values.first(bytes));
                      dataset_.grow(with_first(most_, end));
                      dataset_.put(with_first(h5::Extent(most_.size(), 0), start), values);
                    });
  rows_ += filled_;
  filled_ = 0;
}

AttentionStream::AttentionStream(ChunkOutput& output, const h5::Object& group, const h5::Extent& most)
    : output_(output),
      dataset_(output, group, Channel::attention, most,
               {1, std::min(layout::kTile, most[1]), std::min(layout::kTile, most[1])}),
      heads_(most[0]),
      tile_(std::min(layout::kTile, most[1])),
      tile_bytes_(tile_ * tile_ * sizeof(std::uint16_t)) {}

std::byte* AttentionStream::tile(std::size_t head, std::size_t column) const {
  return tiles_.memory.get() + (head * (band_ + 1) + column) * tile_bytes_;
}

// Tiles left of the diagonal are filled completely; the one on it stays zero above.
void AttentionStream::start_band() {
  tiles_ = output_.io.take(heads_ * (band_ + 1) * tile_bytes_);
  for (std::size_t head = 0; head < heads_; ++head) std::memset(tile(head, band_), 0, tile_bytes_);
}

void AttentionStream::store(std::size_t head, std::size_t row, const float* values) {
  const std::size_t columns = row + 1;
  for (std::size_t column = 0; column <= band_; ++column) {
    const std::size_t begin = column * tile_;
    const std::size_t count = std::min(tile_, columns - begin);
    std::byte* to = tile(head, column) + (row - band_ * tile_) * tile_ * sizeof(std::uint16_t);
    to_half({values + begin, count}, halves(to, count));
  }
}

void AttentionStream::append(std::int64_t first, std::span<const View> rows) {
  const std::int64_t count = rows.front().rows;
  for (std::int64_t done = 0; done < count;) {
    if (filled_ == 0) start_band();
    const std::int64_t taken = std::min(count - done, static_cast<std::int64_t>(tile_ - filled_));
    std::vector<View> heads;
    for (const View& group : rows)
      for (std::int64_t h = 0; h < group.heads; ++h) heads.push_back(group.head_range(h, 1));
    parallel_for(static_cast<std::int64_t>(heads_), output_.threads, [&](std::int64_t head) {
      for (std::int64_t r = done; r < done + taken; ++r)
        store(static_cast<std::size_t>(head), static_cast<std::size_t>(first + r),
              heads[static_cast<std::size_t>(head)].row(0, r).data());
    });
    done += taken;
    filled_ += static_cast<std::size_t>(taken);
    if (filled_ == tile_) flush();
  }
}

void AttentionStream::flush() {
  if (filled_ == 0) return;
  const std::size_t row_bytes = tile_ * sizeof(std::uint16_t);
  for (std::size_t i = 0; i < heads_ * (band_ + 1); ++i) {
    std::byte* tile = tiles_.memory.get() + i * tile_bytes_;
    std::fill(tile + filled_ * row_bytes, tile + tile_bytes_, std::byte{0});
  }
  std::vector<std::vector<std::byte>> encoded = encode_band();  // before the tiles are handed over
  output_.io.submit(std::move(tiles_), [this, band = band_, rows = filled_, stored = std::move(encoded)](
                                           std::span<std::byte> tiles) { put_band(band, rows, tiles, stored); });
  ++band_;
  filled_ = 0;
}

std::vector<std::vector<std::byte>> AttentionStream::encode_band() const {
  std::vector<std::vector<std::byte>> encoded(heads_ * (band_ + 1));
  parallel_for(static_cast<std::int64_t>(encoded.size()), output_.threads, [&](std::int64_t i) {
    const auto index = static_cast<std::size_t>(i);
    const std::span<const std::byte> values(tiles_.memory.get() + index * tile_bytes_, tile_bytes_);
    const auto stored = encoder_of_this_thread(output_.codec).encode(values, sizeof(std::uint16_t));
    encoded[index].assign(stored.begin(), stored.end());
  });
  return encoded;
}

void AttentionStream::put_band(std::size_t band, std::size_t rows, std::span<const std::byte> tiles,
                               std::span<const std::vector<std::byte>> encoded) {
  const std::size_t row_bytes = tile_ * sizeof(std::uint16_t);
  dataset_.grow({heads_, band * tile_ + rows, band * tile_ + rows});
  for (std::size_t head = 0; head < heads_; ++head) {
    for (std::size_t column = 0; column <= band; ++column, tiles = tiles.subspan(tile_bytes_)) {
      const std::span<const std::byte> values = tiles.first(tile_bytes_);
      const std::size_t columns = column < band ? tile_ : rows;
      for (std::size_t r = 0; columns < tile_ && r < rows; ++r)
        dataset_.checksum().add(values.subspan(r * row_bytes, columns * sizeof(std::uint16_t)));
      if (columns == tile_) dataset_.checksum().add(values.first(rows * row_bytes));
      dataset_.put_encoded({head, band * tile_, column * tile_}, encoded[head * (band + 1) + column]);
    }
  }
}

}  // namespace depthkv
