// SPDX-License-Identifier: Apache-2.0
// Chunks of HDF5 datasets in their stored form. HDF5's own filters are never used: they hold its lock while they work,
// and trust what a chunk says of its size.
#pragma once
#include "traces/codec.h"
#include "traces/h5.h"

namespace depthkv::h5 {

// A dataset of chunks that grows, by resize(), from nothing to `most`. It takes what write_chunk() is given.
Object create_chunked(const Object& parent, const std::string& name, Type type, const Extent& most, const Extent& chunk,
                      const std::vector<Filter>& filters);
void write_chunk(const Object& dataset, const Extent& start, std::span<const std::byte> stored);

// What reading has to know about a chunked dataset.
struct Chunks {
  Extent extent;  // of a chunk
  std::vector<Filter> filters;
};
// Nothing where the dataset isn't chunked.
std::optional<Chunks> chunks_of(const Object& dataset);
// A block of a chunked dataset, whose values take `width` bytes. Zero where no chunk is stored.
void read_chunks(const Object& dataset, const Chunks& chunks, std::size_t width, const Block& block, void* data);

}  // namespace depthkv::h5
