// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "depthkv/tasks.h"

namespace depthkv {

// Removes tokens of the context until the prompt keeps to the limit; does nothing if it does. Cuts only where tokens
// and code points both end, so that somewhat more may go. Text, offsets, segments and evidence follow; evidence that
// was cut away vanishes. `who` names the sample in messages. Throws InputError as make_prompt() does.
void truncate_context(Prompt& prompt, const Truncation& truncation, const std::string& who);

}  // namespace depthkv
