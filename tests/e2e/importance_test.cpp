// SPDX-License-Identifier: Apache-2.0
// Importance by ablation on a small transformer, what replay makes of it, and its file.
#include "depthkv/importance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "depthkv/error.h"
#include "depthkv/layer_tests.h"
#include "depthkv/progress.h"
#include "depthkv/record.h"
#include "depthkv/replay.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/tiny_model.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

constexpr int kLayers = 3;

class ImportanceTest : public testing::Test {
 protected:
  ImportanceTest() {
    std::string lines;
    for (const std::string n : {"0", "1", "2"})
      lines += R"({"id": "s)" + n + R"(", "context": "The code of box )" + n + R"( is 4)" + n +
               R"(17. Grass grows. Rain falls on the hills, day after day.", "question": "What is it?", )" +
               R"("max_new_tokens": 10, "metric": "f1", "answers": ["4"]})" + "\n";
    TracePlan plan;
    plan.tasks = {{write_text(scratch_ / "t.jsonl", lines)}};
    record_traces(model_, plan, scratch_ / "traces", kQuiet);
    traces_ = open_trace_set(scratch_ / "traces");
    plan_.scorers = {{"snapkv", {{"window", std::int64_t{8}}}, ""}};
    plan_.protect = {{1, 4}};
    plan_.layer_allocators = {{"uniform", {}, ""}};
    plan_.head_allocators = {{"adakv", {}, ""}};
    plan_.keep = {0.2, 0.5};
  }

  Ablation measured() { return measure_importance(model_, traces_, plan_, registry_, kQuiet); }

  std::filesystem::path file_of(const Importance& importance) {
    write_importance(importance, scratch_ / "importance.json");
    return scratch_ / "importance.json";
  }

  static std::string message(const std::function<void()>& act) {
    try {
      act();
      return "no error";
    } catch (const InputError& error) {
      return error.what();
    }
  }

  ScratchDirectory scratch_;
  TinyModel model_{{.layers = kLayers}};
  TraceSet traces_;
  ReplayPlan plan_;
  Registry registry_ = builtin_policies();
};

// The definition in plain loops: one branch that sees all, one that lacks what uniform prunes of one layer.
double kl_without(Model& model, const Trace& trace, const KeepMask& uniform, int layer) {
  const Sample& sample = trace.sample();
  const auto cut = static_cast<std::size_t>(sample.segments.prompt_end);
  std::vector<KeepMask> masks(2, KeepMask::everything(trace.model()));
  masks[1].pruned[static_cast<std::size_t>(layer)] = uniform.pruned[static_cast<std::size_t>(layer)];
  const std::vector<Token> fed(sample.tokens.begin() + static_cast<std::ptrdiff_t>(cut), sample.tokens.end() - 1);
  std::vector<std::vector<double>> rows[2];
  model.branch(std::span(sample.tokens).first(cut), masks, sample.size())
      ->score(fed, 0, [&](std::size_t branch, std::int64_t, std::span<const float> logits) {
        std::vector<double> p(logits.begin(), logits.end());
        double sum = 0;
        for (double& x : p) sum += x = std::exp(x);
        for (double& x : p) x /= sum;
        rows[branch].push_back(p);
      });
  double kl = 0;
  for (std::size_t s = 0; s < fed.size(); ++s)
    for (std::size_t v = 0; v < rows[0][s].size(); ++v)
      kl += rows[0][s][v] * std::log(rows[0][s][v] / rows[1][s][v]) / static_cast<double>(fed.size());
  return kl;
}

TEST_F(ImportanceTest, PrunesOneLayerAtATimeToItsEvenShare) {
  const std::vector<AblationRow> rows = measured().rows;
  ASSERT_EQ(rows.size(), traces_.files.size() * (plan_.keep.size() + 1) * kLayers);
  ReplayPlan bounded = with_bounds(plan_);
  const ResultTable results = replay(traces_, bounded, registry_, kQuiet);
  const Policies policies = make_policies(plan_, registry_);
  auto row = rows.begin();
  for (std::size_t s = 0; s < traces_.files.size(); ++s) {
    const Trace trace = Trace::open(traces_.files[s]);
    for (std::size_t k = 0; k < plan_.keep.size(); ++k) {
      const KeepMask uniform = keep_masks(trace, plan_, policies, {{{}, plan_.keep[k]}})[0];
      double error = 0;
      for (int layer = 0; layer < kLayers; ++layer, ++row) {
        EXPECT_EQ(row->sample, trace.sample().id);
        EXPECT_EQ(row->keep, plan_.keep[k]);
        EXPECT_EQ(row->layer, layer);
        const double kl = kl_without(model_, trace, uniform, layer);
        EXPECT_NEAR(row->kl, kl, 1e-6 + 1e-3 * kl);
        error += row->output_error / kLayers;
      }
      EXPECT_NEAR(results.value(results.samples[s], 0, k, Metric::output_error), error, 1e-9);
    }
    for (int layer = 0; layer < kLayers; ++layer, ++row) {  // a single entry less
      EXPECT_EQ(row->keep, 1);
      EXPECT_EQ(row->layer, layer);
      EXPECT_LT(row->output_error, 1e-3);
    }
  }
}

TEST_F(ImportanceTest, SummarisesOverSamplesAndBudgets) {
  const Ablation found = measured();
  EXPECT_EQ(found.importance.samples, 3);
  for (const LayerImportance& layer : found.importance.layers) {
    double kl = 0;
    double error = 0;
    double noise = 0;
    for (const AblationRow& row : found.rows) {
      if (row.layer != layer.layer) continue;
      if (row.keep == 1) {
        noise += row.kl / 3;
        continue;
      }
      kl += row.kl / 6;
      error += row.output_error / 6;
    }
    EXPECT_NEAR(layer.kl, kl, 1e-12);
    EXPECT_NEAR(layer.output_error, error, 1e-12);
    EXPECT_NEAR(layer.noise, noise, 1e-12);
    EXPECT_NEAR(layer.sensitivity, std::max(0.0, kl - noise) / error, 1e-9 * kl / error);
    EXPECT_LE(layer.kl_interval.low, layer.kl);
    EXPECT_GE(layer.kl_interval.high, layer.kl);
    EXPECT_EQ(layer.curve.back(), 0);  // nothing is lost where all is kept
    EXPECT_GT(layer.curve.front(), layer.curve[48]);
  }
}

// Of every structure, those without curves included.
TEST_F(ImportanceTest, PredictedLossIsTheSumOfSensitivityTimesOutputError) {
  plan_.scorers = {{"knorm", {}, ""}};
  const Ablation found = measured();
  for (const char* structure : {"token", "block"}) {
    plan_.structures = {{structure, {}, ""}};
    plan_.importance = file_of(found.importance);
    const ResultTable results = replay(traces_, plan_, registry_, kQuiet);
    plan_.importance.clear();
    for (std::size_t s = 0; s < traces_.files.size(); ++s) {
      for (std::size_t k = 0; k < plan_.keep.size(); ++k) {
        double expected = 0;
        for (const AblationRow& row : found.rows)
          if (row.sample == results.samples[s].id && row.keep == plan_.keep[k])
            expected += row.output_error * found.importance.layers[static_cast<std::size_t>(row.layer)].sensitivity;
        const double value = results.value(results.samples[s], 0, k, Metric::predicted_loss);
        if (std::string(structure) == "token") {
          EXPECT_NEAR(value, expected, 1e-9 + 1e-6 * expected);
        } else {
          EXPECT_TRUE(std::isfinite(value) && value > 0);
        }
      }
    }
  }
}

TEST_F(ImportanceTest, WithoutSensitivitiesTheLaterHalfOfTheLayersCounts) {
  const ResultTable results = replay(traces_, plan_, registry_, kQuiet);
  const Ablation found = measure_importance(model_, traces_, plan_, registry_, kQuiet);
  const int layers = static_cast<int>(found.importance.layers.size());
  ASSERT_GE(layers, 3);
  for (const SampleResult& sample : results.samples) {
    double expected = 0;
    for (const AblationRow& row : found.rows)
      if (row.sample == sample.id && row.keep == plan_.keep[0] && row.layer >= layers / 2)
        expected += row.output_error / (layers - layers / 2);
    EXPECT_NEAR(results.value(sample, 0, 0, Metric::predicted_loss), expected, 1e-9 + 1e-6 * expected);
  }
}

TEST_F(ImportanceTest, TheOracleOfPredictedLossIsBestAtItOnEverySample) {
  const std::string file = file_of(measured().importance).string();
  plan_.importance = file;
  plan_.layer_allocators = {{"oracle", {{"metric", std::string("predicted_loss")}, {"file", file}}, ""},
                            {"uniform", {}, ""},
                            {"pyramid", {}, ""},
                            {"depthkv", {{"file", file}}, ""},
                            {"optimised", {{"file", file}, {"shrink", 0.0}}, ""},
                            {"optimised", {{"file", file}, {"shrink", 1.0}}, ""}};
  plan_.head_allocators = {{"oracle", {}, ""}, {"uniform", {}, ""}, {"adakv", {}, ""}};
  const ResultTable results = replay(traces_, plan_, registry_, kQuiet);
  const std::size_t per_ranker = results.policies.layer_allocators.size() * results.policies.head_allocators.size();
  for (const SampleResult& sample : results.samples) {
    for (std::size_t k = 0; k < plan_.keep.size(); ++k) {
      const double bound = results.value(sample, 0, k, Metric::predicted_loss);
      for (std::size_t p = 1; p < per_ranker; ++p)
        EXPECT_LE(bound, results.value(sample, p, k, Metric::predicted_loss) * (1 + 1e-6)) << p;
    }
  }
}

// The definition in plain loops: every layer's answer by itself, scored as a task's answer is.
TEST_F(ImportanceTest, ScoresWhatIsGeneratedWithALayerPruned) {
  constexpr std::int64_t kMost = 6;
  const Ablation found = measure_importance(model_, traces_, plan_, registry_, kQuiet, {}, kMost);
  const Policies policies = make_policies(plan_, registry_);
  auto row = found.rows.begin();
  for (const auto& file : traces_.files) {
    const Trace trace = Trace::open(file);
    const auto prefix =
        std::span(trace.sample().tokens).first(static_cast<std::size_t>(trace.sample().segments.prompt_end));
    for (const double keep : plan_.keep) {
      const KeepMask uniform = keep_masks(trace, plan_, policies, {{{}, keep}})[0];
      for (int layer = 0; layer < kLayers; ++layer, ++row) {
        std::vector<KeepMask> masks(2, KeepMask::everything(trace.model()));
        masks[1].pruned[static_cast<std::size_t>(layer)] = uniform.pruned[static_cast<std::size_t>(layer)];
        const auto tokens = model_.branch(prefix, masks, kMost)->generate({}, kMost);
        const std::string full = model_.detokenize(tokens[0]);
        const std::string pruned = model_.detokenize(tokens[1]);
        EXPECT_EQ(row->score, score_answer("f1", pruned, trace.sample().answers));
        EXPECT_EQ(row->score_full, score_answer("f1", full, trace.sample().answers));
        EXPECT_EQ(row->length_ratio, score_answer("length_ratio", pruned, {&full, 1}));
      }
    }
    for (int layer = 0; layer < kLayers; ++layer, ++row) EXPECT_TRUE(std::isnan(row->score));  // a single entry less
  }
  for (const LayerImportance& layer : found.importance.layers) {
    double drop = 0;
    for (const AblationRow& it : found.rows)
      if (it.layer == layer.layer && it.keep < 1) drop += (it.score_full - it.score) / 6;
    EXPECT_NEAR(layer.score_drop, drop, 1e-12);
    EXPECT_TRUE(std::isfinite(layer.length_ratio));
  }
  EXPECT_TRUE(std::isnan(measured().importance.layers[0].score_drop));
}

// Attention of two layers reaches the stream ten times as strongly as that of the others.
TEST(PlantedImportance, AblationFindsTheLayersAndTheTestRejects) {
  const ScratchDirectory scratch;
  TinyModel model({.layers = 5, .attention_gain = {0.1, 2, 0.1, 2, 0.1}});
  std::string lines;
  for (int s = 0; s < 8; ++s)
    lines += R"({"id": "s)" + std::to_string(s) + R"(", "context": "Box )" +
             std::string(1, static_cast<char>('a' + 3 * s)) +
             R"( holds the lamp. Grass grows. Rain falls on the hills and on box )" + std::to_string(s * 7) +
             R"(.", "question": "What?", "max_new_tokens": 12, "metric": "f1", "answers": ["4"]})" + "\n";
  TracePlan recording;
  recording.tasks = {{write_text(scratch / "t.jsonl", lines)}};
  record_traces(model, recording, scratch / "traces", kQuiet);
  ReplayPlan plan;
  plan.scorers = {{"h2o", {}, ""}};
  plan.protect = {{1, 2}};
  plan.head_allocators = {{"uniform", {}, ""}};
  plan.keep = {0.3};
  const Ablation found =
      measure_importance(model, open_trace_set(scratch / "traces"), plan, builtin_policies(), kQuiet);
  const std::vector<LayerImportance>& layers = found.importance.layers;
  for (const int planted : {1, 3})
    for (const int other : {0, 2, 4})
      EXPECT_GT(layers[static_cast<std::size_t>(planted)].kl, layers[static_cast<std::size_t>(other)].kl);
  EXPECT_LT(survey_layers(found.rows)[0].test.p, 0.01);
}

TEST_F(ImportanceTest, ReadsBackWhatItWrote) {
  Importance written = measured().importance;
  written.layers[0].score_drop = -0.25;
  written.layers[0].score_drop_interval = {-1, 0.5};
  for (LayerImportance& layer : written.layers)
    layer.representations = {{"infonce", {1, 2, 3, 4}}, {"lidar", {0.5, kUnmeasured, 0, -1}}};
  const Importance read = read_importance(file_of(written));
  EXPECT_EQ(read.policy, written.policy);
  EXPECT_EQ(read.keep, written.keep);
  EXPECT_EQ(read.shares, written.shares);
  EXPECT_EQ(read.sensitivities(), written.sensitivities());
  EXPECT_EQ(read.layers[1].curve, written.layers[1].curve);
  EXPECT_EQ(read.layers[2].kl_interval.high, written.layers[2].kl_interval.high);
  EXPECT_EQ(read.layers[0].score_drop, -0.25);
  EXPECT_EQ(read.layers[0].score_drop_interval.high, 0.5);
  EXPECT_TRUE(std::isnan(read.layers[1].score_drop));
  EXPECT_EQ(read.layers[1].representations.at("infonce"), written.layers[1].representations.at("infonce"));
  EXPECT_TRUE(std::isnan(read.layers[1].representations.at("lidar")[1]));
}

TEST_F(ImportanceTest, BrokenFilesAreRefusedByName) {
  const std::filesystem::path good = file_of(measured().importance);
  const auto broken = [&](const std::function<void(nlohmann::ordered_json&)>& edit) {
    auto json = nlohmann::ordered_json::parse(read_text(good));
    edit(json);
    const auto file = write_text(scratch_ / "broken.json", json.dump());
    return message([&] { read_importance(file); });
  };
  EXPECT_THAT(message([&] { read_importance(scratch_ / "none.json"); }), HasSubstr("none.json: can't be read"));
  EXPECT_THAT(broken([](auto& json) { json = nlohmann::ordered_json(); }), HasSubstr("broken.json: has no \"format\""));
  EXPECT_THAT(broken([](auto& json) { json["format"] = "else"; }), HasSubstr("\"format\" is not depthkv-importance"));
  EXPECT_THAT(broken([](auto& json) { json["version"] = 2; }), HasSubstr("\"version\" is not 1"));
  EXPECT_THAT(broken([](auto& json) { json["layers"][1].erase("kl"); }), HasSubstr("has no \"kl\""));
  EXPECT_THAT(broken([](auto& json) { json["layers"][1]["kl"] = "much"; }), HasSubstr("\"kl\" is not a number"));
  EXPECT_THAT(broken([](auto& json) { json["layers"][1]["sensitivity"] = -1; }), HasSubstr("\"sensitivity\""));
  EXPECT_THAT(broken([](auto& json) { json["layers"][1]["curve"] = {1, 0}; }), HasSubstr("one per share"));
  EXPECT_THAT(broken([](auto& json) { json["shares"][3] = 0; }), HasSubstr("\"shares\" is not a rising list"));
  EXPECT_THAT(broken([](auto& json) { json["layers"] = 7; }), HasSubstr("\"layers\" is not a list"));
  const auto cut_short = write_text(scratch_ / "cut.json", read_text(good).substr(0, 200));
  EXPECT_THAT(message([&] { read_importance(cut_short); }), HasSubstr("cut.json"));
}

TEST_F(ImportanceTest, SensitivitiesHoldForTheirModelAndCut) {
  Importance importance = measured().importance;
  plan_.importance = file_of(importance);
  plan_.cut = Cut::context;
  EXPECT_THAT(message([&] { replay(traces_, plan_, registry_, kQuiet); }),
              HasSubstr("measured at the cut prompt, the plan prunes at the cut context"));
  plan_.cut = Cut::prompt;
  importance.fingerprint = "0000000000000000";
  plan_.importance = file_of(importance);
  EXPECT_THAT(message([&] { replay(traces_, plan_, registry_, kQuiet); }), HasSubstr("0000000000000000"));
}

TEST_F(ImportanceTest, SoDoAllocatorsThatReadThem) {
  Importance importance = measured().importance;
  const auto allocate_by = [&](const char* name) {
    plan_.layer_allocators = {{name, {{"file", file_of(importance).string()}}, ""}};
    return message([&] { replay(traces_, plan_, registry_, kQuiet); });
  };
  for (const char* name : {"depthkv", "optimised"}) EXPECT_EQ(allocate_by(name), "no error") << name;
  plan_.cut = Cut::context;
  for (const char* name : {"depthkv", "optimised"})
    EXPECT_THAT(allocate_by(name), HasSubstr("measured at the cut prompt, the plan prunes at the cut context"));
  plan_.cut = Cut::prompt;
  importance.fingerprint = "0000000000000000";
  for (const char* name : {"depthkv", "optimised"}) EXPECT_THAT(allocate_by(name), HasSubstr("0000000000000000"));
}

TEST_F(ImportanceTest, RefusesWhatCantBeMeasured) {
  plan_.scorers.push_back({"knorm", {}, ""});
  EXPECT_THAT(message([&] { measured(); }), HasSubstr("name one each"));
  plan_.scorers = {{"knorm", {}, ""}};
  plan_.keep = {0.5, 1};
  EXPECT_THAT(message([&] { measured(); }), HasSubstr("below 1"));
  plan_.keep = {0.5};
  plan_.structures = {{"block", {}, ""}};
  EXPECT_THAT(message([&] { measured(); }), HasSubstr("measure under structure token"));
  plan_.structures = {{"token", {}, ""}};
  plan_.scorers = {{"explicit", {}, ""}};
  EXPECT_THAT(message([&] { measured(); }), HasSubstr("needs a file of scores"));
  plan_.scorers = {{"knorm", {}, ""}};
  TinyModel other({.seed = 5, .layers = kLayers});
  EXPECT_THAT(message([&] { measure_importance(other, traces_, plan_, registry_, kQuiet); }),
              HasSubstr("give the same file"));
}

}  // namespace
}  // namespace depthkv
