// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace depthkv {

// Version of the library that is linked: "0.1.0". Every result row carries it.
extern const char* const kBuild;

}  // namespace depthkv
