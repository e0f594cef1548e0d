// SPDX-License-Identifier: Apache-2.0
// One maker per scorer, each in a file of its name. Seen by registry.cpp only.
#pragma once
#include "depthkv/policy.h"

namespace depthkv {

Scorer make_cake(Params& params);
Scorer make_defensive(Params& params);
Scorer make_dropkv(Params& params);
Scorer make_finch(Params& params);
Scorer make_h2o(Params& params);
Scorer make_keyformer(Params& params);
Scorer make_knorm(Params& params);
Scorer make_lava(Params& params);
Scorer make_nacl(Params& params);
Scorer make_observed(Params& params);
Scorer make_oracle(Params& params);
Scorer make_pyramidinfer(Params& params);
Scorer make_random(Params& params);
Scorer make_scissorhands(Params& params);
Scorer make_sink_recent(Params& params);
Scorer make_snapkv(Params& params);
Scorer make_tova(Params& params);
Scorer make_vatp(Params& params);

}  // namespace depthkv
