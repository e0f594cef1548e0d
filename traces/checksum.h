// SPDX-License-Identifier: Apache-2.0
// The checksum of a dataset's values, as the attribute `checksum` has it (traces/FORMAT.md).
#pragma once
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

struct XXH64_state_s;

namespace depthkv {

class Checksum {
 public:
  Checksum();
  void add(std::span<const std::byte> bytes);
  std::string text() const;  // of all that was added: 16 hexadecimal digits

 private:
  struct Free {
    void operator()(XXH64_state_s* state) const;
  };
  std::unique_ptr<XXH64_state_s, Free> state_;
};

std::string file_checksum(const std::filesystem::path& file);  // of its bytes

}  // namespace depthkv
