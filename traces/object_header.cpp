// SPDX-License-Identifier: Apache-2.0
#include "traces/object_header.h"

#include <algorithm>
#include <deque>
#include <set>
#include <vector>

#include "traces/chunk_layout.h"
#include "traces/heaps.h"
#include "traces/messages.h"
#include "traces/raw_file.h"

namespace depthkv::h5 {
namespace {

constexpr std::size_t kMostChunks = 256;  // of one header; more is a circle

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

// Version, flags, and where a heap and its indices are.
void check_dense(Fields fields, Dense what, std::size_t order_bytes, RawFile& file, const std::string& name) {
  const auto version = fields.take<std::uint8_t>();
  const auto flags = fields.take<std::uint8_t>();
  fields.require(version == 0 && flags <= 3);
  if ((flags & 1U) != 0) fields.take(order_bytes);
  DenseStorage storage;
  storage.heap = fields.take<std::uint64_t>();
  storage.names = fields.take<std::uint64_t>();
  if ((flags & 2U) != 0) storage.order = fields.take<std::uint64_t>();
  check_dense(file, what, storage, name);
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
    if (chunk_.extent.empty()) return;
    Fields(std::string_view(), name_)
        .require(chunk_.extent.size() == space_.extent.size() + 1 && chunk_.extent.back() == value_bytes_);
    check_chunk_index(file_, chunk_, space_, filters_ > 0, name_);
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

  // Of most kinds an object has one message; of several, libhdf5 takes the first and this class the last.
  void expect_first(Kind kind, const Fields& fields) {
    const bool many = kind == Kind::nil || kind == Kind::link || kind == Kind::attribute || kind == Kind::continuation;
    fields.require(many || seen_.insert(kind).second);
  }

  void check_message(Kind kind, Fields fields) {
    expect_first(kind, fields);
    switch (kind) {
      case Kind::dataspace:
        space_ = check_dataspace(fields);
        return;
      case Kind::datatype:
        value_bytes_ = check_datatype(fields);
        return;
      case Kind::old_fill:
      case Kind::fill:
        return check_fill(fields, kind == Kind::old_fill);
      case Kind::link:
        return check_link(fields);
      case Kind::layout:
        chunk_ = check_layout(fields, file_);
        return;
      case Kind::filters:
        filters_ = check_filters(fields);
        return;
      case Kind::attribute:
        return check_attribute(fields);
      case Kind::comment:
        return fields.require(fields.left() > 0 && fields.take(fields.left()).back() == '\0');
      case Kind::link_info:
        return check_dense(fields, Dense::links, 8, file_, name_);
      case Kind::attribute_info:
        return check_dense(fields, Dense::attributes, 2, file_, name_);
      case Kind::symbol_table: {
        const auto tree = fields.take<std::uint64_t>();
        return check_old_group(file_, tree, fields.take<std::uint64_t>(), name_);
      }
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
      case Kind::group_info: {
        fields.require(fields.take<std::uint8_t>() == 0);
        const auto flags = fields.take<std::uint8_t>();
        for (const unsigned part : {1U, 2U})
          fields.take((flags & part) != 0 ? 4 : 0);  // when to go dense, name lengths
        return;
      }
      case Kind::reference_count:
        fields.take(5);
        return;
      case Kind::external:
        fields.refuse("its values lie in another file; copy them in with h5repack");
      case Kind::nil:
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
  std::size_t filters_ = 0;
  ChunkLayout chunk_;
  std::set<Kind> seen_;
  std::vector<Chunk> chunks_;
  std::deque<std::string> bytes_;  // what Fields look into
};

}  // namespace

void check_object_header(const std::filesystem::path& file, std::uint64_t address, const std::string& name) {
  Header(file, name).check(address);
}

}  // namespace depthkv::h5
