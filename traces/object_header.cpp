// SPDX-License-Identifier: Apache-2.0
#include "traces/object_header.h"

#include <algorithm>
#include <array>
#include <deque>
#include <limits>
#include <vector>

#include "traces/heaps.h"
#include "traces/raw_file.h"

namespace depthkv::h5 {
namespace {

constexpr std::size_t kMostChunks = 256;  // of one header; more is a circle
constexpr std::size_t kMostRank = 32;
constexpr std::size_t kReferenceBytes = 16;  // of a variable-length value
constexpr int kMostNested = 4;               // datatypes inside datatypes

enum class Kind : std::uint16_t {
  nil = 0x00,
  dataspace = 0x01,
  link_info = 0x02,
  datatype = 0x03,
  old_fill = 0x04,
  fill = 0x05,
  link = 0x06,
  external = 0x07,
  layout = 0x08,
  group_info = 0x0a,
  filters = 0x0b,
  attribute = 0x0c,
  comment = 0x0d,
  old_time = 0x0e,
  continuation = 0x10,
  symbol_table = 0x11,
  time = 0x12,
  attribute_info = 0x15,
  reference_count = 0x16,
};

struct Chunk {
  std::uint64_t address = 0;
  std::uint64_t length = 0;
};

void skip_padding(Fields& fields, std::size_t length) { fields.take(std::min((8 - length % 8) % 8, fields.left())); }

struct Space {
  std::uint64_t count = 0;  // of values
  std::size_t rank = 0;
};

Space check_dataspace(Fields fields) {
  const auto version = fields.take<std::uint8_t>();
  const auto rank = fields.take<std::uint8_t>();
  const auto flags = fields.take<std::uint8_t>();
  const auto type = fields.take<std::uint8_t>();
  fields.require((version == 1 || version == 2) && rank <= kMostRank && flags <= 1);
  if (version == 1) fields.take(4);
  std::uint64_t count = 1;
  for (int i = 0; i < rank; ++i) {
    const auto extent = fields.take<std::uint64_t>();
    fields.require(extent == 0 || count <= std::numeric_limits<std::uint64_t>::max() / extent);
    count *= extent;
  }
  if (flags == 1) fields.take(std::uint64_t{8} * rank);
  return {version == 2 && type == 2 ? 0 : count, rank};
}

void check_members(Fields& fields, int version, std::size_t count, std::size_t value_bytes) {
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t length = 1;
    while (fields.take<char>() != '\0') ++length;
    if (version < 3) skip_padding(fields, length);
  }
  fields.take(std::uint64_t{count} * value_bytes);
}

// Bytes of one value.
std::size_t check_datatype(Fields& fields, int depth = 0) {
  const auto head = fields.take<std::uint32_t>();
  const auto size = fields.take<std::uint32_t>();
  const int version = static_cast<int>(head >> 4U & 0xfU);
  fields.require(version >= 1 && version <= 4 && size > 0 && depth < kMostNested);
  switch (head & 0xfU) {
    case 0:    // whole number
    case 4:    // bits
    case 1: {  // real
      const auto offset = fields.take<std::uint16_t>();
      const auto precision = fields.take<std::uint16_t>();
      fields.require(precision > 0 && std::uint64_t{offset} + precision <= std::uint64_t{size} * 8);
      if ((head & 0xfU) == 1) fields.take(8);
      break;
    }
    case 3:  // text
    case 7:  // reference
      break;
    case 8: {  // enumeration; numpy's bool is one
      const std::size_t value = check_datatype(fields, depth + 1);
      fields.require(value == size);
      check_members(fields, version, head >> 8U & 0xffffU, value);
      break;
    }
    case 9:  // variable length
      check_datatype(fields, depth + 1);
      fields.require(size == kReferenceBytes);
      break;
    default:
      fields.require(false);
  }
  return size;
}

void check_attribute(Fields fields) {
  const auto version = fields.take<std::uint8_t>();
  const auto flags = fields.take<std::uint8_t>();  // 0, or which of the parts are shared
  const auto name_length = fields.take<std::uint16_t>();
  const auto type_length = fields.take<std::uint16_t>();
  const auto space_length = fields.take<std::uint16_t>();
  fields.require(version >= 1 && version <= 3 && flags == 0 && name_length > 0);
  if (version == 3) fields.take(1);
  const auto part = [&](std::size_t length) {
    const std::string_view bytes = fields.take(length);
    if (version == 1) skip_padding(fields, length);
    return bytes;
  };
  fields.require(part(name_length).back() == '\0');
  Fields type = fields.within(part(type_length));
  const Fields space = fields.within(part(space_length));
  const std::uint64_t size = check_datatype(type);
  const std::uint64_t count = check_dataspace(space).count;
  fields.require(count <= fields.left() / size);
}

void check_fill(Fields fields, Kind kind) {
  if (kind == Kind::fill) {
    const auto version = fields.take<std::uint8_t>();
    fields.require(version >= 1 && version <= 3);
    const bool held = version == 3 ? (fields.take<std::uint8_t>() & 0x20U) != 0
                                   : (fields.take(2), fields.take<std::uint8_t>() != 0 || version == 1);
    if (!held) return;
  }
  fields.take(std::max(0, fields.take<std::int32_t>()));
}

// A chunk's extent; the last one is the size of a value.
struct ChunkShape {
  std::size_t rank = 0;  // 0: not chunked
  std::uint64_t value_bytes = 0;
};

ChunkShape check_extents(Fields& fields, std::size_t rank, std::size_t bytes) {
  fields.require(rank >= 2 && rank <= kMostRank + 1);
  std::uint64_t extent = 0;
  for (std::size_t i = 0; i < rank; ++i) {
    extent = fields.number(bytes);
    fields.require(extent != 0);
  }
  return {rank, extent};
}

ChunkShape check_layout(Fields fields, const RawFile& file) {
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
    const auto rank = fields.take<std::uint8_t>();
    const auto address = fields.take<std::uint64_t>();
    fields.require(address == kUndefined || file.holds(address, 1));
    return check_extents(fields, rank, 4);
  } else if (layout == 2) {
    fields.take(1);
    const auto rank = fields.take<std::uint8_t>();
    const auto bytes = fields.take<std::uint8_t>();
    const ChunkShape shape = check_extents(fields, rank, bytes);
    const auto index = fields.take<std::uint8_t>();
    fields.require(index >= 1 && index <= 5);
    return shape;
  }  // Virtual ones are refused by name, once they are open: check_storage().
  return {};
}

void check_filters(Fields fields) {
  const auto version = fields.take<std::uint8_t>();
  const auto count = fields.take<std::uint8_t>();
  fields.require((version == 1 || version == 2) && count <= kMostRank);
  if (version == 1) fields.take(6);
  for (int i = 0; i < count; ++i) {
    const auto id = fields.take<std::uint16_t>();
    const std::uint16_t name = version == 1 || id >= 256 ? fields.take<std::uint16_t>() : std::uint16_t{0};
    fields.take(2);
    const auto values = fields.take<std::uint16_t>();
    fields.require(name == 0 || fields.take(name).back() == '\0');
    if (version == 1) skip_padding(fields, name);
    fields.take(std::uint64_t{4} * values);
    if (version == 1 && values % 2 == 1) fields.take(4);
  }
}

void check_link(Fields fields) {
  const auto version = fields.take<std::uint8_t>();
  const auto flags = fields.take<std::uint8_t>();
  fields.require(version == 1 && flags < 0x20);
  const auto type = (flags & 0x08U) != 0 ? fields.take<std::uint8_t>() : std::uint8_t{0};
  if ((flags & 0x04U) != 0) fields.take(8);
  if ((flags & 0x10U) != 0) fields.take(1);
  const std::uint64_t length = fields.number(std::size_t{1} << (flags & 3U));
  fields.require(length > 0);
  fields.take(length);
  if (type == 0) {
    fields.take(8);
  } else {
    fields.take(fields.take<std::uint16_t>());
  }
}

// Version, flags, and where a heap and its indices are.
void check_dense(Fields fields, std::size_t order_bytes, std::array<IndexOf, 2> indices, RawFile& file,
                 const std::string& name) {
  const auto version = fields.take<std::uint8_t>();
  const auto flags = fields.take<std::uint8_t>();
  fields.require(version == 0 && flags <= 3);
  if ((flags & 1U) != 0) fields.take(order_bytes);
  const auto heap = fields.take<std::uint64_t>();
  if (heap != kUndefined) check_fractal_heap(file, heap, name);
  for (std::size_t i = 0; i < ((flags & 2U) != 0 ? 2 : 1); ++i) {
    const auto index = fields.take<std::uint64_t>();
    fields.require(index == kUndefined || heap != kUndefined);
    if (index != kUndefined) check_index(file, index, indices[i], name);
  }
}

class Header {
 public:
  Header(const std::filesystem::path& file, const std::string& name) : file_(file), name_(name) {}

  void check(std::uint64_t address) {
    const bool tagged = file_.read(address, 4) == "OHDR";
    chunks_.push_back(tagged ? open_tagged(address) : open_plain(address));
    for (std::size_t i = 0; i < chunks_.size(); ++i) {
      Fields(std::string_view(), name_).require(i < kMostChunks);
      check_chunk(chunks_[i], i > 0 && tagged);
    }
    Fields(std::string_view(), name_)
        .require(chunk_.rank == 0 || (chunk_.rank == space_.rank + 1 && chunk_.value_bytes == value_bytes_));
  }

 private:
  Fields fields_at(std::uint64_t address, std::uint64_t length) {
    bytes_.push_back(file_.read(address, length));
    Fields fields(bytes_.back(), name_);
    fields.require(length > 0 && fields.left() == length);
    return fields;
  }

  Chunk open_plain(std::uint64_t address) {
    Fields fields = fields_at(address, 16);
    fields.require(fields.take<std::uint8_t>() == 1);
    fields.take(7);
    return {address + 16, fields.take<std::uint32_t>()};
  }

  Chunk open_tagged(std::uint64_t address) {
    constexpr std::uint64_t kLongest = 34;  // signature to chunk size, with everything optional
    Fields fields = fields_at(address, std::min(kLongest, file_.size() - address));
    const std::size_t whole = fields.left();
    fields.take(4);
    fields.require(fields.take<std::uint8_t>() == 2);
    flags_ = fields.take<std::uint8_t>();
    if ((flags_ & 0x20U) != 0) fields.take(16);
    if ((flags_ & 0x10U) != 0) fields.take(4);
    tagged_ = true;
    const std::uint64_t length = fields.number(std::size_t{1} << (flags_ & 3U));
    return {address + whole - fields.left(), length};
  }

  void check_chunk(Chunk chunk, bool signed_chunk) {
    if (chunk.length == 0) return;
    Fields fields = fields_at(chunk.address, chunk.length);
    std::size_t end = 0;
    if (signed_chunk) {
      fields.require(fields.take(4) == "OCHK");
      end = 4;  // its checksum
    }
    const std::size_t head = tagged_ ? ((flags_ & 0x04U) != 0 ? 6 : 4) : 8;
    while (fields.left() >= head + end) {
      const auto kind = tagged_ ? fields.take<std::uint8_t>() : fields.take<std::uint16_t>();
      const auto length = fields.take<std::uint16_t>();
      const auto flags = fields.take<std::uint8_t>();
      fields.take(head - (tagged_ ? 4 : 5));
      fields.require((flags & 0x02U) == 0 && length + end <= fields.left());  // not shared with another object
      check_message(static_cast<Kind>(kind), fields.within(fields.take(length)));
    }
  }

  void check_message(Kind kind, Fields fields) {
    switch (kind) {
      case Kind::dataspace:
        space_ = check_dataspace(fields);
        return;
      case Kind::datatype:
        value_bytes_ = check_datatype(fields);
        return;
      case Kind::old_fill:
      case Kind::fill:
        return check_fill(fields, kind);
      case Kind::link:
        return check_link(fields);
      case Kind::layout:
        chunk_ = check_layout(fields, file_);
        return;
      case Kind::filters:
        return check_filters(fields);
      case Kind::attribute:
        return check_attribute(fields);
      case Kind::comment:
        return fields.require(fields.left() > 0 && fields.take(fields.left()).back() == '\0');
      case Kind::link_info:
        return check_dense(fields, 8, {IndexOf::link_names, IndexOf::link_order}, file_, name_);
      case Kind::attribute_info:
        return check_dense(fields, 2, {IndexOf::attribute_names, IndexOf::attribute_order}, file_, name_);
      case Kind::symbol_table:
        check_group_tree(file_, fields.take<std::uint64_t>(), name_);
        return check_local_heap(file_, fields.take<std::uint64_t>(), name_);
      case Kind::continuation: {
        const auto address = fields.take<std::uint64_t>();
        chunks_.push_back({address, fields.take<std::uint64_t>()});
        return;
      }
      case Kind::old_time:
        fields.take(14);
        return;
      case Kind::time:
        fields.take(8);
        return;
      case Kind::group_info:
        fields.take(2);
        return;
      case Kind::reference_count:
        fields.take(5);
        return;
      case Kind::nil:
      case Kind::external:  // refused by name, once it is open: check_storage()
        return;
    }
    fields.require(false);
  }

  RawFile file_;
  const std::string& name_;
  bool tagged_ = false;
  unsigned flags_ = 0;
  Space space_;
  std::size_t value_bytes_ = 0;
  ChunkShape chunk_;
  std::vector<Chunk> chunks_;
  std::deque<std::string> bytes_;  // what Fields look into
};

}  // namespace

void check_object_header(const std::filesystem::path& file, std::uint64_t address, const std::string& name) {
  Header(file, name).check(address);
}

}  // namespace depthkv::h5
