// SPDX-License-Identifier: Apache-2.0
// A file as bytes, and fields in them, with every place and length checked. Fields lie little-endian in the file, as
// in the memory of every machine that we build for. Private to traces/.
#pragma once
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>

#include "depthkv/error.h"

namespace depthkv::h5 {

static_assert(std::endian::native == std::endian::little);

constexpr std::uint64_t kUndefined = std::numeric_limits<std::uint64_t>::max();  // an address of nothing

// A window on bytes that is read from front to back; reading past its end is an Error that says what was read.
class Fields {
 public:
  Fields(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  std::size_t left() const { return bytes_.size(); }
  std::string_view take(std::uint64_t count) {
    require(count <= bytes_.size());
    const std::string_view taken = bytes_.substr(0, static_cast<std::size_t>(count));
    bytes_.remove_prefix(taken.size());
    return taken;
  }
  template <class T>
  T take() {
    T value{};
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  // A number of 1 to 8 bytes.
  std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    require(bytes >= 1 && bytes <= sizeof value);
    std::memcpy(&value, take(bytes).data(), bytes);
    return value;
  }
  Fields within(std::string_view part) const { return {part, name_}; }
  void require(bool sound) const {
    if (!sound) refuse("its header makes no sense; the file is not a trace or is damaged");
  }
  // For numbers that have one sound value.
  void expect(std::string_view what, std::uint64_t found, std::uint64_t expected) const {
    if (found != expected) refuse(fmt::format("{} is {}, expected {}; the file is damaged", what, found, expected));
  }
  [[noreturn]] void refuse(std::string_view why) const { throw Error(fmt::format("{}: {}", name_, why)); }

 private:
  std::string_view bytes_;
  const std::string& name_;
};

class RawFile {
 public:
  explicit RawFile(const std::filesystem::path& path) : stream_(path, std::ios::binary), size_(size_of(path)) {}

  std::uint64_t size() const { return size_; }
  bool holds(std::uint64_t address, std::uint64_t count) const { return address <= size_ && count <= size_ - address; }

  // Empty when the file doesn't hold these bytes.
  std::string read(std::uint64_t address, std::uint64_t count) {
    if (!holds(address, count)) return "";
    std::string bytes(static_cast<std::size_t>(count), '\0');
    stream_.clear();
    stream_.seekg(static_cast<std::streamoff>(address));
    return stream_.read(bytes.data(), static_cast<std::streamsize>(count)) ? bytes : "";
  }

 private:
  static std::uint64_t size_of(const std::filesystem::path& path) {
    std::error_code failure;
    const std::uintmax_t size = std::filesystem::file_size(path, failure);
    if (failure) throw Error(fmt::format("{}: can't be read ({}); was it removed?", path.string(), failure.message()));
    return size;
  }

  std::ifstream stream_;
  std::uint64_t size_ = 0;
};

}  // namespace depthkv::h5
