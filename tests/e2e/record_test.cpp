// SPDX-License-Identifier: Apache-2.0
// What a recorded sample's statistics are, against plain loops over what the model handed out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "depthkv/ops.h"
#include "depthkv/progress.h"
#include "kernels/half.h"
#include "support/checksums.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/tiny_model.h"
#include "tracer/jobs.h"
#include "tracer/moments.h"
#include "tracer/state_metrics.h"

namespace depthkv {
namespace {

class Recorded : public testing::Test {
 protected:
  Recorded() {
    plan_.tasks = {{write_text(scratch_ / "t.jsonl",
                               R"({"id": "s", "context": "The code of the box is 417. Grass grows in the rain.", )"
                               R"("question": "What is the code?", "answers": ["417"], "max_new_tokens": 9, )"
                               R"("metric": "f1"})"
                               "\n")}};
    plan_.attention = "all";
    plan_.queries = "all";
  }
  Trace record() {
    record_traces(model_, plan_, scratch_ / "traces", kQuiet);
    return Trace::open(scratch_ / "traces/s.h5");
  }

  ScratchDirectory scratch_;
  TinyModel model_{TinyModelOptions{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 6, .batch = 17}};
  TracePlan plan_;
};

TEST_F(Recorded, ColumnSumsAddUpTheAttentionOfRowsBelowTheCut) {
  const Trace trace = record();
  for (int layer = 0; layer < 2; ++layer) {
    for (const Cut cut : {Cut::context, Cut::prompt}) {
      const std::int64_t at = trace.sample().segments.at(cut);
      const Tensor sums = trace.column_sums(layer, cut);
      const Tensor attention = trace.attention(layer, {0, at});
      for (std::int64_t h = 0; h < 4; ++h) {
        for (std::int64_t j = 0; j < at; ++j) {
          double sum = 0;
          for (std::int64_t i = 0; i < at; ++i) sum += attention.row(h, i)[static_cast<std::size_t>(j)];
          EXPECT_NEAR(sums.row(h, 0)[static_cast<std::size_t>(j)], sum, 1e-3 * (1 + sum));  // the matrix is rounded
        }
      }
    }
  }
}

// From the model's own rows, or from queries and cached keys: with the matrix and, on a way of its own, without.
TEST_F(Recorded, RecomputedAttentionIsTheModelsOwn) {
  const auto sums_and_matrix = [&](const char* folder, const char* attention, bool engine) {
    plan_.attention = attention;
    plan_.engine_softmax = engine;
    record_traces(model_, plan_, scratch_ / folder, kQuiet);
    return Trace::open(scratch_ / folder / "s.h5");
  };
  const Trace own = sums_and_matrix("own", "all", true);
  const Trace again = sums_and_matrix("again", "all", false);
  const Trace sums_only = sums_and_matrix("sums", "none", false);
  EXPECT_TRUE(own.engine_softmax());
  EXPECT_FALSE(again.engine_softmax());
  EXPECT_FALSE(sums_only.has(Channel::attention, 0));
  const auto expect_near = [](const Tensor& a, const Tensor& b, double tolerance) {
    ASSERT_EQ(a.values().size(), b.values().size());
    for (std::size_t i = 0; i < a.values().size(); ++i) ASSERT_NEAR(a.values()[i], b.values()[i], tolerance) << i;
  };
  for (int layer = 0; layer < 2; ++layer) {
    const std::int64_t tokens = own.sample().size();
    expect_near(again.attention(layer, {0, tokens}), own.attention(layer, {0, tokens}), 1e-3);
    for (const Cut cut : {Cut::context, Cut::prompt}) {
      expect_near(again.column_sums(layer, cut), own.column_sums(layer, cut), 1e-5);
      expect_near(sums_only.column_sums(layer, cut), own.column_sums(layer, cut), 1e-5);
    }
  }
}

TEST_F(Recorded, RecomputedColumnSumsDoNotDependOnThreads) {
  plan_.attention = "none";
  plan_.threads = 1;
  record_traces(model_, plan_, scratch_ / "one", kQuiet);
  plan_.threads = 5;
  record_traces(model_, plan_, scratch_ / "five", kQuiet);
  const Trace one = Trace::open(scratch_ / "one/s.h5");
  const Trace five = Trace::open(scratch_ / "five/s.h5");
  for (int layer = 0; layer < 2; ++layer)
    EXPECT_TRUE(std::ranges::equal(one.column_sums(layer, Cut::prompt).values(),
                                   five.column_sums(layer, Cut::prompt).values()));
}

TEST_F(Recorded, ValueOutputNormsAreThoseOfTheProjectedValues) {
  const Trace trace = record();
  for (int layer = 0; layer < 2; ++layer) {
    const Tensor values = trace.values(layer);
    const Tensor weights = model_.output_projection(layer);
    const Tensor expected = ops_for(Device::reference).projected_norms(values.view(), weights.view());
    for (const Norm norm : {Norm::l1, Norm::l2}) {
      const Tensor found = trace.value_output_norms(layer, norm);
      for (std::int64_t h = 0; h < 4; ++h)
        for (std::int64_t t = 0; t < trace.sample().size(); ++t)
          EXPECT_NEAR(found.row(h, 0)[static_cast<std::size_t>(t)], expected.row(h, t)[static_cast<std::size_t>(norm)],
                      1e-5);
    }
  }
}

TEST_F(Recorded, QueryMomentsAreThoseOfUnrotatedQueriesBelowTheCut) {
  const Trace trace = record();
  std::vector<std::vector<float>> rows(2);  // [layer]: [row][head][i]
  const std::vector<Token>& tokens = trace.sample().tokens;
  model_.record({tokens, {}, 0, {}, true}, [&](const LayerBlock& block) {
    auto& layer = rows[static_cast<std::size_t>(block.layer)];
    if (block.channel == Channel::queries) layer.insert(layer.end(), block.unrotated.begin(), block.unrotated.end());
  });
  for (int layer = 0; layer < 2; ++layer) {
    for (const Cut cut : {Cut::context, Cut::prompt}) {
      const std::int64_t at = trace.sample().segments.at(cut);
      const auto x = [&](std::int64_t row, std::int64_t head, std::int64_t i) {
        return static_cast<double>(
            rows[static_cast<std::size_t>(layer)][static_cast<std::size_t>((row * 4 + head) * 6 + i)]);
      };
      for (std::int64_t h = 0; h < 4; ++h) {
        for (std::int64_t i = 0; i < 6; ++i) {
          double mean = 0;
          for (std::int64_t r = 0; r < at; ++r) mean += x(r, h, i) / static_cast<double>(at);
          EXPECT_NEAR(trace.query_mean(layer, cut).row(h, 0)[static_cast<std::size_t>(i)], mean, 1e-5);
          for (std::int64_t j = 0; j < 6; ++j) {
            double second = 0;
            for (std::int64_t r = 0; r < at; ++r) second += x(r, h, i) * x(r, h, j) / static_cast<double>(at);
            EXPECT_NEAR(trace.query_second_moment(layer, cut).row(h, i)[static_cast<std::size_t>(j)], second, 1e-4);
          }
        }
      }
    }
  }
}

TEST_F(Recorded, OnlyTheChannelsAskedForAreRecorded) {
  plan_.channels = {Channel::keys, Channel::query_mean};
  plan_.attention = "1";
  const Trace trace = record();
  for (const Channel channel : kChannels) {
    const bool wanted = channel == Channel::keys || channel == Channel::query_mean;
    EXPECT_EQ(trace.has(channel, 0), wanted) << to_string(channel);
    EXPECT_EQ(trace.has(channel, 1), wanted || channel == Channel::attention) << to_string(channel);
  }
}

// What the model hands out as states of the sample's prompt, by (layer, stage): [token, D].
std::map<std::pair<int, Stage>, std::vector<float>> states_of(Model& model, const Trace& trace) {
  std::map<std::pair<int, Stage>, std::vector<float>> states;
  const Sample& sample = trace.sample();
  const auto end = static_cast<std::size_t>(sample.segments.prompt_end);
  const std::span<const Token> tokens = sample.tokens;
  Model::RecordRequest request;
  request.prompt = tokens.first(end);
  request.answer = tokens.subspan(end);
  request.states = [&](const StateBlock& block) {
    auto& rows = states[{block.layer, block.stage}];
    rows.insert(rows.end(), block.data.begin(), block.data.end());
  };
  model.record(request, [](const LayerBlock&) {});
  return states;
}

TEST_F(Recorded, HiddenStatesAreReducedOverThePrompt) {
  plan_.channels = preset_channels(Preset::study);
  const Trace trace = record();
  const auto states = states_of(model_, trace);
  const std::int64_t width = model_.card().embedding;
  const std::int64_t rows = trace.sample().segments.prompt_end;
  for (const auto& [key, values] : states) ASSERT_EQ(values.size(), static_cast<std::size_t>(rows * width));
  for (int layer = 0; layer < 2; ++layer) {
    for (const Stage stage : kStages) {
      const std::vector<float>& all = states.at({layer, stage});
      const ReadStates read = [&](std::int64_t first, std::span<float> out) {
        std::copy_n(all.begin() + first * width, out.size(), out.begin());
      };
      const StateSummary expected = summarise_states(read, rows, width, true);
      const auto at = static_cast<std::int64_t>(stage);
      EXPECT_TRUE(std::ranges::equal(trace.hidden_mean(layer).row(at, 0), expected.mean));
      EXPECT_TRUE(std::ranges::equal(trace.hidden_unit_mean(layer).row(at, 0), expected.unit_mean));
      EXPECT_TRUE(std::ranges::equal(trace.hidden_scalars(layer).row(at, 0), expected.scalars));
      EXPECT_GT(expected.scalars[static_cast<std::size_t>(HiddenScalar::effective_rank)], 2);
    }
  }
}

TEST_F(Recorded, AttentionCosinesAreThoseOfTheLayersInput) {
  plan_.channels = {Channel::attention_cosines};
  const Trace trace = record();
  const auto states = states_of(model_, trace);
  const std::size_t width = static_cast<std::size_t>(model_.card().embedding);
  for (int layer = 0; layer < 2; ++layer) {
    const Tensor cosines = trace.attention_cosines(layer);
    const std::vector<float>& input = states.at({layer - 1, Stage::mlp});
    for (const Stage stage : {Stage::att, Stage::res}) {
      const std::vector<float>& other = states.at({layer, stage});
      for (std::size_t t = 0; t < input.size() / width; ++t) {
        double product = 0, a = 0, b = 0;
        for (std::size_t i = t * width; i < (t + 1) * width; ++i) {
          product += double{input[i]} * double{other[i]};
          a += double{input[i]} * double{input[i]};
          b += double{other[i]} * double{other[i]};
        }
        EXPECT_NEAR(cosines.row(stage == Stage::att ? 0 : 1, 0)[t], product / std::sqrt(a * b), 1e-6);
      }
    }
  }
}

TEST_F(Recorded, HiddenStatesDoNotDependOnThreadsAndLeaveNothingBehind) {
  plan_.channels = preset_channels(Preset::study);
  std::vector<std::map<std::string, std::string>> sums;
  for (const int threads : {1, 3}) {
    plan_.threads = threads;
    const std::filesystem::path out = scratch_ / std::to_string(threads);
    record_traces(model_, plan_, out, kQuiet);
    sums.push_back(stored_checksums(out / "s.h5"));
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(out)) names.push_back(entry.path().filename());
    EXPECT_THAT(names, testing::UnorderedElementsAre("s.h5", "index.h5", "plan.json"));
  }
  EXPECT_EQ(sums[0], sums[1]);
}

TEST_F(Recorded, FullPresetRecordsAllThereIs) {
  apply_preset(Preset::full, plan_);
  const Trace trace = record();
  for (const Channel channel : kChannels) EXPECT_TRUE(trace.has(channel, 1)) << to_string(channel);
  EXPECT_EQ(static_cast<std::int64_t>(trace.query_rows().size()), trace.sample().size());
  const TraceWeights weights = TraceWeights::open(scratch_ / "traces");
  const Tensor expected = model_.output_projection(1);
  const Tensor found = weights.output_projection(1);
  for (std::size_t i = 0; i < expected.values().size(); ++i)
    ASSERT_EQ(found.values()[i], from_half(to_half(expected.values()[i])));
  EXPECT_THAT(validate_trace_set(scratch_ / "traces", kQuiet), testing::IsEmpty());
}

RC_GTEST_PROP(MomentsProperty, PartsAddUpToTheWhole, ()) {
  const auto heads = *rc::gen::inRange<std::int64_t>(1, 4);
  const auto width = *rc::gen::inRange<std::int64_t>(1, 9);
  const auto count = *rc::gen::inRange<std::int64_t>(0, 150);
  const auto split = *rc::gen::inRange<std::int64_t>(0, count + 1);
  std::mt19937 random(*rc::gen::arbitrary<std::uint32_t>());
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<std::size_t>(count * heads * width));
  for (float& x : rows) x = normal(random);
  Moments whole(heads, width);
  Moments first(heads, width);
  Moments second(heads, width);
  const auto middle = static_cast<std::size_t>(split * heads * width);
  for (std::int64_t h = 0; h < heads; ++h) {
    whole.add(h, rows);
    first.add(h, std::span(rows).first(middle));
    second.add(h, std::span(rows).subspan(middle));
  }
  first += second;
  const auto size = static_cast<std::size_t>(heads * width * width);
  std::vector<float> a(size);
  std::vector<float> b(size);
  whole.second(count, a);
  first.second(count, b);
  for (std::size_t i = 0; i < size; ++i) RC_ASSERT(std::abs(a[i] - b[i]) <= 1e-5F);
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t i = 0; i < width * width; ++i) {
      double sum = 0;
      for (std::int64_t r = 0; r < count; ++r) {
        const float* x = rows.data() + (r * heads + h) * width;
        sum += static_cast<double>(x[i / width]) * static_cast<double>(x[i % width]) / static_cast<double>(count);
      }
      RC_ASSERT(std::abs(a[static_cast<std::size_t>(h * width * width + i)] - sum) <= 1e-5);
    }
  }
}

}  // namespace
}  // namespace depthkv
