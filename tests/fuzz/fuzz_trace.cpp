// SPDX-License-Identifier: Apache-2.0
// HDF5 files fall apart at the first byte that is missing, and most of their metadata carries checksums. So most
// mutations here overwrite bytes where they are and then repair the checksum of the block they hit.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string_view>

#include "fuzz/harness.h"

extern "C" {
std::uint32_t H5_checksum_metadata(const void* data, std::size_t length, std::uint32_t initial);  // libhdf5's own
std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);
}

namespace {

constexpr std::array<std::string_view, 13> kSignatures{"\x89HDF", "OHDR", "OCHK", "FRHP", "FHDB", "FHIB", "BTHD",
                                                       "BTIN",    "BTLF", "EAHD", "FAHD", "EAIB", "FADB"};
constexpr std::size_t kLongestBlock = 1024;
constexpr std::uint64_t kNumbers[] = {0,          1,           2,          7,          0x7f,
                                      0x80,       0xff,        0xffff,     0x7fffffff, 0x80000000,
                                      0xffffffff, 0x100000000, 1ULL << 62, 1ULL << 63, ~0ULL};

// A block of metadata: its checksum lies at its end. Empty: none, or one whose checksum is wrong already.
struct Block {
  std::size_t begin = 0;
  std::size_t end = 0;
};

bool begins_block(std::span<const std::uint8_t> data, std::size_t at) {
  return at + 4 <= data.size() && std::any_of(kSignatures.begin(), kSignatures.end(), [&](std::string_view signature) {
           return std::memcmp(data.data() + at, signature.data(), 4) == 0;
         });
}

Block block_around(std::span<const std::uint8_t> data, std::size_t at) {
  std::size_t begin = at;
  while (!begins_block(data, begin)) {
    if (begin == 0 || at - begin == kLongestBlock) return {};
    --begin;
  }
  for (std::size_t end = std::max(begin + 8, at); end + 4 <= data.size() && end - begin < kLongestBlock; ++end) {
    std::uint32_t stored = 0;
    std::memcpy(&stored, data.data() + end, 4);
    if (stored == H5_checksum_metadata(data.data() + begin, end - begin, 0)) return {begin, end};
  }
  return {};
}

void overwrite(std::span<std::uint8_t> data, std::size_t at, std::minstd_rand& random) {
  const std::size_t width = std::min<std::size_t>(std::size_t{1} << random() % 4, data.size() - at);
  std::uint64_t value = 0;
  std::memcpy(&value, data.data() + at, width);
  switch (random() % 5) {
    case 0:
      value ^= 1ULL << random() % (8 * width);
      break;
    case 1:
      value = kNumbers[random() % std::size(kNumbers)];
      break;
    case 2:
      value += random() % 33 - 16ULL;
      break;
    case 3:  // another part of the file: addresses that exist, of something else
      std::memcpy(&value, data.data() + random() % (data.size() - width + 1), width);
      break;
    default:
      value = random() % (2 * data.size());
  }
  std::memcpy(data.data() + at, &value, width);
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed) {
  std::minstd_rand random(seed);
  if (size < 64 || random() % 16 == 0) return LLVMFuzzerMutate(data, size, most);
  const std::span bytes(data, size);
  for (unsigned count = 1 + random() % 4; count > 0; --count) {
    std::size_t at = random() % size;
    // Long runs of zeros are room that nobody uses: look for something else a few times.
    for (int i = 0; i < 8 && bytes[at] == 0; ++i) at = random() % size;
    const Block block = block_around(bytes, at);
    overwrite(bytes, at, random);
    if (block.end == 0) continue;
    const std::uint32_t checksum = H5_checksum_metadata(data + block.begin, block.end - block.begin, 0);
    std::memcpy(data + block.end, &checksum, sizeof checksum);
  }
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  depthkv::fuzz::read_trace({data, size});
  return 0;
}
