// SPDX-License-Identifier: Apache-2.0
// Datasets in the making: floats come in as the model computes them, whole chunks go out. Rows are converted by the
// caller, which has to copy them anyway, and matrices are compressed there, too, by several threads; everything else
// happens on the I/O thread (docs/decisions/008).
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "traces/checksum.h"
#include "traces/chunk_io.h"
#include "traces/io_thread.h"
#include "traces/layout.h"

namespace depthkv {

// What the datasets of one file share.
struct ChunkOutput {
  ChunkOutput(Codec kind, int most_threads) : codec(kind), threads(most_threads), io(kMostBytesInHand) {}

  static constexpr std::size_t kMostBytesInHand = std::size_t{64} << 20;
  Codec codec;
  int threads;  // 0: one per core
  IoThread io;
};

// A dataset whose chunks arrive in the order in which its checksum reads them.
class ChunkedDataset {
 public:
  ChunkedDataset(ChunkOutput& output, const h5::Object& group, Channel channel, const h5::Extent& most,
                 const h5::Extent& chunk);
  ChunkedDataset(const ChunkedDataset&) = delete;
  ChunkedDataset& operator=(const ChunkedDataset&) = delete;

  // On the I/O thread. The dataset grows to `extent`; `values` is the chunk at `start`, zero outside of it.
  void grow(const h5::Extent& extent);
  void put(const h5::Extent& start, std::span<const std::byte> values);
  // A chunk that has been encoded.
  void put_encoded(const h5::Extent& start, std::span<const std::byte> stored);
  Checksum& checksum() { return checksum_; }

  // When the I/O thread is idle and nothing more will come.
  void close();

 private:
  ChunkOutput& output_;
  h5::Object dataset_;
  std::size_t width_;
  Checksum checksum_;
};

// Rows along the first dimension, gathered until a chunk is full.
class RowStream {
 public:
  RowStream(ChunkOutput& output, const h5::Object& group, Channel channel, const h5::Extent& most, hsize_t chunk_rows);

  // Whole rows, after those that came before.
  void append(std::span<const float> values);
  // Hands on the last rows. Then, when the I/O thread is idle, close().
  void flush();
  void close() { dataset_.close(); }

 private:
  void store(std::span<const float> values, std::byte* to) const;

  ChunkOutput& output_;
  ChunkedDataset dataset_;
  h5::Extent most_;
  h5::Type type_;
  std::size_t row_values_;
  std::size_t row_bytes_;
  std::size_t chunk_rows_;
  std::size_t rows_ = 0;  // handed on
  std::size_t filled_ = 0;
  Buffer chunk_;
};

// Causal matrices [head, row, column] in square tiles, gathered until a band of tiles, all heads, is full.
class AttentionStream {
 public:
  AttentionStream(ChunkOutput& output, const h5::Object& group, const h5::Extent& most);

  // Rows from `first` on, which follow on those that came before: views [heads, count, width] of consecutive heads.
  void append(std::int64_t first, std::span<const View> rows);
  void flush();
  void close() { dataset_.close(); }

 private:
  void start_band();
  std::byte* tile(std::size_t head, std::size_t column) const;
  void store(std::size_t head, std::size_t row, const float* values);
  // Encoded tiles of the band, in order.
  std::vector<std::vector<std::byte>> encode_band() const;
  void put_band(std::size_t band, std::size_t rows, std::span<const std::byte> tiles,
                std::span<const std::vector<std::byte>> encoded);

  ChunkOutput& output_;
  ChunkedDataset dataset_;
  std::size_t heads_;
  std::size_t tile_;
  std::size_t tile_bytes_;
  std::size_t band_ = 0;    // of tiles, being filled
  std::size_t filled_ = 0;  // of its rows
  Buffer tiles_;            // [head][tile of the band]
};

}  // namespace depthkv
