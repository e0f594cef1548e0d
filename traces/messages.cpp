// SPDX-License-Identifier: Apache-2.0
#include "traces/messages.h"

#include <algorithm>
#include <limits>

#include "traces/guard.h"

namespace depthkv::h5 {
namespace {

constexpr int kMostNested = 4;  // datatypes inside datatypes

void skip_padding(Fields& fields, std::size_t length) { fields.take(std::min((8 - length % 8) % 8, fields.left())); }

}  // namespace

Space check_dataspace(Fields fields) {
  constexpr std::uint64_t kMostExtent = std::uint64_t{1} << 62U;  // so that libhdf5 can round it up to whole chunks
  const auto version = fields.take<std::uint8_t>();
  const auto rank = fields.take<std::uint8_t>();
  const auto flags = fields.take<std::uint8_t>();
  const auto type = fields.take<std::uint8_t>();
  fields.require((version == 1 || version == 2) && rank <= kMostRank && flags <= 1);
  if (version == 1) fields.take(4);
  Space space{.count = 1, .extent = {}, .most = {}};
  for (int i = 0; i < rank; ++i) {
    const auto extent = fields.take<std::uint64_t>();
    fields.require(extent == 0 ||
                   (extent <= kMostExtent && space.count <= std::numeric_limits<std::uint64_t>::max() / extent));
    space.count *= extent;
    space.extent.push_back(extent);
  }
  space.most = space.extent;
  for (std::size_t i = 0; flags == 1 && i < rank; ++i) {
    space.most[i] = fields.take<std::uint64_t>();
    fields.require(space.most[i] == kUndefined || (space.most[i] >= space.extent[i] && space.most[i] <= kMostExtent));
  }
  if (version == 2 && type == 2) space.count = 0;
  return space;
}

namespace {

void check_members(Fields& fields, int version, std::size_t count, std::size_t value_bytes) {
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t length = 1;
    while (fields.take<char>() != '\0') ++length;
    if (version < 3) skip_padding(fields, length);
  }
  fields.take(std::uint64_t{count} * value_bytes);
}

}  // namespace

std::size_t check_datatype(Fields& fields, int depth) {
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

void check_fill(Fields fields, bool old) {
  if (!old) {
    const auto version = fields.take<std::uint8_t>();
    fields.require(version >= 1 && version <= 3);
    const bool held = version == 3 ? (fields.take<std::uint8_t>() & 0x20U) != 0
                                   : (fields.take(2), fields.take<std::uint8_t>() != 0 || version == 1);
    if (!held) return;
  }
  fields.take(std::max(0, fields.take<std::int32_t>()));
}

std::size_t check_filters(Fields fields) {
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
  return count;
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

}  // namespace depthkv::h5
