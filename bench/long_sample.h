// SPDX-License-Identifier: Apache-2.0
// What the benchmarks on a real model share.
#pragma once
#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "depthkv/record.h"
#include "tracer/llama/model.h"

namespace depthkv {

double seconds_of(const std::function<void()>& work);

// The middle of some ratios between the ends of their range: {low, middle, high}.
std::array<double, 3> spread(std::vector<double> ratios);

// A plan for one sample, "long", of the committed tasks' texts one after the other: `tokens` of context (plus the chat
// frame), whose answer is the `answer` tokens that follow, fed. Its task file goes to `scratch`.
TracePlan long_sample(const Model& model, const std::filesystem::path& tasks, const std::filesystem::path& scratch,
                      std::int64_t tokens, std::int64_t answer);

}  // namespace depthkv
