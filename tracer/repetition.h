// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>
#include <string>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/tasks.h"

namespace depthkv {

// What has a model repeat a prompt's context, as KVzip has it (arXiv:2505.23416). traces/FORMAT.md says the words.
struct Repetition {
  std::vector<Span> chunks;       // of the context, in order, all of it
  std::vector<Passage> passages;  // one for each: a request to repeat it, then the chunk
};

// Where the longest ends, in tokens from the prompt's first; 0 without any.
std::int64_t end_of(std::span<const Passage> passages);

// Tokens of context per passage: as many as the authors take.
inline constexpr std::int64_t kRepeatChunk = 2048;
// What has to be left of the model's context behind the prompt's, at least, where a context is longer than that.
inline constexpr std::int64_t kRepeatRoom = 256;

// Chunks of at most `length` tokens, fewer where the model's context doesn't hold more. Throws InputError, starting
// with `where`, if it doesn't leave room for chunks of 64.
Repetition make_repetition(const Model& model, const Prompt& prompt, const std::string& where,
                           std::int64_t length = kRepeatChunk);

}  // namespace depthkv
