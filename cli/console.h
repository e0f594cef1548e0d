// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "depthkv/progress.h"

namespace depthkv {

// Shows progress with rate and time left on stderr: one line that is redrawn on a terminal, plain lines now and then
// otherwise; nothing for work under two seconds. After the first Ctrl-C it throws Interrupted at the next unit of work.
Progress console_progress();

std::string duration_text(double seconds);  // "7 s", "1:30 min"

}  // namespace depthkv
