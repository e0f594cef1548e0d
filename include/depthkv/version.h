// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace depthkv {

// Version of the library that is linked: "0.1.0". Every result row carries it.
extern const char* const kBuild;
// A hash of the sources that decide what curves are; another one means that kept curves can't be used.
extern const char* const kSourcesHash;

}  // namespace depthkv
