// SPDX-License-Identifier: Apache-2.0
#include "depthkv/version.h"

namespace depthkv {

const char* const kBuild = DEPTHKV_VERSION;

}  // namespace depthkv
