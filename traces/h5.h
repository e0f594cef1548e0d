// SPDX-License-Identifier: Apache-2.0
// HDF5's C API, each call that we use wrapped and checked once. Private to traces/. Every failure is an Error that
// names file and object. The library isn't re-entrant: hold lock() around every use.
#pragma once
#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace depthkv::h5 {

// Held by every public function of traces/ while it uses HDF5.
std::unique_lock<std::recursive_mutex> lock();

// Closes what it holds. Closing can't fail usefully, so a failure is ignored; flush() first where it matters.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  hid_t id() const { return id_; }

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

// A file, group or dataset and what to call it in messages ("needle.h5: layers/3/keys").
struct Object {
  Handle handle;
  std::string name;

  hid_t id() const { return handle.id(); }
};

using Extent = std::vector<hsize_t>;

enum class Type { i32, i64, f16, f32, f64 };

// Properties of a new object of a class (H5P_DATASET_CREATE, ...). Without times, so that the same sample gives the
// same bytes.
Handle creation(hid_t kind);

// Replaces what is there. HDF5's own file locks are left alone: PartialFile holds a better one.
Object create_file(const std::filesystem::path& file);
Object open_file(const std::filesystem::path& file);  // read-only
void flush(const Object& file);

Object create_group(const Object& parent, const std::string& name);
// `name` is a name and not a path, here and wherever something is opened: each link is looked at on its own.
Object open_group(const Object& parent, const std::string& name);
bool has(const Object& parent, const std::string& name);
std::vector<std::string> names(const Object& group);  // of its links, sorted
// Name in the group and file it leads to, of every external link in it.
std::vector<std::pair<std::string, std::string>> external_links(const Object& group);
void link_external(const Object& parent, const std::string& name, const std::string& file, const std::string& path);

Object create_dataset(const Object& parent, const std::string& name, Type type, const Extent& extent);
// `space` and `create`: extent and properties as HDF5 has them.
Object create_dataset(const Object& parent, const std::string& name, Type type, const Handle& space,
                      const Handle& create);
Object open_dataset(const Object& parent, const std::string& name);
Extent extent_of(const Object& dataset);
hsize_t stored_bytes(const Object& dataset);
std::string codec_of(const Object& dataset);  // "none", or its filters in order: "shuffle+deflate"
void resize(const Object& dataset, const Extent& extent);
// Throws unless the dataset has this type and, where given, this extent.
Extent check_dataset(const Object& dataset, Type type, std::size_t rank);
// The same for whole numbers of any width, which read() converts. An empty list may have any type and shape, because
// Python's has none; the extent returned is then 0.
Extent check_integers(const Object& dataset, std::size_t rank);
void expect_extent(const Object& dataset, const Extent& found, const Extent& expected);

// A block of a dataset, as its own type in memory: std::uint16_t for f16.
struct Block {
  Extent start;
  Extent count;
};
void write(const Object& dataset, Type type, const Block& block, const void* data);
void read(const Object& dataset, Type type, const Block& block, void* data);
std::size_t width_of(Type type);

// All values of a dataset as they are stored, whatever their type.
std::vector<std::byte> read_bytes(const Object& dataset);

// UTF-8, written with a fixed length, padded with zero bytes; read with any.
struct WrittenText {
  Object dataset;
  std::string bytes;  // as stored
};
WrittenText write_text(const Object& parent, const std::string& name, const std::vector<std::string>& texts,
                       bool scalar);
std::vector<std::string> read_texts(const Object& parent, const std::string& name, bool scalar);

Object open_attribute(const Object& object, const std::string& name);  // of a single value
void write_attribute(const Object& object, const std::string& name, const std::string& text);
void write_attribute(const Object& object, const std::string& name, std::int64_t value);
void write_attribute(const Object& object, const std::string& name, double value);
bool has_attribute(const Object& object, const std::string& name);
std::string text_attribute(const Object& object, const std::string& name);
std::int64_t integer_attribute(const Object& object, const std::string& name);
double real_attribute(const Object& object, const std::string& name);

}  // namespace depthkv::h5
