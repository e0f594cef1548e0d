// SPDX-License-Identifier: Apache-2.0
// What branches of a model answer.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "depthkv/model.h"

namespace depthkv {

// Tokens that fit into the model's context behind the sample's prompt.
std::int64_t room_behind(const ModelCard& model, const Segments& segments);

struct Answer {
  std::string text;
  double score = 0;         // by the sample's metric
  double length_ratio = 0;  // words over those of the first branch's answer
};

// Of the first `count` branches, which hold the sample's first `cut` tokens: greedy, at most max_new tokens
// each, and no more than the model's context has room for.
// Nothing where max_new is 0 or the sample's metric isn't one of texts.
std::vector<Answer> answer(const Model& model, Branches& branches, const Sample& sample, std::int64_t cut,
                           std::int64_t max_new, std::size_t count);

}  // namespace depthkv
