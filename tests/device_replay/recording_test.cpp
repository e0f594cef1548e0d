// SPDX-License-Identifier: Apache-2.0
// What is reduced while recording, from an engine whose queries and cached keys lie on a device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "depthkv/progress.h"
#include "kernels/cuda_backend.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/tiny_model.h"
#include "tracer/jobs.h"

namespace depthkv {
namespace {

// The tiny model, on the last device that there is: its queries and cached keys are shown there where that is allowed.
class ModelOnDevice : public TinyModel {
 public:
  using TinyModel::TinyModel;

  std::vector<Token> record(const RecordRequest& request, const LayerSink& sink) override {
    RecordRequest moved = request;
    if (request.on_device && request.passage_sink)
      moved.passage_sink = [&](std::size_t passage, const LayerBlock& block) {
        hand_over(block, [&](const LayerBlock& there) { request.passage_sink(passage, there); });
      };
    return TinyModel::record(moved, [&](const LayerBlock& block) {
      if (request.on_device) return hand_over(block, sink);
      sink(block);
    });
  }

  int handed_over = 0;

 private:
  void hand_over(const LayerBlock& block, const LayerSink& sink) {
    if (block.cached_keys.empty()) return sink(block);
    const int device = static_cast<int>(cuda::devices().names.size()) - 1;
    cuda::use_device(device);
    const HalfRows& keys = block.cached_keys;
    const cuda::DeviceArray<float> queries(block.data);
    const cuda::DeviceArray<std::uint16_t> cache(
        std::span(keys.data, static_cast<std::size_t>(keys.rows * keys.row_stride)));
    const std::int64_t width = static_cast<std::int64_t>(block.data.size()) / block.rows;
    LayerBlock there = block;
    there.on_device = {device,
                       {queries.data(), width / keys.columns, block.rows, keys.columns, keys.columns, width},
                       {cache.data(), keys.heads, keys.rows, keys.columns, keys.row_stride}};
    EXPECT_EQ(cuda_device_of(there.on_device->queries, there.on_device->keys), device);
    EXPECT_EQ(cuda_device_of(there.on_device->queries, keys), std::nullopt);
    there.cached_keys = {};
    ++handed_over;
    sink(there);
  }
};

class RecordingOnDevice : public testing::Test {
 protected:
  RecordingOnDevice() {
    plan_.tasks = {{write_text(scratch_ / "t.jsonl",
                               R"({"id": "s", "context": "The code of the box is 417. Grass grows in the rain.", )"
                               R"("question": "What is the code?", "answers": ["417"], "max_new_tokens": 9, )"
                               R"("metric": "f1"})"
                               "\n")}};
    plan_.channels.insert(Channel::repeat_max);
  }

  Trace record(Model& model, const char* folder) {
    record_traces(model, plan_, scratch_ / folder, kQuiet);
    return Trace::open(scratch_ / folder / "s.h5");
  }

  ScratchDirectory scratch_;
  TracePlan plan_;
  const TinyModelOptions options_{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .batch = 17};
#ifndef DEPTHKV_ON_GPU
  UseCudaBackend played_{{cuda::ops, cuda::devices, cuda::device_of, cuda::gather, cuda::device_of, cuda::upload}};
#endif
};

void expect_near(const Tensor& a, const Tensor& b, double most) {
  ASSERT_EQ(a.values().size(), b.values().size());
  for (std::size_t i = 0; i < a.values().size(); ++i)
    ASSERT_NEAR(a.values()[i], b.values()[i], most * (1e-3 + b.values()[i])) << i;
}

TEST_F(RecordingOnDevice, GivesTheColumnSumsAndMaximaOfTheHost) {
  TinyModel host(options_);
  ModelOnDevice device(options_);
  const Trace expected = record(host, "host");
  const Trace found = record(device, "device");
  EXPECT_GT(device.handed_over, 8);
  for (int layer = 0; layer < 2; ++layer) {
    for (const Cut cut : {Cut::context, Cut::prompt}) {
      expect_near(found.column_sums(layer, cut), expected.column_sums(layer, cut), 3e-5);
      for (const Repeat repeat : {Repeat::chunk, Repeat::chunk_per_input, Repeat::cache})
        expect_near(found.repeat_max(layer, repeat, cut), expected.repeat_max(layer, repeat, cut), 3e-5);
    }
  }
}

TEST_F(RecordingOnDevice, KeysComeToTheHostWhereMatricesAreWritten) {
  plan_.attention = "1";
  ModelOnDevice device(options_);
  const Trace found = record(device, "device");
  EXPECT_EQ(device.handed_over, 0);
  EXPECT_TRUE(found.has(Channel::attention, 1));
}

}  // namespace
}  // namespace depthkv
