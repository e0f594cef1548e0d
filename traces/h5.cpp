// SPDX-License-Identifier: Apache-2.0
#include "traces/h5.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "depthkv/error.h"
#include "traces/chunk_io.h"
#include "traces/guard.h"

namespace depthkv::h5 {
namespace {

constexpr std::size_t kMostBytes = std::size_t{1} << 34;  // of a dataset that is read as a whole; more is a broken file

hid_t checked(hid_t id, const std::string& name, const char* what) {
  if (id < 0) throw Error(fmt::format("{}: {}", name, what));
  return id;
}

std::string child(const Object& parent, const std::string& name) {
  const char* separator = parent.name.ends_with(".h5") || parent.name.find(": ") == std::string::npos ? ": " : "/";
  return parent.name + separator + name;
}

// IEEE half precision, as h5py knows it.
Handle half_type() {
  Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  H5Tset_fields(type.id(), 15, 10, 5, 0, 10);
  H5Tset_size(type.id(), 2);
  H5Tset_ebias(type.id(), 15);
  return type;
}

Handle type_of(Type type) {
  switch (type) {
    case Type::i32:
      return {H5Tcopy(H5T_STD_I32LE), H5Tclose};
    case Type::i64:
      return {H5Tcopy(H5T_STD_I64LE), H5Tclose};
    case Type::f32:
      return {H5Tcopy(H5T_IEEE_F32LE), H5Tclose};
    case Type::f64:
      return {H5Tcopy(H5T_IEEE_F64LE), H5Tclose};
    case Type::f16:
      break;
  }
  return half_type();
}

const char* type_name(Type type) {
  constexpr const char* kNames[] = {"int32", "int64", "float16", "float32", "float64"};
  return kNames[static_cast<std::size_t>(type)];
}

Handle text_type(std::size_t length) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.id(), std::max<std::size_t>(1, length));
  H5Tset_strpad(type.id(), H5T_STR_NULLPAD);
  H5Tset_cset(type.id(), H5T_CSET_UTF8);
  return type;
}

void reject_zero_bytes(const std::string& text, const std::string& name) {
  if (text.find('\0') != std::string::npos)
    throw Error(fmt::format("{}: the text holds a zero byte, which HDF5 can't store; remove it from the input", name));
}

// Selects a block of the dataset and makes a memory space of the same size.
std::pair<Handle, Handle> select(const Object& dataset, const Block& block) {
  Handle file(checked(H5Dget_space(dataset.id()), dataset.name, "can't be read"), H5Sclose);
  if (H5Sselect_hyperslab(file.id(), H5S_SELECT_SET, block.start.data(), nullptr, block.count.data(), nullptr) < 0 ||
      H5Sselect_valid(file.id()) <= 0) {
    throw Error(fmt::format("{}: rows outside the dataset", dataset.name));
  }
  Handle memory(H5Screate_simple(static_cast<int>(block.count.size()), block.count.data(), nullptr), H5Sclose);
  return {std::move(file), std::move(memory)};
}

void write_scalar_attribute(const Object& object, const std::string& name, const Handle& type, const void* data) {
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const std::string full = fmt::format("{} attribute {}", object.name, name);
  const Handle attribute(checked(H5Acreate2(object.id(), name.c_str(), type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT),
                                 full, "can't be made"),
                         H5Aclose);
  if (H5Awrite(attribute.id(), type.id(), data) < 0) throw Error(fmt::format("{}: can't be written", full));
}

void expect_link(const Object& parent, const std::string& name, const std::string& full, const char* what) {
  if (!has(parent, name)) throw Error(fmt::format("{}: no such {}; the file is not a trace or is damaged", full, what));
  check_link(parent, name, full);
}

Extent expect_rank(const Object& dataset, std::size_t rank) {
  Extent extent = extent_of(dataset);
  if (extent.size() != rank)
    throw Error(fmt::format("{}: has {} dimensions, expected {}; the file is not a trace or is damaged", dataset.name,
                            extent.size(), rank));
  return extent;
}

// Whole bytes, as everybody stores numbers; HDF5 also knows numbers of 3 bits at an offset of 7.
bool is_plain_integer(const Handle& type) {
  const std::size_t bytes = H5Tget_size(type.id());
  return H5Tget_class(type.id()) == H5T_INTEGER && bytes <= sizeof(std::int64_t) &&
         H5Tget_precision(type.id()) == 8 * bytes;
}

template <class T>
T number_attribute(const Object& object, const std::string& name, hid_t memory, bool whole) {
  const Object attribute = open_attribute(object, name);
  const Handle type(H5Aget_type(attribute.id()), H5Tclose);
  T value{};
  const bool fits = is_plain_integer(type) || (!whole && (H5Tequal(type.id(), type_of(Type::f64).id()) > 0 ||
                                                          H5Tequal(type.id(), type_of(Type::f32).id()) > 0));
  if (!fits || H5Aread(attribute.id(), memory, &value) < 0) {
    throw Error(fmt::format("{}: expected a {}; the file is not a trace or is damaged", attribute.name,
                            whole ? "whole number" : "number"));
  }
  return value;
}

}  // namespace

std::unique_lock<std::recursive_mutex> lock() {
  static std::recursive_mutex mutex;
  std::unique_lock held(mutex);
  // HDF5 can't close a file that it failed to write (a full disk), and crashes over it when the process ends. Whatever
  // is to last has been closed by then.
  static const bool no_clean_up = H5dont_atexit() >= 0;
  // Errors come out as exceptions; the library's own report, set for each thread, would go to stderr.
  thread_local const bool quiet = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  (void)no_clean_up;
  (void)quiet;
  return held;
}

Handle creation(hid_t kind) {
  Handle properties(H5Pcreate(kind), H5Pclose);
  H5Pset_obj_track_times(properties.id(), false);
  return properties;
}

Object create_file(const std::filesystem::path& file) {
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_libver_bounds(access.id(), H5F_LIBVER_V18, H5F_LIBVER_V110);
  H5Pset_file_locking(access.id(), false, true);
  const hid_t id = H5Fcreate(file.c_str(), H5F_ACC_TRUNC, creation(H5P_FILE_CREATE).id(), access.id());
  return {Handle(checked(id, file.string(), "can't be made; is the folder there and writable, and the disk not full?"),
                 H5Fclose),
          file.string()};
}

Object open_file(const std::filesystem::path& file) {
  if (!std::filesystem::is_regular_file(file)) throw Error(fmt::format("{}: no such file", file.string()));
  check_superblock(file);
  // Finished files never change, so reading needs no lock, which some file systems don't have.
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(access.id(), false, true);
  const hid_t id = H5Fopen(file.c_str(), H5F_ACC_RDONLY, access.id());
  return {Handle(checked(id, file.string(), "not an HDF5 file, or cut short; record it again"), H5Fclose),
          file.string()};
}

void flush(const Object& file) {
  if (H5Fflush(file.id(), H5F_SCOPE_GLOBAL) < 0)
    throw Error(fmt::format("{}: can't be written; is the disk full?", file.name));
}

Object create_group(const Object& parent, const std::string& name) {
  const std::string full = child(parent, name);
  return {
      Handle(checked(H5Gcreate2(parent.id(), name.c_str(), H5P_DEFAULT, creation(H5P_GROUP_CREATE).id(), H5P_DEFAULT),
                     full, "can't be made"),
             H5Gclose),
      full};
}

Object open_group(const Object& parent, const std::string& name) {
  const std::string full = child(parent, name);
  expect_link(parent, name, full, "group");
  return {
      Handle(checked(H5Gopen2(parent.id(), name.c_str(), H5P_DEFAULT), full, "isn't a group, or is damaged"), H5Gclose),
      full};
}

bool has(const Object& parent, const std::string& name) {
  return H5Lexists(parent.id(), name.c_str(), H5P_DEFAULT) > 0;
}

void link_external(const Object& parent, const std::string& name, const std::string& file, const std::string& path) {
  if (H5Lcreate_external(file.c_str(), path.c_str(), parent.id(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT) < 0)
    throw Error(fmt::format("{}: can't link to {}", child(parent, name), file));
}

std::vector<std::pair<std::string, std::string>> external_links(const Object& group) {
  std::vector<std::pair<std::string, std::string>> links;
  const auto add = [](hid_t id, const char* name, const H5L_info_t* info, void* list) -> herr_t {
    if (info->type != H5L_TYPE_EXTERNAL) return 0;
    std::vector<char> value(info->u.val_size);
    const char* file = nullptr;
    if (H5Lget_val(id, name, value.data(), value.size(), H5P_DEFAULT) < 0 ||
        H5Lunpack_elink_val(value.data(), value.size(), nullptr, &file, nullptr) < 0)
      return -1;
    static_cast<decltype(links)*>(list)->emplace_back(name, file);
    return 0;
  };
  if (H5Literate(group.id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &links) < 0)
    throw Error(fmt::format("{}: links can't be read; the file is damaged", group.name));
  return links;
}

Object create_dataset(const Object& parent, const std::string& name, Type type, const Extent& extent) {
  const Handle space(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), H5Sclose);
  return create_dataset(parent, name, type, space, creation(H5P_DATASET_CREATE));
}

Object create_dataset(const Object& parent, const std::string& name, Type type, const Handle& space,
                      const Handle& create) {
  const std::string full = child(parent, name);
  const Handle kind = type_of(type);
  const hid_t id = H5Dcreate2(parent.id(), name.c_str(), kind.id(), space.id(), H5P_DEFAULT, create.id(), H5P_DEFAULT);
  return {Handle(checked(id, full, "can't be made"), H5Dclose), full};
}

Object open_dataset(const Object& parent, const std::string& name) {
  const std::string full = child(parent, name);
  expect_link(parent, name, full, "dataset");
  const hid_t id = H5Dopen2(parent.id(), name.c_str(), H5P_DEFAULT);
  Object dataset{Handle(checked(id, full, "isn't a dataset, or is damaged"), H5Dclose), full};
  check_storage(dataset);
  return dataset;
}

Extent extent_of(const Object& dataset) {
  const Handle space(checked(H5Dget_space(dataset.id()), dataset.name, "can't be read"), H5Sclose);
  Extent extent(static_cast<std::size_t>(std::max(0, H5Sget_simple_extent_ndims(space.id()))));
  if (!extent.empty()) H5Sget_simple_extent_dims(space.id(), extent.data(), nullptr);
  return extent;
}

hsize_t stored_bytes(const Object& dataset) { return H5Dget_storage_size(dataset.id()); }

void resize(const Object& dataset, const Extent& extent) {
  if (H5Dset_extent(dataset.id(), extent.data()) < 0) throw Error(fmt::format("{}: can't be resized", dataset.name));
}

Extent check_dataset(const Object& dataset, Type type, std::size_t rank) {
  const Handle found(checked(H5Dget_type(dataset.id()), dataset.name, "can't be read"), H5Tclose);
  if (H5Tequal(found.id(), type_of(type).id()) <= 0)
    throw Error(fmt::format("{}: expected values of type {}; the file is not a trace or is damaged", dataset.name,
                            type_name(type)));
  return expect_rank(dataset, rank);
}

Extent check_integers(const Object& dataset, std::size_t rank) {
  const Handle found(checked(H5Dget_type(dataset.id()), dataset.name, "can't be read"), H5Tclose);
  const Extent extent = extent_of(dataset);
  if (std::find(extent.begin(), extent.end(), 0U) != extent.end()) return Extent(rank, 0);
  if (!is_plain_integer(found))
    throw Error(fmt::format("{}: expected whole numbers; the file is not a trace or is damaged", dataset.name));
  return expect_rank(dataset, rank);
}

void expect_extent(const Object& dataset, const Extent& found, const Extent& expected) {
  if (found != expected) {
    throw Error(fmt::format("{}: has the shape [{}], expected [{}]; the file is not a trace or is damaged",
                            dataset.name, fmt::join(found, ", "), fmt::join(expected, ", ")));
  }
}

void write(const Object& dataset, Type type, const Block& block, const void* data) {
  if (std::find(block.count.begin(), block.count.end(), 0U) != block.count.end()) return;
  const auto [file, memory] = select(dataset, block);
  if (H5Dwrite(dataset.id(), type_of(type).id(), memory.id(), file.id(), H5P_DEFAULT, data) < 0) {
    throw Error(fmt::format("{}: can't be written; is the disk full?", dataset.name));
  }
}

std::size_t width_of(Type type) {
  constexpr std::size_t kWidths[] = {4, 8, 2, 4, 8};
  return kWidths[static_cast<std::size_t>(type)];
}

// Chunks hold values of the dataset's own type, which for whole numbers may be another than the one asked for.
void read_converted(const Object& dataset, const Chunks& chunks, Type type, const Block& block, void* data) {
  const Handle stored(checked(H5Dget_type(dataset.id()), dataset.name, "can't be read"), H5Tclose);
  const Handle wanted = type_of(type);
  if (H5Tequal(stored.id(), wanted.id()) > 0) return read_chunks(dataset, chunks, width_of(type), block, data);
  const std::size_t width = H5Tget_size(stored.id());
  std::size_t count = 1;
  for (const hsize_t n : block.count) count *= n;
  std::vector<std::byte> values(count * std::max(width, width_of(type)));
  read_chunks(dataset, chunks, width, block, values.data());
  if (H5Tconvert(stored.id(), wanted.id(), count, values.data(), nullptr, H5P_DEFAULT) < 0)
    throw Error(fmt::format("{}: expected values of type {}; the file is not a trace or is damaged", dataset.name,
                            type_name(type)));
  std::copy_n(values.begin(), count * width_of(type), static_cast<std::byte*>(data));
}

void read(const Object& dataset, Type type, const Block& block, void* data) {
  if (std::find(block.count.begin(), block.count.end(), 0U) != block.count.end()) return;
  const auto [file, memory] = select(dataset, block);
  if (const std::optional<Chunks> chunks = chunks_of(dataset))
    return read_converted(dataset, *chunks, type, block, data);
  if (H5Dread(dataset.id(), type_of(type).id(), memory.id(), file.id(), H5P_DEFAULT, data) < 0) {
    throw Error(fmt::format("{}: can't be read; the file is damaged or its disk is", dataset.name));
  }
}

WrittenText write_text(const Object& parent, const std::string& name, const std::vector<std::string>& texts,
                       bool scalar) {
  const std::string full = child(parent, name);
  std::size_t length = 1;
  for (const std::string& text : texts) {
    reject_zero_bytes(text, full);
    length = std::max(length, text.size());
  }
  const Handle type = text_type(length);
  const hsize_t count = texts.size();
  const Handle space(scalar ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &count, nullptr), H5Sclose);
  Handle dataset(checked(H5Dcreate2(parent.id(), name.c_str(), type.id(), space.id(), H5P_DEFAULT,
                                    creation(H5P_DATASET_CREATE).id(), H5P_DEFAULT),
                         full, "can't be made"),
                 H5Dclose);
  std::string padded;
  for (const std::string& text : texts) padded += text + std::string(length - text.size(), '\0');
  if (!texts.empty() && H5Dwrite(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()) < 0) {
    throw Error(fmt::format("{}: can't be written; is the disk full?", full));
  }
  return {{std::move(dataset), full}, std::move(padded)};
}

std::vector<std::byte> read_bytes(const Object& dataset) {
  const Handle type(checked(H5Dget_type(dataset.id()), dataset.name, "can't be read"), H5Tclose);
  const std::size_t width = H5Tget_size(type.id());
  const Extent extent = extent_of(dataset);
  std::size_t count = 1;
  for (const hsize_t n : extent) {
    if (n > kMostBytes / width / std::max<std::size_t>(1, count))
      throw Error(fmt::format("{}: more than {} bytes; the file is damaged", dataset.name, kMostBytes));
    count *= n;
  }
  std::vector<std::byte> bytes(count * width);
  if (bytes.empty()) return bytes;
  if (const std::optional<Chunks> chunks = chunks_of(dataset)) {
    read_chunks(dataset, *chunks, width, {Extent(extent.size(), 0), extent}, bytes.data());
  } else if (H5Tdetect_class(type.id(), H5T_VLEN) != 0 || H5Tis_variable_str(type.id()) != 0 ||
             H5Dread(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()) < 0) {
    throw Error(fmt::format("{}: can't be read; the file is damaged or its disk is", dataset.name));
  }
  return bytes;
}

Object open_attribute(const Object& object, const std::string& name) {
  const std::string full = fmt::format("{} attribute {}", object.name, name);
  if (H5Aexists(object.id(), name.c_str()) <= 0)
    throw Error(fmt::format("{} is missing; the file is not a trace or is damaged", full));
  Object attribute{Handle(checked(H5Aopen(object.id(), name.c_str(), H5P_DEFAULT), full, "can't be opened"), H5Aclose),
                   full};
  const Handle type(H5Aget_type(attribute.id()), H5Tclose);
  if (type.id() < 0 || H5Tcommitted(type.id()) != 0)
    throw Error(fmt::format("{}: has a committed datatype, expected a plain one", full));
  const Handle space(checked(H5Aget_space(attribute.id()), full, "can't be read"), H5Sclose);
  if (H5Sget_simple_extent_npoints(space.id()) != 1)
    throw Error(fmt::format("{}: expected a single value; the file is damaged", full));
  if (H5Aget_storage_size(attribute.id()) < stored_size(type))
    throw Error(fmt::format("{}: holds less than its type says; the file is damaged", full));
  return attribute;
}

void write_attribute(const Object& object, const std::string& name, const std::string& text) {
  reject_zero_bytes(text, object.name);
  const std::string padded = text.empty() ? std::string(1, '\0') : text;
  write_scalar_attribute(object, name, text_type(text.size()), padded.data());
}

void write_attribute(const Object& object, const std::string& name, std::int64_t value) {
  write_scalar_attribute(object, name, type_of(Type::i64), &value);
}

void write_attribute(const Object& object, const std::string& name, double value) {
  write_scalar_attribute(object, name, type_of(Type::f64), &value);
}

bool has_attribute(const Object& object, const std::string& name) {
  return checked(H5Aexists(object.id(), name.c_str()), object.name, "can't be read") > 0;
}

std::int64_t integer_attribute(const Object& object, const std::string& name) {
  return number_attribute<std::int64_t>(object, name, H5T_NATIVE_INT64, true);
}

double real_attribute(const Object& object, const std::string& name) {
  return number_attribute<double>(object, name, H5T_NATIVE_DOUBLE, false);
}

}  // namespace depthkv::h5
