// SPDX-License-Identifier: Apache-2.0
#include "traces/checksum.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <fstream>
#include <new>
#include <vector>

#include "depthkv/error.h"

namespace depthkv {

Checksum::Checksum() : state_(XXH64_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH64_reset(state_.get(), 0);
}

void Checksum::add(std::span<const std::byte> bytes) { XXH64_update(state_.get(), bytes.data(), bytes.size()); }

std::string Checksum::text() const { return fmt::format("{:016x}", XXH64_digest(state_.get())); }

void Checksum::Free::operator()(XXH64_state_s* state) const { XXH64_freeState(state); }

std::string file_checksum(const std::filesystem::path& file) {
  constexpr std::size_t kBuffer = std::size_t{1} << 20U;
  std::ifstream stream(file, std::ios::binary);
  Checksum sum;
  std::vector<char> buffer(kBuffer);
  while (stream) {
    stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    sum.add(std::as_bytes(std::span(buffer).first(static_cast<std::size_t>(stream.gcount()))));
  }
  if (!stream.eof()) throw Error(fmt::format("{}: can't be read to its end", file.string()));
  return sum.text();
}

}  // namespace depthkv
