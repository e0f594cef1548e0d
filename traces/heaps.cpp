// SPDX-License-Identifier: Apache-2.0
#include "traces/heaps.h"

#include <bit>
#include <optional>
#include <vector>

namespace depthkv::h5 {
namespace {

constexpr std::uint64_t kMostHeapBlock = 1 << 26;  // bytes
constexpr std::uint64_t kNodeFrame = 10;           // of an index: signature, version, type, checksum

}  // namespace

void check_fractal_heap(RawFile& file, std::uint64_t address, const std::string& name) {
  constexpr std::uint64_t kBytes = 142;
  const std::string header = file.read(address, kBytes);
  Fields fields(header, name);
  const auto is_power = [](std::uint64_t x) { return std::has_single_bit(x); };
  fields.require(fields.take(4) == "FRHP" && fields.take<std::uint8_t>() == 0);
  const auto id_length = fields.take<std::uint16_t>();
  const auto filter_length = fields.take<std::uint16_t>();
  fields.take(1);
  const auto longest = fields.take<std::uint32_t>();
  fields.take(12 * sizeof(std::uint64_t));  // counters
  const auto width = fields.take<std::uint16_t>();
  const auto smallest_block = fields.take<std::uint64_t>();
  const auto largest_block = fields.take<std::uint64_t>();
  const auto address_bits = fields.take<std::uint16_t>();
  fields.take(2);
  const auto root = fields.take<std::uint64_t>();
  const auto rows = fields.take<std::uint16_t>();
  fields.require(id_length >= 3 && id_length <= 64 && filter_length == 0 && is_power(width) &&
                 is_power(smallest_block) && is_power(largest_block) && smallest_block <= largest_block &&
                 largest_block <= kMostHeapBlock && longest <= largest_block && address_bits >= 8 &&
                 address_bits <= 64 && rows <= 64);
  fields.require(root == kUndefined || file.holds(root, 1));
}

namespace {

struct NameIndex {
  IndexOf what;
  std::uint64_t node_bytes;
  std::uint64_t record_bytes;

  std::uint64_t records_in_leaf() const { return (node_bytes - kNodeFrame) / record_bytes; }
};

// libhdf5 looks for a shared attribute, and for one that says it is huge, in what the file may not have.
void check_record(Fields record, IndexOf what) {
  constexpr std::uint8_t kVersionAndHuge = 0xd0;  // of a heap's identifier
  constexpr std::uint8_t kShared = 2;
  constexpr std::uint64_t kHash = 4;
  constexpr std::uint64_t kRestOfIdentifier = 7;
  if (what == IndexOf::link_names) record.take(kHash);
  record.require((record.take<std::uint8_t>() & kVersionAndHuge) == 0);
  if (what == IndexOf::link_names) return;
  record.take(kRestOfIdentifier);
  record.require((record.take<std::uint8_t>() & kShared) == 0);
}

// Two levels of nodes index a thousand links; more isn't looked through, so not accepted.
void check_names(RawFile& file, const NameIndex& index, std::uint64_t address, std::uint64_t depth,
                 std::uint64_t records, const std::string& name) {
  const std::string node = file.read(address, index.node_bytes);
  Fields fields(node, name);
  fields.require(depth <= 1 && fields.take(4) == (depth == 0 ? "BTLF" : "BTIN"));
  fields.take(2);  // version and type
  for (std::uint64_t i = 0; i < records; ++i) check_record(fields.within(fields.take(index.record_bytes)), index.what);
  if (depth == 0) return;
  const std::size_t count_bytes = index.records_in_leaf() < 256 ? 1 : 2;
  for (std::uint64_t i = 0; i <= records; ++i) {
    const auto child = fields.take<std::uint64_t>();
    check_names(file, index, child, depth - 1, fields.number(count_bytes), name);
  }
}

}  // namespace

void check_index(RawFile& file, std::uint64_t address, IndexOf what, const std::string& name) {
  constexpr std::uint64_t kBytes = 34;
  const std::string header = file.read(address, kBytes);
  Fields fields(header, name);
  fields.require(fields.take(4) == "BTHD" && fields.take<std::uint8_t>() == 0);
  fields.require(fields.take<std::uint8_t>() == static_cast<std::uint8_t>(what));
  const auto node_bytes = fields.take<std::uint32_t>();
  const auto record_bytes = fields.take<std::uint16_t>();
  const auto depth = fields.take<std::uint16_t>();
  const auto split = fields.take<std::uint8_t>();
  const auto merge = fields.take<std::uint8_t>();
  const auto root = fields.take<std::uint64_t>();
  const auto records = fields.take<std::uint16_t>();
  const auto total = fields.take<std::uint64_t>();
  fields.require(node_bytes >= 64 && node_bytes <= kMostHeapBlock && record_bytes >= 8 && record_bytes <= 64 &&
                 node_bytes >= kNodeFrame + 4 * record_bytes && depth <= 8 && split > 0 && split <= 100 && merge > 0 &&
                 merge < split);
  fields.require(records <= (node_bytes - kNodeFrame) / record_bytes);
  fields.require((records == 0) == (root == kUndefined) && (records == 0) == (total == 0));
  if (records == 0) return;
  fields.require(file.holds(root, node_bytes));
  if (what == IndexOf::attribute_names || what == IndexOf::link_names) {
    fields.require(record_bytes == (what == IndexOf::attribute_names ? 17 : 11));
    check_names(file, {what, node_bytes, record_bytes}, root, depth, records, name);
  }
}

void check_local_heap(RawFile& file, std::uint64_t address, const std::string& name) {
  constexpr std::uint64_t kBytes = 32;
  constexpr std::uint64_t kEnd = 1;  // of the list of free blocks
  const std::string header = file.read(address, kBytes);
  Fields fields(header, name);
  fields.require(fields.take(4) == "HEAP" && fields.take<std::uint8_t>() == 0);
  fields.take(3);
  const auto size = fields.take<std::uint64_t>();
  auto free_block = fields.take<std::uint64_t>();
  const auto data = fields.take<std::uint64_t>();
  fields.require(file.holds(data, size));
  // libhdf5 makes a note of every free block, and goes on for ever where the list is a circle.
  for (std::uint64_t steps = 0; free_block != kEnd; ++steps) {
    fields.require(steps <= size / 16 && size >= 16 && free_block <= size - 16);
    const std::string block = file.read(data + free_block, 16);
    free_block = Fields(block, name).take<std::uint64_t>();
  }
}

void check_group_tree(RawFile& file, std::uint64_t address, const std::string& name) {
  constexpr std::uint64_t kHeader = 24;  // before the keys and children
  struct Node {
    std::uint64_t address;
    std::optional<std::uint8_t> level;
  };
  std::vector<Node> nodes{{address, std::nullopt}};
  for (std::uint64_t steps = 0; !nodes.empty(); ++steps) {
    const Node node = nodes.back();
    nodes.pop_back();
    const std::string header = file.read(node.address, kHeader);
    Fields fields(header, name);
    fields.require(steps <= file.size() / kHeader && fields.take(4) == "TREE" && fields.take<std::uint8_t>() == 0);
    const auto level = fields.take<std::uint8_t>();
    const auto children = fields.take<std::uint16_t>();
    fields.require(!node.level || level == *node.level);
    const std::string entries =
        file.read(node.address + kHeader, (2 * std::uint64_t{children} + 1) * sizeof(std::uint64_t));
    Fields list = fields.within(entries);
    for (int i = 0; i < children; ++i) {
      list.take(sizeof(std::uint64_t));  // key
      const auto child = list.take<std::uint64_t>();
      if (level == 0) {
        list.require(file.read(child, 4) == "SNOD");
      } else {
        nodes.push_back({child, static_cast<std::uint8_t>(level - 1)});
      }
    }
  }
}

}  // namespace depthkv::h5
