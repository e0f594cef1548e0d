// SPDX-License-Identifier: Apache-2.0
// Masks over the engine's own logits, taken for memory of a device.
#include <gtest/gtest.h>

#include "kernels/cuda_backend.h"
#include "kernels/simt/memory.h"
#include "llama/recorded.h"
#include "llama/tiny_gguf.h"
#include "support/changing_masks.h"
#include "support/scratch.h"

namespace depthkv {
namespace {

int hidden_there = 0;

// Logits that a device is asked about are one's from then on.
std::optional<int> engines_device(const Logits& logits) {
  ++hidden_there;
  simt::adopt(logits.data, static_cast<std::size_t>(logits.heads * logits.rows * logits.width) * sizeof(float));
  return cuda::device_of(logits);
}

std::optional<int> no_device(const View&, const HalfRows&) { return std::nullopt; }

struct Decoded {
  std::vector<std::vector<float>> scored;  // [branch and step]: logits
  std::vector<std::vector<Token>> answers;
  bool operator==(const Decoded&) const = default;
};

class MaskOnDevice : public testing::TestWithParam<TinyGguf> {
 protected:
  MaskOnDevice() {
    hidden_there = 0;
    write_tiny_gguf(GetParam(), folder_ / "m.gguf");
    model_ = open_llama_model({.model = folder_ / "m.gguf", .threads = 2, .batch = 32});
    prefix_ = random_tokens(75, model_->card(), 3);
    tokens_ = random_tokens(9, model_->card(), 4);
  }
  ~MaskOnDevice() override { simt::disown_all(); }

  std::vector<KeepMask> fixed() const {
    const KeepMask one = frozen_at(selecting_mask(model_->card()), 75);
    const KeepMask two = frozen_at(streaming_mask(model_->card(), 3, 20), 75);
    return {KeepMask::everything(model_->card()), one, two, one};
  }

  Decoded decode(const std::vector<KeepMask>& masks) {
    const auto branches = model_->branch(prefix_, masks, 20);
    Decoded decoded;
    branches->score(tokens_, 0, [&](std::size_t, std::int64_t, std::span<const float> logits) {
      decoded.scored.emplace_back(logits.begin(), logits.end());
    });
    decoded.answers = branches->generate(tokens_, 8);
    return decoded;
  }

  Decoded decode_on_device(const std::vector<KeepMask>& masks) {
    const UseCudaBackend played({cuda::ops, cuda::devices, no_device, cuda::gather, engines_device, cuda::upload});
    Decoded decoded = decode(masks);
    EXPECT_GT(hidden_there, 0);
    return decoded;
  }

  ScratchDirectory folder_;
  std::unique_ptr<Model> model_;
  std::vector<Token> prefix_;
  std::vector<Token> tokens_;
};
INSTANTIATE_TEST_SUITE_P(Architectures, MaskOnDevice,
                         testing::Values(tiny_llama(), tiny_gemma(), tiny_gemma2(), tiny_qwen3(), tiny_phi3()),
                         [](const auto& test) { return test.param.architecture; });

// Sets go there once, the rows' numbers every time, and nothing comes back.
TEST_P(MaskOnDevice, BranchesGiveTheHostsBits) {
  const std::vector<KeepMask> masks = fixed();
  const Decoded expected = decode(masks);
  EXPECT_EQ(hidden_there, 0);
  const simt::Traffic before = simt::traffic();
  EXPECT_EQ(decode_on_device(masks), expected);
  const simt::Traffic after = simt::traffic();
  EXPECT_EQ(after.to_host, before.to_host);
  std::size_t sets = 0;
  for (const LayerShape& layer : model_->card().layers)
    sets += static_cast<std::size_t>(layer.kv_heads) * masks.size() * 3 * sizeof(std::uint32_t);  // 75 positions
  const std::size_t rows = after.to_device - before.to_device - sets;
  // Of every layer: the tokens of each branch, twice, and what is generated, without the last.
  const std::size_t fed = (2 * tokens_.size() + 7) * masks.size() * model_->card().layers.size();
  EXPECT_LE(rows, fed * sizeof(std::uint32_t));
  EXPECT_GT(rows, 0U);
  EXPECT_NE(expected.scored[0], expected.scored[tokens_.size()]);
}

TEST_P(MaskOnDevice, BranchesThatChangeGiveTheHostsBits) {
  std::vector<KeepMask> masks = fixed();
  masks.insert(masks.begin() + 1, streaming_mask(model_->card(), 3, 8));
  masks.push_back(selecting_mask(model_->card()));
  const Decoded expected = decode(masks);
  EXPECT_EQ(decode_on_device(masks), expected);
}

}  // namespace
}  // namespace depthkv
