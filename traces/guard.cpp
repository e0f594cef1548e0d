// SPDX-License-Identifier: Apache-2.0
#include "traces/guard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "depthkv/error.h"
#include "traces/codec.h"
#include "traces/heaps.h"
#include "traces/object_header.h"
#include "traces/raw_file.h"

namespace depthkv::h5 {
namespace {

// Bytes of a dataset per byte of its file. Deflate reaches 1032, and attention stores about half of its extent.
constexpr hsize_t kMostExpansion = 2000;

// Fields that matter here, at their places in superblocks of version 0, 1 and 2 or 3 (HDF5 file format, II.A).
struct Superblock {
  std::size_t sizes;   // size of offsets, size of lengths: one byte each
  std::size_t base;    // base address
  std::size_t end;     // end of file address
  std::size_t exotic;  // driver information block, or superblock extension
  std::size_t root;    // header of the root group
};
constexpr std::array<Superblock, 4> kSuperblocks{
    {{13, 24, 40, 48, 64}, {13, 28, 44, 52, 68}, {9, 12, 28, 20, 36}, {9, 12, 28, 20, 36}}};
constexpr std::size_t kLongestSuperblock = 76;  // what is looked at, of any version

std::string filter_name(H5Z_filter_t filter) {
  switch (filter) {
    case H5Z_FILTER_DEFLATE:
      return "deflate";
    case H5Z_FILTER_SHUFFLE:
      return "shuffle";
    case H5Z_FILTER_FLETCHER32:
      return "fletcher32";
    case kZstdFilter:
      return "zstd";
    default:
      return "";
  }
}

// Of a dataset's creation properties.
H5Z_filter_t filter_at(const Handle& creation, int index) {
  unsigned flags = 0;
  unsigned configuration = 0;
  std::size_t values = 0;
  return H5Pget_filter2(creation.id(), static_cast<unsigned>(index), &flags, &values, nullptr, 0, nullptr,
                        &configuration);
}

Handle creation_of(const Object& dataset) {
  Handle creation(H5Dget_create_plist(dataset.id()), H5Pclose);
  if (creation.id() < 0) throw Error(fmt::format("{}: can't be read; the file is damaged", dataset.name));
  return creation;
}

void check_chunk(const Object& dataset, const Handle& creation) {
  std::array<hsize_t, H5S_MAX_RANK> chunk{};
  const int rank = H5Pget_chunk(creation.id(), H5S_MAX_RANK, chunk.data());
  hsize_t elements = 1;
  for (int i = 0; i < rank; ++i) elements *= std::max<hsize_t>(1, chunk[static_cast<std::size_t>(i)]);
  const Handle type(H5Dget_type(dataset.id()), H5Tclose);
  expect_justified(dataset, elements, H5Tget_size(type.id()));
  for (int i = 0; i < H5Pget_nfilters(creation.id()); ++i) {
    const H5Z_filter_t filter = filter_at(creation, i);
    if (filter_name(filter).empty())
      throw Error(
          fmt::format("{}: stored with filter {}, which a trace may not use; write it with zstd, deflate or without",
                      dataset.name, filter));
  }
}

}  // namespace

void check_superblock(const std::filesystem::path& file) {
  constexpr std::string_view kSignature("\x89HDF\r\n\x1a\n", 8);
  RawFile raw(file);
  const std::string bytes = raw.read(0, std::min<std::uint64_t>(raw.size(), kLongestSuperblock));
  if (!bytes.starts_with(kSignature) || bytes.size() < kLongestSuperblock)
    throw Error(fmt::format("{}: not an HDF5 file, or cut short; record it again", file.string()));
  const std::string name = file.string();
  const auto address = [&](std::size_t at) {
    return Fields(std::string_view(bytes).substr(at), name).take<std::uint64_t>();
  };
  const auto version = static_cast<std::uint8_t>(bytes[8]);
  if (version >= kSuperblocks.size())
    throw Error(fmt::format("{}: HDF5 superblock version {}, expected at most 3", name, version));
  const Superblock& at = kSuperblocks[version];
  if (bytes[at.sizes] != 8 || bytes[at.sizes + 1] != 8 || address(at.base) != 0 || address(at.exotic) != kUndefined) {
    throw Error(
        fmt::format("{}: an HDF5 file with a user block, a split storage driver, paged file space or addresses "
                    "that aren't 8 bytes wide; copy it with h5repack into a plain one",
                    name));
  }
  if (address(at.end) > raw.size()) throw Error(fmt::format("{}: cut short; record it again", name));
  check_object_header(file, address(at.root), name);
}

std::filesystem::path path_of(const Object& object) {
  std::string path(static_cast<std::size_t>(std::max<ssize_t>(0, H5Fget_name(object.id(), nullptr, 0))), '\0');
  H5Fget_name(object.id(), path.data(), path.size() + 1);
  return path;
}

void check_link(const Object& parent, const std::string& name, const std::string& full) {
  H5L_info_t info{};
  if (H5Lget_info(parent.id(), name.c_str(), &info, H5P_DEFAULT) < 0)
    throw Error(fmt::format("{}: can't be looked up; the file is damaged", full));
  if (info.type != H5L_TYPE_HARD) {
    throw Error(fmt::format("{}: is {} link, and a sample holds what belongs to it; copy it in with h5repack or h5copy",
                            full, info.type == H5L_TYPE_SOFT ? "a soft" : "an external"));
  }
  check_object_header(path_of(parent), info.u.address, full);
}

void check_storage(const Object& dataset) {
  const Handle type(H5Dget_type(dataset.id()), H5Tclose);
  if (type.id() < 0 || H5Tcommitted(type.id()) != 0)
    throw Error(fmt::format("{}: has a committed datatype, expected a plain one", dataset.name));
  const Handle creation = creation_of(dataset);
  const H5D_layout_t layout = H5Pget_layout(creation.id());
  const Handle space(H5Dget_space(dataset.id()), H5Sclose);
  const hssize_t count = H5Sget_simple_extent_npoints(space.id());
  if (count < 0) throw Error(fmt::format("{}: has no usable shape; the file is damaged", dataset.name));
  expect_justified(dataset, static_cast<hsize_t>(count), H5Tget_size(type.id()));
  // A compact dataset lies in its own header, and libhdf5 reads from there without looking at how much that is.
  if (layout == H5D_COMPACT && H5Dget_storage_size(dataset.id()) / stored_size(type) < static_cast<hsize_t>(count))
    throw Error(fmt::format("{}: holds less than its shape says; the file is damaged", dataset.name));
  if (layout == H5D_CHUNKED) check_chunk(dataset, creation);
}

std::size_t stored_size(const Handle& type) {
  return H5Tis_variable_str(type.id()) > 0 ? kReferenceBytes : std::max<std::size_t>(1, H5Tget_size(type.id()));
}

void expect_justified(const Object& object, hsize_t count, hsize_t element_bytes) {
  const Handle file(H5Iget_file_id(object.id()), H5Fclose);
  hsize_t size = 0;
  if (H5Fget_filesize(file.id(), &size) < 0) throw Error(fmt::format("{}: can't be read", object.name));
  const hsize_t most = std::min(size, std::numeric_limits<hsize_t>::max() / kMostExpansion) * kMostExpansion;
  if (count > most / std::max<hsize_t>(1, element_bytes)) {
    throw Error(fmt::format("{}: claims {} values of {} bytes in a file of {} bytes; the file is damaged", object.name,
                            count, element_bytes, size));
  }
}

std::string codec_of(const Object& dataset) {
  const Handle creation = creation_of(dataset);
  std::string names;
  for (int i = 0; i < H5Pget_nfilters(creation.id()); ++i)
    names += (names.empty() ? "" : "+") + filter_name(filter_at(creation, i));
  return names.empty() ? "none" : names;
}

}  // namespace depthkv::h5
