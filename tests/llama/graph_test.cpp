// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/graph.h"

#include <gtest/gtest.h>

#include "depthkv/error.h"
#include "tracer/llama/mask.h"

namespace depthkv {
namespace {

// The attention of one layer as the engine builds it: 8 cells,
// 3 rows, 4 query heads, 2 KV heads of 16. Nothing is computed.
class AttentionGraph : public testing::Test {
 protected:
  AttentionGraph() : ggml_(ggml_init({1 << 20, nullptr, true})) {
    ggml_tensor* cache = ggml_new_tensor_2d(ggml_, GGML_TYPE_F16, 32, 8);
    ggml_set_name(cache, "cache_k_l5");
    ggml_tensor* view = ggml_view_4d(ggml_, cache, 16, 2, 8, 1, 32, 64, 512, 0);
    queries_ = ggml_new_tensor_4d(ggml_, GGML_TYPE_F32, 16, 3, 4, 1);
    product_ = ggml_mul_mat(ggml_, ggml_permute(ggml_, view, 0, 2, 1, 3), queries_);
  }
  AttentionGraph(const AttentionGraph&) = delete;
  AttentionGraph& operator=(const AttentionGraph&) = delete;
  ~AttentionGraph() override { ggml_free(ggml_); }

  ggml_tensor* capped(float cap) {
    first_scale_ = ggml_scale(ggml_, product_, 1 / cap);
    tanh_ = ggml_tanh(ggml_, first_scale_);
    return ggml_scale(ggml_, tanh_, cap);
  }
  ggml_tensor* softmax(ggml_tensor* logits, float scale, float slope = 0) {
    ggml_tensor* mask = ggml_new_tensor_2d(ggml_, GGML_TYPE_F32, 8, 3);
    return ggml_soft_max_ext(ggml_, logits, mask, scale, slope);
  }

  ggml_context* ggml_;
  ggml_tensor* queries_ = nullptr;
  ggml_tensor* product_ = nullptr;
  ggml_tensor* first_scale_ = nullptr;
  ggml_tensor* tanh_ = nullptr;
};

TEST_F(AttentionGraph, ProductAndSoftmaxAreFoundByWhatTheyRead) {
  const ggml_tensor* weights = softmax(product_, 0.25F);
  EXPECT_TRUE(is_key_query_product(*product_));
  EXPECT_EQ(layer_of(*product_), 5);
  EXPECT_TRUE(is_attention_softmax(*weights));
  EXPECT_FALSE(is_attention_softmax(*product_));
  EXPECT_EQ(softmax_facts(*weights).scale, 0.25);
  EXPECT_EQ(softmax_facts(*weights).softcap, 0);
  EXPECT_FALSE(softmax_facts(*weights).position_bias);
  EXPECT_TRUE(softmax_facts(*softmax(product_, 1, 8)).position_bias);
}

TEST_F(AttentionGraph, OtherProductsAndSoftmaxesAreNot) {
  ggml_tensor* weight = ggml_new_tensor_2d(ggml_, GGML_TYPE_F32, 16, 8);
  ggml_set_name(weight, "blk.0.attn_q.weight");
  ggml_tensor* other = ggml_mul_mat(ggml_, weight, queries_);
  EXPECT_FALSE(is_key_query_product(*other));
  EXPECT_FALSE(is_attention_softmax(*ggml_soft_max(ggml_, other)));  // as a mixture of experts has
  EXPECT_EQ(product_under(other), nullptr);
  EXPECT_EQ(product_under(nullptr), nullptr);
}

TEST_F(AttentionGraph, SoftCappedLogitsAreMaskedAfterTheCap) {
  ggml_tensor* end = capped(50);
  const ggml_tensor* weights = softmax(end, 1);
  EXPECT_TRUE(is_attention_softmax(*weights));
  EXPECT_EQ(softmax_facts(*weights).softcap, 50);
  EXPECT_EQ(product_under(end), product_);

  ModelCard card;
  card.layers.assign(6, {4, 2, 16});
  KeepMask pruning = KeepMask::everything(card);
  pruning.pruned[5][0] = {2};
  Mask plain(card, {&pruning, 1}, 8);
  EXPECT_TRUE(plain.wants(*product_));
  card.logit_softcap = 50;
  Mask capping(card, {&pruning, 1}, 8);
  EXPECT_FALSE(capping.wants(*product_));
  EXPECT_FALSE(capping.wants(*first_scale_));
  EXPECT_FALSE(capping.wants(*tanh_));
  EXPECT_TRUE(capping.wants(*end));
}

TEST_F(AttentionGraph, LayersThatNobodyPrunesAreLeftAlone) {
  ModelCard card;
  card.layers.assign(6, {4, 2, 16});
  KeepMask pruning = KeepMask::everything(card);
  pruning.pruned[4][1] = {0};
  Mask mask(card, {&pruning, 1}, 8);
  EXPECT_FALSE(mask.wants(*product_));
}

}  // namespace
}  // namespace depthkv
