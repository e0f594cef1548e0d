// SPDX-License-Identifier: Apache-2.0
#include "traces/trees.h"

#include <bit>
#include <optional>
#include <vector>

namespace depthkv::h5 {

void walk_old_tree(RawFile& file, std::uint64_t address, const OldTree& tree, const std::string& name) {
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
    fields.require(steps <= file.size() / kHeader && fields.take(4) == "TREE");
    fields.expect("the type of a B-tree", fields.take<std::uint8_t>(), tree.type);
    const auto level = fields.take<std::uint8_t>();
    const auto children = fields.take<std::uint16_t>();
    if (node.level) fields.expect("the level of a B-tree's node", level, *node.level);
    const std::string entries = file.read(node.address + kHeader, children * (tree.key_bytes + 8) + tree.key_bytes);
    Fields list = fields.within(entries);
    for (int i = 0; i < children; ++i) {
      const Fields key = fields.within(list.take(tree.key_bytes));
      const auto child = list.take<std::uint64_t>();
      tree.check_key(key);
      if (level == 0) tree.check_child(key, child);
      if (level > 0) nodes.push_back({child, static_cast<std::uint8_t>(level - 1)});
    }
    if (children > 0) tree.check_key(list);
  }
}

namespace {

constexpr std::uint64_t kFrame = 10;  // of a node: signature, version, type, checksum

// What libhdf5 computes from a tree's header: how many records a node has room for, and how wide counts are.
class TreeWalk {
 public:
  TreeWalk(RawFile& file, const Tree& tree, const std::string& name, const std::function<void(Fields)>& record)
      : file_(file), tree_(tree), name_(name), record_(record) {
    room_.push_back((tree.node_bytes - kFrame) / tree.record_bytes);
    below_.push_back(room_[0]);
    for (std::uint64_t depth = 1; depth <= tree.most_depth; ++depth) {
      const std::uint64_t child = child_bytes(depth);
      room_.push_back((tree.node_bytes - kFrame - child) / (tree.record_bytes + child));
      below_.push_back((room_[depth] + 1) * below_[depth - 1] + room_[depth]);
    }
  }

  void walk(std::uint64_t address, std::uint64_t depth, std::uint64_t records) {
    const std::string node = file_.read(address, tree_.node_bytes);
    Fields fields(node, name_);
    fields.require(++nodes_ <= file_.size() / tree_.node_bytes && depth < room_.size());
    fields.require(fields.take(4) == (depth == 0 ? "BTLF" : "BTIN") && fields.take<std::uint8_t>() == 0);
    fields.expect("the type of a B-tree's node", fields.take<std::uint8_t>(), tree_.type);
    fields.require(records <= room_[depth]);
    for (std::uint64_t i = 0; i < records; ++i) record_(fields.within(fields.take(tree_.record_bytes)));
    for (std::uint64_t i = 0; depth > 0 && i <= records; ++i) {
      const auto child = fields.take<std::uint64_t>();
      const std::uint64_t count = fields.number(count_bytes(room_[0]));
      if (depth > 1) fields.take(count_bytes(below_[depth - 1]));
      walk(child, depth - 1, count);
    }
  }

 private:
  static std::size_t count_bytes(std::uint64_t most) {
    return (static_cast<std::size_t>(std::bit_width(most)) + 7) / 8;
  }
  std::uint64_t child_bytes(std::uint64_t depth) const {
    return 8 + count_bytes(room_[0]) + (depth > 1 ? count_bytes(below_[depth - 1]) : 0);
  }

  RawFile& file_;
  const Tree& tree_;
  const std::string& name_;
  const std::function<void(Fields)>& record_;
  std::vector<std::uint64_t> room_;   // for records in a node of this depth
  std::vector<std::uint64_t> below_;  // and in all that hangs on it
  std::uint64_t nodes_ = 0;
};

}  // namespace

void walk_tree(RawFile& file, std::uint64_t address, const Tree& tree, const std::string& name,
               const std::function<void(Fields)>& record) {
  constexpr std::uint64_t kBytes = 38;
  const std::string header = file.read(address, kBytes);
  Fields fields(header, name);
  fields.require(fields.take(4) == "BTHD" && fields.take<std::uint8_t>() == 0);
  fields.expect("the type of a B-tree", fields.take<std::uint8_t>(), tree.type);
  fields.expect("the node size of a B-tree", fields.take<std::uint32_t>(), tree.node_bytes);
  fields.expect("the record size of a B-tree", fields.take<std::uint16_t>(), tree.record_bytes);
  const auto depth = fields.take<std::uint16_t>();
  fields.expect("the split mark of a B-tree", fields.take<std::uint8_t>(), kSplit);
  fields.expect("the merge mark of a B-tree", fields.take<std::uint8_t>(), kMerge);
  const auto root = fields.take<std::uint64_t>();
  const auto records = fields.take<std::uint16_t>();
  const auto total = fields.take<std::uint64_t>();
  fields.require((records == 0) == (root == kUndefined) && (records == 0) == (total == 0));
  if (depth > tree.most_depth)
    fields.refuse(fmt::format("has an index of {} levels, expected at most {}", depth + 1, tree.most_depth + 1));
  if (records > 0) TreeWalk(file, tree, name, record).walk(root, depth, records);
}

}  // namespace depthkv::h5
