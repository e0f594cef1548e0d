// SPDX-License-Identifier: Apache-2.0
#include "traces/chunk_io.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "depthkv/error.h"

namespace depthkv::h5 {
namespace {

constexpr std::size_t kMostChunkBytes = std::size_t{1} << 28;  // more is a broken file
constexpr std::size_t kMostFilters = 8;

// Steps through all index vectors in [first, last], last dimension fastest. False after the last one.
bool next_index(Extent& index, const Extent& first, const Extent& last) {
  for (std::size_t i = index.size(); i-- > 0;) {
    if (index[i] < last[i]) {
      ++index[i];
      return true;
    }
    index[i] = first[i];
  }
  return false;
}

hsize_t flat(const Extent& position, const Extent& extent) {
  hsize_t at = 0;
  for (std::size_t i = 0; i < extent.size(); ++i) at = at * extent[i] + position[i];
  return at;
}

// Copies what chunk and block have in common, in runs along the last dimension. `origin`: where the chunk starts.
void copy_overlap(const std::byte* chunk, const Extent& origin, const Extent& chunk_extent, const Block& block,
                  std::size_t width, std::byte* to) {
  const std::size_t rank = origin.size();
  Extent first(rank);
  Extent last(rank);
  for (std::size_t i = 0; i < rank; ++i) {
    first[i] = std::max(origin[i], block.start[i]);
    last[i] = std::min(origin[i] + chunk_extent[i], block.start[i] + block.count[i]) - 1;
  }
  const std::size_t run = static_cast<std::size_t>(last.back() - first.back() + 1) * width;
  last.back() = first.back();
  Extent in_chunk(rank);
  Extent in_block(rank);
  Extent at = first;
  do {
    for (std::size_t i = 0; i < rank; ++i) {
      in_chunk[i] = at[i] - origin[i];
      in_block[i] = at[i] - block.start[i];
    }
    std::memcpy(to + flat(in_block, block.count) * width, chunk + flat(in_chunk, chunk_extent) * width, run);
  } while (next_index(at, first, last));
}

// Bytes of the chunk at `origin`, 0 if there is none. HDF5 calls an absent chunk an error; telling it from a damaged
// one takes a walk over all chunks, so callers don't ask for chunks that a sound file hasn't got.
hsize_t stored_size(const Object& dataset, const Extent& origin) {
  hsize_t size = 0;
  if (H5Dget_chunk_storage_size(dataset.id(), origin.data(), &size) >= 0) return size;
  unsigned mask = 0;
  haddr_t address = HADDR_UNDEF;
  if (H5Dget_chunk_info_by_coord(dataset.id(), origin.data(), &mask, &address, &size) < 0 || address != HADDR_UNDEF)
    throw Error(fmt::format("{}: can't be read; the file is damaged", dataset.name));
  return 0;
}

// The stored form of the chunk at `origin`; empty if there is none.
std::span<const std::byte> read_stored(const Object& dataset, const Extent& origin, std::size_t chunk_bytes,
                                       std::vector<std::byte>& memory, unsigned& skipped) {
  const hsize_t size = stored_size(dataset, origin);
  if (size == 0) return {};
  // No compressor makes its input much longer.
  if (size > chunk_bytes + chunk_bytes / 8 + 1024)
    throw Error(
        fmt::format("{}: a chunk of {} bytes stored in {}; the file is damaged", dataset.name, chunk_bytes, size));
  memory.resize(std::max<std::size_t>(memory.size(), size));
  std::uint32_t mask = 0;
  if (H5Dread_chunk(dataset.id(), H5P_DEFAULT, origin.data(), &mask, memory.data()) < 0)
    throw Error(fmt::format("{}: can't be read; the file is damaged or its disk is", dataset.name));
  skipped = mask;
  return std::span(memory).first(size);
}

}  // namespace

Object create_chunked(const Object& parent, const std::string& name, Type type, const Extent& most, const Extent& chunk,
                      const std::vector<Filter>& filters) {
  const Handle create = creation(H5P_DATASET_CREATE);
  H5Pset_chunk(create.id(), static_cast<int>(chunk.size()), chunk.data());
  // Optional: HDF5 makes the dataset without knowing the filter, which only readers need.
  for (const Filter& filter : filters)
    H5Pset_filter(create.id(), filter.id, H5Z_FLAG_OPTIONAL, filter.values.size(), filter.values.data());
  const Extent nothing(most.size(), 0);
  const Handle space(H5Screate_simple(static_cast<int>(most.size()), nothing.data(), most.data()), H5Sclose);
  return create_dataset(parent, name, type, space, create);
}

void write_chunk(const Object& dataset, const Extent& start, std::span<const std::byte> stored) {
  if (H5Dwrite_chunk(dataset.id(), H5P_DEFAULT, 0, start.data(), stored.size(), stored.data()) < 0)
    throw Error(fmt::format("{}: can't be written; is the disk full?", dataset.name));
}

std::optional<Chunks> chunks_of(const Object& dataset) {
  const Handle create(H5Dget_create_plist(dataset.id()), H5Pclose);
  if (create.id() < 0) throw Error(fmt::format("{}: can't be read; the file is damaged", dataset.name));
  if (H5Pget_layout(create.id()) != H5D_CHUNKED) return std::nullopt;
  const auto damaged = [&] {
    return Error(fmt::format("{}: stored in a way that can't be read; the file is damaged", dataset.name));
  };
  Chunks chunks;
  chunks.extent.resize(H5S_MAX_RANK);
  const int rank = H5Pget_chunk(create.id(), H5S_MAX_RANK, chunks.extent.data());
  const int filters = H5Pget_nfilters(create.id());
  if (rank < 1 || filters < 0 || static_cast<std::size_t>(filters) > kMostFilters) throw damaged();
  chunks.extent.resize(static_cast<std::size_t>(rank));
  for (unsigned i = 0; i < static_cast<unsigned>(filters); ++i) {
    Filter filter;
    filter.values.resize(16);
    std::size_t count = filter.values.size();
    unsigned flags = 0;
    filter.id = H5Pget_filter2(create.id(), i, &flags, &count, filter.values.data(), 0, nullptr, nullptr);
    if (filter.id < 0) throw damaged();
    filter.values.resize(std::min(count, filter.values.size()));
    // HDF5 appends the shuffled values' width and more of its own; the first is what counts.
    filter.values.resize(std::min<std::size_t>(1, filter.values.size()));
    chunks.filters.push_back(std::move(filter));
  }
  return chunks;
}

void read_chunks(const Object& dataset, const Chunks& chunks, std::size_t width, const Block& block, void* data) {
  const std::size_t rank = block.start.size();
  std::size_t bytes = width;
  for (const hsize_t n : chunks.extent) {
    if (n == 0 || n > kMostChunkBytes / bytes)
      throw Error(fmt::format("{}: chunks of more than {} bytes; the file is damaged", dataset.name, kMostChunkBytes));
    bytes *= n;
  }
  auto* to = static_cast<std::byte*>(data);
  std::size_t total = width;
  Extent first(rank);
  Extent last(rank);
  for (std::size_t i = 0; i < rank; ++i) {
    total *= block.count[i];
    first[i] = block.start[i] / chunks.extent[i];
    last[i] = (block.start[i] + block.count[i] - 1) / chunks.extent[i];
  }
  std::memset(to, 0, total);
  std::vector<std::byte> memory;
  std::vector<std::byte> chunk(bytes);
  Extent index = first;
  Extent origin(rank);
  do {
    for (std::size_t i = 0; i < rank; ++i) origin[i] = index[i] * chunks.extent[i];
    unsigned skipped = 0;
    const std::span<const std::byte> stored = read_stored(dataset, origin, bytes, memory, skipped);
    if (stored.empty()) continue;
    decode_chunk(chunks.filters, skipped, stored, chunk, dataset.name);
    copy_overlap(chunk.data(), origin, chunks.extent, block, width, to);
  } while (next_index(index, first, last));
}

}  // namespace depthkv::h5
