// SPDX-License-Identifier: Apache-2.0
#include "traces/chunk_layout.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "traces/trees.h"

namespace depthkv::h5 {
namespace {

// Parameters of indices that HDF5 never lets anybody choose.
constexpr std::uint8_t kPageBits = 10;  // of a data block's page: 1024 chunks
constexpr std::array<std::uint8_t, 5> kExtensibleInLayout{32, 4, 4, 16, kPageBits};
constexpr std::array<std::uint8_t, 5> kExtensibleInHeader{32, 4, 16, 4, kPageBits};
constexpr std::uint32_t kChunkTreeNode = 2048;  // bytes

void check_extents(Fields& fields, ChunkLayout& chunks, std::size_t rank, std::size_t bytes) {
  fields.require(rank >= 2 && rank <= kMostRank + 1);
  chunks.bytes = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::uint64_t extent = fields.number(bytes);
    // libhdf5 keeps a chunk's size in 32 bits.
    fields.require(extent != 0 && extent <= std::numeric_limits<std::uint32_t>::max() / chunks.bytes);
    chunks.bytes *= extent;
    chunks.extent.push_back(extent);
  }
}

// Parameters of an index are the same wherever HDF5 has written one, and libhdf5 computes with them unseen.
void check_parameters(Fields& fields, IndexKind index) {
  switch (index) {
    case IndexKind::fixed:
      return fields.expect("the page size of a fixed array", fields.take<std::uint8_t>(), kPageBits);
    case IndexKind::extensible:
      for (const std::uint8_t expected : kExtensibleInLayout)
        fields.expect("a parameter of an extensible array", fields.take<std::uint8_t>(), expected);
      return;
    case IndexKind::tree:
      fields.expect("the node size of a B-tree of chunks", fields.take<std::uint32_t>(), kChunkTreeNode);
      fields.expect("the split mark of a B-tree of chunks", fields.take<std::uint8_t>(), kSplit);
      return fields.expect("the merge mark of a B-tree of chunks", fields.take<std::uint8_t>(), kMerge);
    default:
      return;
  }
}

ChunkLayout check_chunked(Fields& fields, const RawFile& file) {
  constexpr std::uint8_t kSized = 2;
  ChunkLayout chunks;
  const auto flags = fields.take<std::uint8_t>();
  const auto rank = fields.take<std::uint8_t>();
  const auto bytes = fields.take<std::uint8_t>();
  check_extents(fields, chunks, rank, bytes);
  const auto index = fields.take<std::uint8_t>();
  fields.require(index >= 1 && index <= 5);
  chunks.index = static_cast<IndexKind>(index);
  chunks.sized = flags == kSized;
  fields.require(flags == 0 || (flags == kSized && chunks.index == IndexKind::single));
  if (chunks.sized) {
    chunks.stored = fields.take<std::uint64_t>();
    fields.take(4);  // which filters were left out
  }
  check_parameters(fields, chunks.index);
  chunks.address = fields.take<std::uint64_t>();
  fields.require(chunks.address == kUndefined || file.holds(chunks.address, 1));
  return chunks;
}

}  // namespace

ChunkLayout check_layout(Fields fields, const RawFile& file) {
  const auto version = fields.take<std::uint8_t>();
  const auto layout = fields.take<std::uint8_t>();
  fields.require(version == 3 || version == 4);
  if (layout == 0) {
    fields.take(fields.take<std::uint16_t>());
  } else if (layout == 1) {
    const auto address = fields.take<std::uint64_t>();
    const auto size = fields.take<std::uint64_t>();
    fields.require(address == kUndefined || file.holds(address, size));
  } else if (layout == 2 && version == 3) {
    ChunkLayout chunks;
    const auto rank = fields.take<std::uint8_t>();
    chunks.address = fields.take<std::uint64_t>();
    fields.require(chunks.address == kUndefined || file.holds(chunks.address, 1));
    check_extents(fields, chunks, rank, 4);
    return chunks;
  } else if (layout == 2) {
    return check_chunked(fields, file);
  } else if (layout == 3) {
    fields.refuse("a virtual dataset, and a sample holds what belongs to it; copy the values in");
  } else {
    fields.require(false);
  }
  return {};
}

namespace {

struct ChunkCount {
  std::uint64_t now = 1;
  std::uint64_t most = 1;  // with extents that grow without end as they are now
  int endless = 0;         // how many of those
};

ChunkCount count_chunks(const ChunkLayout& chunks, const Space& space) {
  constexpr std::uint64_t kMany = std::numeric_limits<std::uint64_t>::max();
  ChunkCount count;
  const auto multiply = [](std::uint64_t& product, std::uint64_t extent, std::uint64_t chunk) {
    const std::uint64_t factor = extent / chunk + (extent % chunk == 0 ? 0 : 1);
    product = factor == 0 || product <= kMany / factor ? product * factor : kMany;
  };
  for (std::size_t i = 0; i < space.extent.size(); ++i) {
    const bool endless = space.most[i] == kUndefined;
    count.endless += endless ? 1 : 0;
    multiply(count.now, space.extent[i], chunks.extent[i]);
    multiply(count.most, endless ? space.extent[i] : space.most[i], chunks.extent[i]);
  }
  return count;
}

// Bytes of a filtered chunk's length in an index: what a chunk's size takes, and one more.
std::uint64_t length_bytes(const ChunkLayout& chunks) {
  return std::min<std::uint64_t>(8, 1 + (static_cast<std::uint64_t>(std::bit_width(chunks.bytes)) + 7) / 8);
}

// Address, and of filtered chunks length and which filters were left out.
std::uint64_t entry_bytes(const ChunkLayout& chunks, bool filtered) {
  return 8 + (filtered ? length_bytes(chunks) + 4 : 0);
}

// An unfiltered chunk is as long as a chunk is: libhdf5 reads what the tree says into room for what the layout says.
void check_old_tree(RawFile& file, const ChunkLayout& chunks, bool filtered, const std::string& name) {
  const auto check_chunk = [&](Fields key, std::uint64_t child) {
    const auto stored = key.take<std::uint32_t>();
    key.take(4);  // which filters were left out
    if (!filtered) key.expect("the length of a chunk in its B-tree", stored, chunks.bytes);
    for (const std::uint64_t extent : chunks.extent) key.require(key.take<std::uint64_t>() % extent == 0);
    key.require(stored > 0 && file.holds(child, stored));
  };
  const OldTree tree{
      .type = 1, .key_bytes = 8 + 8 * chunks.extent.size(), .check_key = [](Fields) {}, .check_child = check_chunk};
  walk_old_tree(file, chunks.address, tree, name);
}

// What the headers of arrays begin with. libhdf5 decodes entries of the size that it expects, whatever this says.
Fields open_array(const std::string& header, const char* signature, const ChunkLayout& chunks, bool filtered,
                  const std::string& name) {
  Fields fields(header, name);
  fields.require(fields.take(4) == signature && fields.take<std::uint8_t>() == 0);
  fields.expect("the class of an index of chunks", fields.take<std::uint8_t>(), filtered ? 1 : 0);
  fields.expect("the entry size of an index of chunks", fields.take<std::uint8_t>(), entry_bytes(chunks, filtered));
  return fields;
}

void check_fixed_array(RawFile& file, const ChunkLayout& chunks, std::uint64_t most, bool filtered,
                       const std::string& name) {
  const std::string header = file.read(chunks.address, 28);
  Fields fields = open_array(header, "FAHD", chunks, filtered, name);
  fields.expect("the page size of a fixed array", fields.take<std::uint8_t>(), kPageBits);
  fields.expect("the size of a fixed array of chunks", fields.take<std::uint64_t>(), most);
  const auto block = fields.take<std::uint64_t>();
  fields.require(block == kUndefined || (most > 0 && file.holds(block, most * entry_bytes(chunks, filtered))));
}

void check_extensible_array(RawFile& file, const ChunkLayout& chunks, bool filtered, const std::string& name) {
  const std::string header = file.read(chunks.address, 72);
  Fields fields = open_array(header, "EAHD", chunks, filtered, name);
  for (const std::uint8_t expected : kExtensibleInHeader)
    fields.expect("a parameter of an extensible array", fields.take<std::uint8_t>(), expected);
  fields.take(4 * sizeof(std::uint64_t));                       // counters
  fields.require(fields.take<std::uint64_t>() <= file.size());  // entries: libhdf5 goes through all of them
  fields.take(sizeof(std::uint64_t));                           // of these with room
  const auto block = fields.take<std::uint64_t>();
  fields.require(block == kUndefined || file.holds(block, 1));
}

void check_chunk_tree(RawFile& file, const ChunkLayout& chunks, bool filtered, const std::string& name) {
  const std::uint64_t record = entry_bytes(chunks, filtered) + 8 * (chunks.extent.size() - 1);
  const Tree tree{.type = static_cast<std::uint8_t>(filtered ? 11 : 10),
                  .node_bytes = kChunkTreeNode,
                  .record_bytes = record,
                  .most_depth = 8};
  walk_tree(file, chunks.address, tree, name, [&](Fields fields) {
    const auto address = fields.take<std::uint64_t>();
    const std::uint64_t stored = filtered ? fields.number(length_bytes(chunks)) : chunks.bytes;
    fields.require(stored > 0 && file.holds(address, stored));
  });
}

}  // namespace

void check_chunk_index(RawFile& file, const ChunkLayout& chunks, const Space& space, bool filtered,
                       const std::string& name) {
  const Fields fields(std::string_view(), name);
  const ChunkCount count = count_chunks(chunks, space);
  // libhdf5 may go through all chunks, and numbers them by these extents.
  if (count.now > file.size())
    fields.refuse(fmt::format("claims {} chunks in a file of {} bytes; the file is damaged", count.now, file.size()));
  if (chunks.index == IndexKind::single)
    fields.require(count.most == 1 && count.endless == 0 && chunks.sized == filtered);
  if (chunks.address == kUndefined) return;
  switch (chunks.index) {
    case IndexKind::old_tree:
      return check_old_tree(file, chunks, filtered, name);
    case IndexKind::single:
      return fields.require(file.holds(chunks.address, filtered ? chunks.stored : chunks.bytes));
    case IndexKind::implicit:
      return fields.require(!filtered && count.endless == 0 && count.most <= file.size() / chunks.bytes &&
                            file.holds(chunks.address, count.most * chunks.bytes));
    case IndexKind::fixed:
      fields.require(count.endless == 0 && count.most <= file.size());
      return check_fixed_array(file, chunks, count.most, filtered, name);
    case IndexKind::extensible:
      fields.require(count.endless == 1 && count.most <= std::numeric_limits<std::uint32_t>::max());
      return check_extensible_array(file, chunks, filtered, name);
    case IndexKind::tree:
      return check_chunk_tree(file, chunks, filtered, name);
  }
}

}  // namespace depthkv::h5
