// SPDX-License-Identifier: Apache-2.0
#include "replay/labels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace depthkv {
namespace {

template <class Policy>
std::string allocator_label(const std::vector<Policy>& policies, std::size_t index) {
  const Policy& policy = policies[index];
  const auto same =
      std::count_if(policies.begin(), policies.end(), [&](const Policy& p) { return p.name == policy.name; });
  return same > 1 ? fmt::format("{} ({})", policy.name, policy.params) : policy.name;
}

}  // namespace

std::string ranker_label(const ResultTable& results, std::size_t ranker) {
  const auto& rankers = results.policies.rankers;
  const Ranker& it = rankers[ranker];
  const bool params_differ = std::any_of(rankers.begin(), rankers.end(), [&](const Ranker& other) {
    return other.scorer.name == it.scorer.name && other.scorer.params != it.scorer.params;
  });
  const bool protect_differs =
      std::any_of(rankers.begin(), rankers.end(), [&](const Ranker& other) { return !(other.protect == it.protect); });
  std::string label = it.scorer.name;
  if (params_differ) label += fmt::format(" ({})", it.scorer.params);
  const auto other_structure = [&](const Ranker& other) {
    return other.structure.name != it.structure.name || other.structure.params != it.structure.params;
  };
  if (it.structure.name != "token" || std::any_of(rankers.begin(), rankers.end(), other_structure)) {
    const auto same_name = [&](const Ranker& other) {
      return other.structure.name == it.structure.name && other.structure.params != it.structure.params;
    };
    const bool needs_params = std::any_of(rankers.begin(), rankers.end(), same_name);
    label += fmt::format(" {}{}", it.structure.name, needs_params ? fmt::format(" ({})", it.structure.params) : "");
  }
  if (protect_differs) label += fmt::format(" [{}+{}]", it.protect.first, it.protect.last);
  return label;
}

std::string layer_label(const ResultTable& results, std::size_t layer_allocator) {
  return allocator_label(results.policies.layer_allocators, layer_allocator);
}

std::string head_label(const ResultTable& results, std::size_t head_allocator) {
  return allocator_label(results.policies.head_allocators, head_allocator);
}

std::string policy_label(const ResultTable& results, PolicyIndex policy) {
  return fmt::format("{} / {} / {}", ranker_label(results, policy.ranker), layer_label(results, policy.layer_allocator),
                     head_label(results, policy.head_allocator));
}

const std::vector<std::string>& policy_columns() {
  static const std::vector<std::string> kColumns{
      "scorer",       "scorer_params",   "group",        "structure",      "structure_params", "protect_first",
      "protect_last", "layer_allocator", "layer_params", "head_allocator", "head_params"};
  return kColumns;
}

std::vector<std::string> policy_fields(const ResultTable& results, PolicyIndex index) {
  const Ranker& ranker = results.policies.rankers[index.ranker];
  const LayerAllocator& layers = results.policies.layer_allocators[index.layer_allocator];
  const HeadAllocator& heads = results.policies.head_allocators[index.head_allocator];
  return {ranker.scorer.name,
          ranker.scorer.params,
          ranker.scorer.group,
          ranker.structure.name,
          ranker.structure.params,
          fmt::format("{}", ranker.protect.first),
          fmt::format("{}", ranker.protect.last),
          layers.name,
          layers.params,
          heads.name,
          heads.params};
}

std::vector<std::pair<std::string, double>> candidate_means(const Verification& verification, std::size_t candidate) {
  constexpr std::pair<const char*, double VerifyRow::*> kFields[] = {
      {"kl", &VerifyRow::kl},       {"top1", &VerifyRow::top1},
      {"nll", &VerifyRow::nll},     {"nll_full", &VerifyRow::nll_full},
      {"score", &VerifyRow::score}, {"score_full", &VerifyRow::score_full}};
  std::vector<std::pair<std::string, double>> means;
  for (const auto& [name, field] : kFields) {
    std::vector<double> values;
    for (const VerifyRow& row : verification.rows) {
      if (row.candidate == candidate && !std::isnan(row.*field)) values.push_back(row.*field);
    }
    means.emplace_back(name, mean(values));
  }
  return means;
}

}  // namespace depthkv
