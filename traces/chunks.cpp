// SPDX-License-Identifier: Apache-2.0
#include "traces/chunks.h"

#include <zlib.h>

#include <vector>

#include "depthkv/error.h"
#include "traces/guard.h"
#include "traces/raw_file.h"

namespace depthkv::h5 {
namespace {

constexpr std::size_t kChecksumBytes = 4;  // fletcher32 appends them

struct Pipeline {
  int filters = 0;
  bool deflated = false;
  std::size_t inside = 0;   // bytes of checksums that were appended before deflate saw the chunk
  std::size_t outside = 0;  // and after it
};

Pipeline pipeline_of(const Handle& creation) {
  Pipeline pipeline;
  pipeline.filters = H5Pget_nfilters(creation.id());
  for (int i = 0; i < pipeline.filters; ++i) {
    const H5Z_filter_t filter = filter_at(creation, i);
    if (filter == H5Z_FILTER_FLETCHER32) pipeline.outside += kChecksumBytes;
    if (filter != H5Z_FILTER_DEFLATE) continue;
    pipeline.deflated = true;
    pipeline.inside = std::exchange(pipeline.outside, 0);
  }
  return pipeline;
}

// One chunk as it lies in the file.
struct Stored {
  unsigned skipped = 0;  // filters that were left out
  haddr_t address = HADDR_UNDEF;
  hsize_t size = 0;
};

class ChunkCheck {
 public:
  ChunkCheck(const Object& dataset, const Handle& creation, std::size_t bytes)
      : file_(path_of(dataset)), pipeline_(pipeline_of(creation)), bytes_(bytes), inflated_(bytes + pipeline_.inside) {}

  bool is_whole(const Stored& chunk) {
    if (chunk.address == HADDR_UNDEF) return true;  // never written: zeros
    if (chunk.skipped != 0 || !file_.holds(chunk.address, chunk.size)) return false;
    if (!pipeline_.deflated) return chunk.size == bytes_ + pipeline_.outside;
    if (chunk.size <= pipeline_.outside) return false;
    const std::string stored = file_.read(chunk.address, chunk.size - pipeline_.outside);
    uLongf size = inflated_.size();
    return uncompress(inflated_.data(), &size, reinterpret_cast<const Bytef*>(stored.data()), stored.size()) == Z_OK &&
           size == inflated_.size();
  }

 private:
  RawFile file_;
  Pipeline pipeline_;
  std::size_t bytes_;
  std::vector<Bytef> inflated_;
};

// Goes on to the next chunk that the block touches; false after the last one.
bool advance(Extent& chunk, const Extent& shape, const Block& block) {
  for (std::size_t i = chunk.size(); i-- > 0;) {
    chunk[i] += shape[i];
    if (chunk[i] < block.start[i] + block.count[i]) return true;
    chunk[i] = block.start[i] / shape[i] * shape[i];
  }
  return false;
}

}  // namespace

void check_chunks(const Object& dataset, const Block& block) {
  const Handle creation(H5Dget_create_plist(dataset.id()), H5Pclose);
  if (H5Pget_layout(creation.id()) != H5D_CHUNKED) return;
  Extent shape(block.start.size());
  H5Pget_chunk(creation.id(), static_cast<int>(shape.size()), shape.data());
  const Handle type(H5Dget_type(dataset.id()), H5Tclose);
  std::size_t bytes = stored_size(type);
  hsize_t count = 1;
  Extent chunk(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) {
    bytes *= shape[i];
    chunk[i] = block.start[i] / shape[i] * shape[i];
    count *= (block.start[i] + block.count[i] - 1 - chunk[i]) / shape[i] + 1;
  }
  expect_justified(dataset, count, kBytesPerChunk);
  ChunkCheck check(dataset, creation, bytes);
  do {
    Stored stored;
    if (H5Dget_chunk_info_by_coord(dataset.id(), chunk.data(), &stored.skipped, &stored.address, &stored.size) < 0 ||
        !check.is_whole(stored)) {
      throw Error(fmt::format("{}: a chunk isn't whole; the file is damaged", dataset.name));
    }
  } while (advance(chunk, shape, block));
}

}  // namespace depthkv::h5
