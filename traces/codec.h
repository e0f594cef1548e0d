// SPDX-License-Identifier: Apache-2.0
// Chunks as HDF5's filter pipeline has them on disk: bytes shuffled, then compressed. We code them ourselves, outside
// HDF5's lock and with sizes checked (docs/decisions/008), and HDF5 moves the result untouched.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "depthkv/trace.h"

namespace depthkv {

// One step of a dataset's pipeline, by its number in the HDF Group's register.
struct Filter {
  int id = 0;
  std::vector<unsigned> values;
};

inline constexpr int kZstdFilter = 32015;

// The pipeline of a codec, for values of `width` bytes.
std::vector<Filter> filters_of(Codec codec, std::size_t width);

// Not thread-safe: reuses its memory.
class ChunkEncoder {
 public:
  explicit ChunkEncoder(Codec codec);
  ~ChunkEncoder();
  // Valid until the next call, or as long as `chunk` where nothing is to be done.
  std::span<const std::byte> encode(std::span<const std::byte> chunk, std::size_t width);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One for each thread and codec, so that any thread may encode.
ChunkEncoder& encoder_of_this_thread(Codec codec);

// Fills `chunk` from its stored form. `skipped` has a bit set for each filter that was left out. Throws Error that
// starts with `name` on filters that we don't know and on data that don't give exactly `chunk.size()` bytes.
void decode_chunk(std::span<const Filter> filters, unsigned skipped, std::span<const std::byte> stored,
                  std::span<std::byte> chunk, const std::string& name);

}  // namespace depthkv
