// SPDX-License-Identifier: Apache-2.0
// explicit: scores from a file, for methods that aren't here: trained scorers, another tool's, or an earlier replay's
// (docs/results.md). Takes them as they are; `scorer` names whose, where the file has several for a sample.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "depthkv/error.h"
#include "depthkv/policy.h"
#include "depthkv/score_file.h"

namespace depthkv {

Scorer make_explicit(Params& params) {
  const auto file = params.take<std::string>("file", "");
  const auto name = params.take<std::string>("scorer", "");
  Scorer scorer;
  scorer.group = "none";
  scorer.depends_on_head_number = true;
  scorer.whole_cache = true;
  if (file.empty()) {
    scorer.unavailable = "needs a file of scores; set file=FILE.h5";
    return scorer;
  }
  if (!std::filesystem::exists(file)) throw InputError(fmt::format("scorer explicit: {}: no such file", file));
  const auto scores = std::make_shared<const ScoreFile>(ScoreFile::open(file));
  scorer.source = scores->content_hash();
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    Tensor found = scores->scores(layer.sample, layer.layer, name);
    if (found.heads() != layer.shape.kv_heads || found.columns() != layer.tokens)
      throw Error(fmt::format(
          "{}: the scores of layer {} of {} are [{}, {}], expected [{}, {}]: those of this model and "
          "cut",
          file, layer.layer, layer.sample, found.heads(), found.columns(), layer.shape.kv_heads, layer.tokens));
    if (!std::ranges::all_of(found.values(), [](float x) { return std::isfinite(x); }))
      throw Error(fmt::format("{}: the scores of layer {} of {} hold infinite values or some that are no numbers", file,
                              layer.layer, layer.sample));
    return found;
  };
  return scorer;
}

}  // namespace depthkv
