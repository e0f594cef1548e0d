// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>

#include "depthkv/error.h"

namespace depthkv {

// Called by long work between units: `done` of `total` of a stage, and what is
// being worked on. The library never prints; the command line does, here. May
// throw Interrupted to stop: what is finished stays, the unit at hand is dropped.
using Progress =
    std::function<void(std::string_view stage, std::int64_t done, std::int64_t total, std::string_view what)>;

// For work that nobody watches.
inline const Progress kQuiet = [](std::string_view, std::int64_t, std::int64_t, std::string_view) {};

class Interrupted : public Error {
 public:
  Interrupted() : Error("interrupted; run the same command again to go on from here") {}
};

}  // namespace depthkv
