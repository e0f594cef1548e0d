// SPDX-License-Identifier: Apache-2.0
// One maker per structure, each in a file of its name. Seen by registry.cpp only.
#pragma once
#include "depthkv/policy.h"

namespace depthkv {

Structure make_block(Params& params);
Structure make_chunk(Params& params);
Structure make_chunked_prefill(Params& params);
Structure make_critical(Params& params);
Structure make_shared(Params& params);
Structure make_threshold(Params& params);
Structure make_token(Params& params);

}  // namespace depthkv
