// SPDX-License-Identifier: Apache-2.0
// Text, of fixed length as DepthKV writes it and of variable length as h5py does. The latter lies in the file's global
// heap; it is fetched here and not by libhdf5, so that lengths that contradict each other are
// an Error (docs/decisions/007-what-a-sample-may-be.md).
#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"
#include "traces/chunk_io.h"
#include "traces/guard.h"
#include "traces/h5.h"
#include "traces/raw_file.h"

namespace depthkv::h5 {
namespace {

// A variable-length value as it lies in the file (HDF5 file format, VII.C): where in the global heap its bytes are.
struct Reference {
  std::uint32_t length = 0;
  std::uint64_t collection = 0;
  std::uint32_t index = 0;
};

// A conversion for libhdf5 from variable-length values to bytes: leaves them as they are.
extern "C" herr_t keep_references(hid_t, hid_t, H5T_cdata_t*, std::size_t, std::size_t, std::size_t, void*, void*,
                                  hid_t) {
  return 0;
}

// The memory type with which a read returns references. Registered once; HDF5 finds it for every variable-length type.
const Handle& reference_type() {
  static const Handle type = [] {
    Handle bytes(H5Tcreate(H5T_OPAQUE, kReferenceBytes), H5Tclose);
    const Handle text(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(text.id(), H5T_VARIABLE);
    H5Tregister(H5T_PERS_SOFT, "depthkv references", text.id(), bytes.id(), keep_references);
    return bytes;
  }();
  return type;
}

// Finds texts in collections of the global heap, with every length checked.
class GlobalHeap {
 public:
  explicit GlobalHeap(const Object& object) : name_(object.name), file_(path_of(object)) {}

  std::string text(const Reference& reference) {
    if (reference.length == 0) return "";
    if (reference.collection != loaded_) load(reference.collection);
    for (Fields objects(collection_, name_); objects.left() >= 16;) {
      const auto index = objects.take<std::uint16_t>();
      objects.take(6);  // reference count, and nothing
      const auto length = objects.take<std::uint64_t>();
      if (index == 0) break;  // the free space at the end
      const std::string_view bytes = objects.take(length);
      if (index == reference.index && reference.length <= length)
        return std::string(bytes.substr(0, reference.length)).c_str();
      objects.take(std::min((8 - bytes.size() % 8) % 8, objects.left()));
    }
    throw Error(fmt::format("{}: its text isn't where the file says; the file is damaged", name_));
  }

 private:
  void load(std::uint64_t address) {
    const std::string head = file_.read(address, 16);
    Fields fields(head, name_);
    fields.require(fields.take(4) == "GCOL" && fields.take<std::uint32_t>() == 1);
    const auto length = fields.take<std::uint64_t>();
    fields.require(length >= 16 && file_.holds(address, length));
    collection_ = file_.read(address + 16, length - 16);
    loaded_ = address;
  }

  const std::string& name_;
  RawFile file_;
  std::uint64_t loaded_ = 0;  // address of collection_; 0 is the superblock's, never a collection's
  std::string collection_;
};

std::vector<std::string> split_fixed(const std::string& padded, std::size_t length, hsize_t count) {
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < count; ++i) texts.emplace_back(std::string(padded, i * length, length).c_str());
  return texts;
}

std::vector<std::string> fetch(const Object& object, const std::string& references, hsize_t count) {
  GlobalHeap heap(object);
  std::vector<std::string> texts;
  std::size_t bytes = 0;
  Fields fields(references, object.name);
  for (std::size_t i = 0; i < count; ++i) {
    const auto length = fields.take<std::uint32_t>();
    const auto collection = fields.take<std::uint64_t>();
    texts.push_back(heap.text({length, collection, fields.take<std::uint32_t>()}));
    bytes += texts.back().size();
    expect_justified(object, bytes, 1);  // many references may name one long text
  }
  return texts;
}

// Reads `count` texts of a dataset or attribute; `read(memory type, buffer)` does HDF5's part.
template <class Read>
std::vector<std::string> read_all(const Object& object, const Handle& type, hsize_t count, Read read) {
  if (H5Tget_class(type.id()) != H5T_STRING)
    throw Error(fmt::format("{}: expected text; the file is not a trace or is damaged", object.name));
  const bool variable = H5Tis_variable_str(type.id()) > 0;
  const std::size_t length = stored_size(type);
  expect_justified(object, count, length);
  std::string bytes(count * length, '\0');
  if (count > 0 && read(variable ? reference_type().id() : type.id(), bytes.data()) < 0)
    throw Error(fmt::format("{}: can't be read; the file is damaged or its disk is", object.name));
  return variable ? fetch(object, bytes, count) : split_fixed(bytes, length, count);
}

}  // namespace

std::vector<std::string> read_texts(const Object& parent, const std::string& name, bool scalar) {
  const Object dataset = open_dataset(parent, name);
  const Extent extent = extent_of(dataset);
  if (extent.size() != (scalar ? 0U : 1U))
    throw Error(
        fmt::format("{}: expected {}; the file is damaged", dataset.name, scalar ? "one text" : "a list of texts"));
  if (!scalar && extent[0] == 0) return {};  // of whatever type: an empty list in Python has none
  const Handle type(H5Dget_type(dataset.id()), H5Tclose);
  return read_all(dataset, type, scalar ? 1 : extent[0], [&](hid_t memory, void* to) -> herr_t {
    if (const std::optional<Chunks> chunks = chunks_of(dataset)) {
      read_chunks(dataset, *chunks, stored_size(type), {Extent(extent.size(), 0), extent}, to);
      return 0;
    }
    return H5Dread(dataset.id(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, to);
  });
}

std::string text_attribute(const Object& object, const std::string& name) {
  const Object attribute = open_attribute(object, name);
  const Handle type(H5Aget_type(attribute.id()), H5Tclose);
  return read_all(attribute, type, 1, [&](hid_t memory, void* to) { return H5Aread(attribute.id(), memory, to); })
      .front();
}

}  // namespace depthkv::h5
