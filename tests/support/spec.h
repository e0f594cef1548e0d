// SPDX-License-Identifier: Apache-2.0
// Parts of policies, short to write.
#pragma once
#include <string>

#include "depthkv/policy.h"

namespace depthkv {

inline Value whole(std::int64_t x) { return x; }
inline Value text(const char* x) { return std::string(x); }

inline const PolicySpec kToken{"token", {}, ""};

}  // namespace depthkv
