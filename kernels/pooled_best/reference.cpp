// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/pooled_best/pooled_best.h"

namespace depthkv::reference {

std::vector<std::int64_t> pooled_best(const PooledLists& lists, std::int64_t entries) {
  struct Item {
    float score;
    std::int64_t place;
    std::size_t list;
  };
  std::vector<Item> items;
  for (std::size_t u = 0; u < lists.costs.size(); ++u) {
    const std::int64_t count = std::min(lists.begins[u + 1] - lists.begins[u], lists.most);
    for (std::int64_t place = 0; place < count; ++place) {
      float score = lists.scores[static_cast<std::size_t>(lists.begins[u] + place)];
      if (!lists.factors.empty() && score < lists.unscaled)
        score = static_cast<float>(static_cast<double>(score) * lists.factors[u]);
      items.push_back({score, place, u});
    }
  }
  std::ranges::sort(items, [](const Item& a, const Item& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.place != b.place ? a.place < b.place : a.list < b.list;
  });
  std::vector<std::int64_t> taken(lists.costs.size());
  for (const Item& item : items) {
    const std::int64_t part = std::min(entries, lists.costs[item.list]);
    taken[item.list] += part;
    entries -= part;
  }
  return taken;
}

}  // namespace depthkv::reference
