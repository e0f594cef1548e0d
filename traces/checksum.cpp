// SPDX-License-Identifier: Apache-2.0
#include "traces/checksum.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <new>

namespace depthkv {

Checksum::Checksum() : state_(XXH64_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH64_reset(state_.get(), 0);
}

void Checksum::add(std::span<const std::byte> bytes) { XXH64_update(state_.get(), bytes.data(), bytes.size()); }

std::string Checksum::text() const { return fmt::format("{:016x}", XXH64_digest(state_.get())); }

void Checksum::Free::operator()(XXH64_state_s* state) const { XXH64_freeState(state); }

}  // namespace depthkv
