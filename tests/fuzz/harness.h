// SPDX-License-Identifier: Apache-2.0
// What is fuzzed: bytes that nobody vouches for, read as a trace or a task file. Nothing but Error may come out, and
// nothing may crash, hang or overflow. Returns whether the bytes were read without an Error.
#pragma once
#include <span>

namespace depthkv::fuzz {

bool read_trace(std::span<const unsigned char> bytes);  // of a sample: every channel of every layer; or a set's weights
bool read_task_file(std::span<const unsigned char> bytes);  // read_tasks()

}  // namespace depthkv::fuzz
