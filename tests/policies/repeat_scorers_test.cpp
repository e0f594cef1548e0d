// SPDX-License-Identifier: Apache-2.0
// Scorers of a repeated context against numbers worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/hand_layer.h"

namespace depthkv {
namespace {

using testing::Each;
using testing::ElementsAre;

TEST(KvZip, IsTheGroupsLargestAndKeepsAllButTheContext) {
  HandLayer layer(4, 2, 5);
  layer.repeat_chunk({{0, 0.25F, 0.5F, 0.125F, 0},
                      {0, 0.75F, 0.125F, 0.25F, 0},
                      {0, 0.5F, 0.5F, 0.5F, 0},
                      {0, 0.0625F, 0.75F, 0.5F, 0}});
  layer.features_.frame_rows = 1;
  layer.features_.question_rows = 1;
  EXPECT_THAT(layer.score_all("kvzip"), ElementsAre(ElementsAre(kForced, 0.75F, 0.5F, 0.25F, kForced),
                                                    ElementsAre(kForced, 0.5F, 0.75F, 0.5F, kForced)));
}

TEST(KvZip, WithoutFrameAndQuestionForcesNothing) {
  HandLayer layer(1, 1, 2);
  layer.repeat_chunk({{0.25F, 0.5F}});
  for (const bool parity : {false, true})
    EXPECT_THAT(layer.score("kvzip", {{"parity_bugs", parity}}), ElementsAre(0.25F, 0.5F));
}

// kvpress: 1 for the first four positions before the context, 0 for the rest of them.
TEST(KvZip, ParityBugsLetTheFrameGo) {
  HandLayer layer(1, 1, 8);
  layer.repeat_chunk({{0, 0, 0, 0, 0, 0, 0.5F, 0.25F}});
  layer.features_.frame_rows = 6;
  EXPECT_THAT(layer.score("kvzip", {{"parity_bugs", true}}), ElementsAre(1, 1, 1, 1, 0, 0, 0.5F, 0.25F));
  layer.features_.frame_rows = 2;
  layer.repeat_chunk({{0, 0, 0.25F, 0.5F, 0.25F, 0.5F, 0.25F, 0.5F}});
  EXPECT_THAT(layer.score("kvzip", {{"parity_bugs", true}}), ElementsAre(1, 1, 0.25F, 0.5F, 0.25F, 0.5F, 0.25F, 0.5F));
}

TEST(KvZip, PlusMultipliesByTheHeadsOwnOutputNormBeforeTheMaximum) {
  HandLayer layer(2, 1, 3);
  layer.repeat_per_input({{0.5F, 0.25F, 0.25F}, {0.25F, 0.5F, 0.125F}});
  layer.output_norms_l2({{2, 4, 1}, {8, 1, 4}});
  EXPECT_THAT(layer.score("kvzip", {{"plus", true}}), ElementsAre(2.0F, 1.0F, 0.5F));
}

TEST(KvCompose, AddsTheMeanOverHeadsToTheGroupsMean) {
  HandLayer layer(4, 2, 3);
  layer.repeat_cache({{0.5F, 0, 0}, {0.25F, 0.5F, 0}, {1, 0.5F, 0}, {0.5F, 0.25F, 0}});
  layer.features_.question_rows = 1;
  layer.features_.frame_rows = 1;  // has scores of its own
  EXPECT_THAT(layer.score_all("kvcompose"), ElementsAre(ElementsAre(0.375F + 0.5625F, 0.25F + 0.3125F, kForced),
                                                        ElementsAre(0.75F + 0.5625F, 0.375F + 0.3125F, kForced)));
  EXPECT_THAT(layer.score_all("kvcompose", {{"across", false}}),
              ElementsAre(ElementsAre(0.375F, 0.25F, kForced), ElementsAre(0.75F, 0.375F, kForced)));
  EXPECT_THAT(layer.score("kvcompose", {{"across", false}, {"group", std::string("max")}}),
              ElementsAre(0.5F, 0.5F, kForced));
}

TEST(RepeatScorers, OneTokenOneHead) {
  HandLayer layer(1, 1, 1);
  layer.repeat_chunk({{0.5F}}).repeat_cache({{0.5F}});
  EXPECT_THAT(layer.score("kvzip"), ElementsAre(0.5F));
  EXPECT_THAT(layer.score("kvcompose"), ElementsAre(1.0F));
  layer.features_.question_rows = 1;
  for (const char* name : {"kvzip", "kvcompose"}) EXPECT_THAT(layer.score(name), Each(kForced));
}

}  // namespace
}  // namespace depthkv
