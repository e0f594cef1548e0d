// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "depthkv/policy.h"

namespace depthkv {

std::string_view to_string(Feature feature) {
  switch (feature) {
    case Feature::keys:
      return "keys";
    case Feature::values:
      return "values";
    case Feature::column_sums:
      return "column sums";
    case Feature::window:
      return "window rows";
    case Feature::question:
      return "question rows";
    case Feature::unrotated_keys:
      return "keys before rotation";
    case Feature::queries:
      return "queries of all rows";
    case Feature::query_moments:
      return "query moments";
    case Feature::output_norms:
      return "value output norms";
    case Feature::cosines:
      return "attention cosines";
    case Feature::hidden:
      return "hidden-state scalars";
    case Feature::judged:
      return "judged rows";
    case Feature::window_queries:
      return "queries of the window's rows";
    case Feature::repeated:
      return "the context repeated";
  }
  return "";
}

Needs Needs::operator|(const Needs& other) const {
  return {bits | other.bits, std::max(window_rows, other.window_rows)};
}

bool Needs::positional() const {
  const Needs allowed = needs({Feature::keys, Feature::values, Feature::unrotated_keys, Feature::queries,
                               Feature::query_moments, Feature::output_norms});
  return (bits & ~allowed.bits) == 0;
}

Needs needs(std::initializer_list<Feature> features, std::int64_t window_rows) {
  Needs all{0, window_rows};
  for (const Feature feature : features) all.bits |= static_cast<std::uint32_t>(feature);
  return all;
}

LayerFeatures LayerFeatures::slice(std::int64_t begin, std::int64_t end) const {
  LayerFeatures part = *this;
  part.tokens = end - begin;
  part.left_out = left_out + begin;
  for (View* rows : {&part.keys, &part.values, &part.unrotated_keys, &part.queries}) {
    if (rows->data != nullptr) *rows = rows->row_range(begin, end - begin);
  }
  for (View* norms : {&part.output_norms_l1, &part.output_norms_l2}) {
    if (norms->data != nullptr) *norms = norms->column_range(begin, end - begin);
  }
  return part;
}

}  // namespace depthkv
