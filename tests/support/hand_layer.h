// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "depthkv/registry.h"

namespace depthkv {

// A layer written down by hand: one list per head (and row).
class HandLayer {
 public:
  HandLayer(int query_heads, int kv_heads, std::int64_t tokens) {
    features_.layers = 2;
    features_.shape = {query_heads, kv_heads, 2};
    features_.tokens = tokens;
  }
  HandLayer& column_sums(const std::vector<std::vector<float>>& heads) {
    return set(features_.column_sums, sums_, heads, 1);
  }
  HandLayer& judged(const std::vector<std::vector<float>>& heads) {
    return set(features_.judged_sums, judged_, heads, 1);
  }
  HandLayer& keys(const std::vector<std::vector<float>>& rows) {
    return set(features_.keys, keys_, rows, features_.tokens);
  }
  HandLayer& values(const std::vector<std::vector<float>>& rows) {
    return set(features_.values, values_, rows, features_.tokens);
  }
  HandLayer& output_norms(const std::vector<std::vector<float>>& l1_of_heads) {
    return set(features_.output_norms_l1, output_norms_, l1_of_heads, 1);
  }
  HandLayer& output_norms_l2(const std::vector<std::vector<float>>& heads) {
    return set(features_.output_norms_l2, output_norms_l2_, heads, 1);
  }
  HandLayer& repeat_chunk(const std::vector<std::vector<float>>& heads) {
    return set(features_.repeat_chunk, repeat_chunk_, heads, 1);
  }
  HandLayer& repeat_per_input(const std::vector<std::vector<float>>& heads) {
    return set(features_.repeat_per_input, repeat_per_input_, heads, 1);
  }
  HandLayer& repeat_cache(const std::vector<std::vector<float>>& heads) {
    return set(features_.repeat_cache, repeat_cache_, heads, 1);
  }
  HandLayer& window(const std::vector<std::vector<float>>& rows, std::int64_t rows_per_head) {
    return set(features_.window, window_, rows, rows_per_head);
  }

  // Scores of KV head 0.
  std::vector<float> score(const std::string& name, const std::map<std::string, Value>& params = {}) const {
    return score_all(name, params)[0];
  }
  std::vector<std::vector<float>> score_all(const std::string& name,
                                            const std::map<std::string, Value>& params = {}) const {
    const Scorer scorer = builtin_policies().make_scorer({name, params, "test"});
    const Tensor scores = scorer.score(features_, ops_for(Device::cpu));
    std::vector<std::vector<float>> heads;
    for (std::int64_t g = 0; g < scores.heads(); ++g)
      heads.emplace_back(scores.row(g, 0).begin(), scores.row(g, 0).end());
    return heads;
  }

  LayerFeatures features_;

 private:
  // `lists`: rows of all heads, head by head.
  HandLayer& set(View& view, Tensor& tensor, const std::vector<std::vector<float>>& lists, std::int64_t rows) {
    const auto heads = static_cast<std::int64_t>(lists.size()) / rows;
    tensor = Tensor(heads, rows, static_cast<std::int64_t>(lists[0].size()));
    auto out = tensor.values().begin();
    for (const auto& list : lists) out = std::copy(list.begin(), list.end(), out);
    view = tensor.view();
    return *this;
  }

  Tensor sums_, judged_, keys_, values_, output_norms_, output_norms_l2_, window_;
  Tensor repeat_chunk_, repeat_per_input_, repeat_cache_;
};

}  // namespace depthkv
