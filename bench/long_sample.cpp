// SPDX-License-Identifier: Apache-2.0
#include "bench/long_sample.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "depthkv/tasks.h"

namespace depthkv {

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::array<double, 3> spread(std::vector<double> ratios) {
  std::sort(ratios.begin(), ratios.end());
  return {ratios.front(), ratios[ratios.size() / 2], ratios.back()};
}

TracePlan long_sample(const Model& model, const std::filesystem::path& tasks, const std::filesystem::path& scratch,
                      std::int64_t tokens, std::int64_t answer) {
  std::string text;
  for (const char* name : {"lm_books.jsonl", "needle.jsonl", "summ_query.jsonl"})
    for (const TaskSample& sample : read_tasks({tasks / name})) text += sample.context + "\n\n";
  std::vector<Token> all = model.tokenize(text, false, false);
  while (static_cast<std::int64_t>(all.size()) < tokens + answer) all.insert(all.end(), all.begin(), all.end());
  const std::span<const Token> every = all;
  const auto context = every.first(static_cast<std::size_t>(tokens));
  const auto next = every.subspan(context.size(), static_cast<std::size_t>(answer));
  const nlohmann::json sample{{"id", "long"},
                              {"context", model.detokenize(context)},
                              {"answers", {model.detokenize(next)}},
                              {"metric", "nll"},
                              {"max_new_tokens", 0}};
  std::ofstream(scratch / "long.jsonl") << sample.dump() << "\n";
  TracePlan plan;
  plan.tasks = {{scratch / "long.jsonl"}};
  plan.max_new = answer;
  return plan;
}

}  // namespace depthkv
