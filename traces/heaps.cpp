// SPDX-License-Identifier: Apache-2.0
#include "traces/heaps.h"

#include <bit>
#include <functional>
#include <vector>

#include "traces/messages.h"
#include "traces/trees.h"

namespace depthkv::h5 {
namespace {

// What HDF5 lets nobody choose, so that a file with other numbers is damaged.
struct Parameters {
  std::uint16_t id_bytes;  // of a heap's identifier: kind, offset, length
  std::uint64_t first_block;
  std::uint16_t offset_bits;
  std::uint8_t names;  // types of the indices
  std::uint8_t order;
  std::uint64_t name_record;
  std::uint64_t order_record;
  std::uint64_t id_at;  // in a record of the index of names
};
constexpr Parameters kLinks{.id_bytes = 7,
                            .first_block = 512,
                            .offset_bits = 32,
                            .names = 5,
                            .order = 6,
                            .name_record = 11,
                            .order_record = 15,
                            .id_at = 4};
constexpr Parameters kAttributes{.id_bytes = 8,
                                 .first_block = 1024,
                                 .offset_bits = 40,
                                 .names = 8,
                                 .order = 9,
                                 .name_record = 17,
                                 .order_record = 13,
                                 .id_at = 0};
constexpr std::uint64_t kLargestBlock = 65536;
constexpr std::uint32_t kLongestObject = 4096;
constexpr std::uint16_t kColumns = 4;  // blocks of one size

const Parameters& parameters(Dense what) { return what == Dense::links ? kLinks : kAttributes; }

// A fractal heap of blocks that hang on one table: half a MiB. libhdf5 finds what lies in it by offset and length.
class FractalHeap {
 public:
  FractalHeap(RawFile& file, std::uint64_t address, const Parameters& fixed, const std::string& name)
      : file_(file), address_(address), fixed_(fixed), name_(name) {
    constexpr std::uint64_t kBytes = 146;
    const std::string header = file.read(address, kBytes);
    Fields fields(header, name);
    fields.require(fields.take(4) == "FRHP" && fields.take<std::uint8_t>() == 0);
    fields.expect("the width of a heap's identifiers", fields.take<std::uint16_t>(), fixed.id_bytes);
    fields.expect("the length of a heap's filters", fields.take<std::uint16_t>(), 0);
    const auto flags = fields.take<std::uint8_t>();
    checked_ = (flags & 2U) != 0;
    fields.expect("the longest object of a heap", fields.take<std::uint32_t>(), kLongestObject);
    fields.take(12 * sizeof(std::uint64_t));  // counters
    fields.expect("the columns of a heap", fields.take<std::uint16_t>(), kColumns);
    fields.expect("the first block of a heap", fields.take<std::uint64_t>(), fixed.first_block);
    fields.expect("the largest block of a heap", fields.take<std::uint64_t>(), kLargestBlock);
    fields.expect("the address bits of a heap", fields.take<std::uint16_t>(), fixed.offset_bits);
    fields.expect("the first rows of a heap", fields.take<std::uint16_t>(), 1);
    const auto root = fields.take<std::uint64_t>();
    const auto rows = fields.take<std::uint16_t>();
    if (root == kUndefined) return;
    if (rows == 0) {
      add_block(root, 0, fixed.first_block);
    } else {
      add_table(root, rows);
    }
  }

  // The message that an identifier stands for.
  std::string object(Fields id) {
    constexpr std::uint8_t kHuge = 0x10;  // outside the heap's blocks
    const auto kind = id.take<std::uint8_t>();
    if (kind == kHuge)
      id.refuse(fmt::format("has an attribute of more than {} bytes among many; keep it in a dataset", kLongestObject));
    id.expect("the kind of an identifier in a heap", kind, 0);
    const std::uint64_t offset = id.number(offset_bytes());
    const std::uint64_t length = id.number(id.left());
    for (const Block& block : blocks_) {
      if (offset < block.offset || offset - block.offset >= block.size) continue;
      const std::uint64_t at = offset - block.offset;
      id.require(at >= block_frame() && length > 0 && length <= kLongestObject && length <= block.size - at);
      return file_.read(block.address + at, length);
    }
    id.refuse("an attribute or link lies outside its heap; the file is damaged");
  }

 private:
  struct Block {
    std::uint64_t address;
    std::uint64_t offset;
    std::uint64_t size;
  };

  std::size_t offset_bytes() const { return fixed_.offset_bits / 8U; }
  std::uint64_t block_frame() const { return 13 + offset_bytes() + (checked_ ? 4 : 0); }

  Fields open(const std::string& bytes, const char* signature, std::uint64_t offset) {
    Fields fields(bytes, name_);
    fields.require(fields.take(4) == signature && fields.take<std::uint8_t>() == 0);
    fields.expect("the owner of a heap's block", fields.take<std::uint64_t>(), address_);
    fields.expect("the offset of a heap's block", fields.number(offset_bytes()), offset);
    return fields;
  }

  void add_block(std::uint64_t address, std::uint64_t offset, std::uint64_t size) {
    open(file_.read(address, block_frame()), "FHDB", offset);
    Fields(std::string_view(), name_).require(file_.holds(address, size));
    blocks_.push_back({address, offset, size});
  }

  void add_table(std::uint64_t address, std::uint64_t rows) {
    const auto most_rows = static_cast<std::uint64_t>(std::bit_width(kLargestBlock / fixed_.first_block)) + 1;
    const std::string bytes = file_.read(address, 13 + offset_bytes() + rows * kColumns * sizeof(std::uint64_t));
    Fields fields = open(bytes, "FHIB", 0);
    if (rows > most_rows)
      fields.refuse(fmt::format("its attributes or links take {} rows of a heap, expected at most {} (half a MiB)",
                                rows, most_rows));
    std::uint64_t offset = 0;
    for (std::uint64_t row = 0; row < rows; ++row) {
      const std::uint64_t size = fixed_.first_block << (row == 0 ? 0 : row - 1);
      for (int column = 0; column < kColumns; ++column, offset += size) {
        const auto block = fields.take<std::uint64_t>();
        if (block != kUndefined) add_block(block, offset, size);
      }
    }
  }

  RawFile& file_;
  std::uint64_t address_;
  const Parameters& fixed_;
  const std::string& name_;
  bool checked_ = false;  // blocks have checksums
  std::vector<Block> blocks_;
};

}  // namespace

void check_dense(RawFile& file, Dense what, const DenseStorage& storage, const std::string& name) {
  constexpr std::uint64_t kNode = 512;
  constexpr std::uint64_t kDepth = 1;  // two levels of nodes index a thousand links
  constexpr std::uint8_t kShared = 2;
  const Fields nothing(std::string_view(), name);
  nothing.require((storage.heap == kUndefined) == (storage.names == kUndefined));
  nothing.require(storage.order == kUndefined || storage.heap != kUndefined);
  if (storage.heap == kUndefined) return;
  const Parameters& fixed = parameters(what);
  FractalHeap heap(file, storage.heap, fixed, name);
  const Tree names{fixed.names, kNode, fixed.name_record, kDepth};
  walk_tree(file, storage.names, names, name, [&](Fields record) {
    record.take(fixed.id_at);
    const std::string message = heap.object(record.within(record.take(fixed.id_bytes)));
    if (what == Dense::links) return check_link(record.within(message));
    // libhdf5 looks for shared attributes in a heap that the file may not have.
    record.require((record.take<std::uint8_t>() & kShared) == 0);
    check_attribute(record.within(message));
  });
  if (storage.order == kUndefined) return;
  walk_tree(file, storage.order, {fixed.order, kNode, fixed.order_record, kDepth}, name, [](Fields) {});
}

namespace {

// The data of a local heap.
std::string check_local_heap(RawFile& file, std::uint64_t address, const std::string& name) {
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
  return file.read(data, size);
}

void check_entries(RawFile& file, std::uint64_t node, const std::function<void(std::uint64_t)>& check_name,
                   const std::string& name) {
  constexpr std::uint64_t kEntry = 40;
  constexpr std::uint32_t kSoftLink = 2;
  const std::string header = file.read(node, 8);
  Fields fields(header, name);
  fields.require(fields.take(4) == "SNOD" && fields.take<std::uint8_t>() == 1);
  fields.take(1);
  const std::uint64_t count = fields.take<std::uint16_t>();
  const std::string entries = file.read(node + header.size(), count * kEntry);
  for (Fields list = fields.within(entries); list.left() > 0;) {
    Fields entry = fields.within(list.take(kEntry));
    check_name(entry.take<std::uint64_t>());
    entry.take(8);  // where the object is, or nowhere for a soft link
    const auto cached = entry.take<std::uint32_t>();
    entry.take(4);
    entry.require(cached <= kSoftLink);
    if (cached == kSoftLink) check_name(entry.take<std::uint32_t>());
  }
  fields.require(entries.size() == count * kEntry);
}

}  // namespace

void check_old_group(RawFile& file, std::uint64_t tree, std::uint64_t heap, const std::string& name) {
  const std::string names = check_local_heap(file, heap, name);
  // libhdf5 compares names up to the zero byte at their ends.
  const auto check_name = [&](std::uint64_t at) {
    if (at >= names.size() || names.find('\0', at) == std::string::npos)
      Fields(std::string_view(), name).refuse("a name lies outside its group's heap; the file is damaged");
  };
  const OldTree links{
      .type = 0,
      .key_bytes = 8,
      .check_key = [&](Fields key) { check_name(key.take<std::uint64_t>()); },
      .check_child = [&](Fields, std::uint64_t child) { check_entries(file, child, check_name, name); }};
  walk_old_tree(file, tree, links, name);
}

}  // namespace depthkv::h5
