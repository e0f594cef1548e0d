// SPDX-License-Identifier: Apache-2.0
// A study on a small transformer: views, metrics, correlations, comparisons.
#include "depthkv/study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "depthkv/error.h"
#include "depthkv/progress.h"
#include "depthkv/record.h"
#include "depthkv/report.h"
#include "replay/view_metrics.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/tiny_model.h"

namespace depthkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int kStudyLayers = 3;

class StudyTest : public testing::Test {
 protected:
  StudyTest() {
    std::string lines;
    for (const std::string task : {"x", "y"})
      for (const std::string n : {"0", "1", "2"})
        lines += R"({"id": ")" + task + n + R"(", "task": ")" + task + R"(", "context": "The code of box )" + n +
                 R"( is 4)" + n + R"(17. Grass grows. Rain falls on the hills, day after day.", )" +
                 R"("question": "What?", "max_new_tokens": 6, "metric": "f1", "answers": ["4"]})" + "\n";
    TracePlan plan;
    plan.tasks = {{write_text(scratch_ / "t.jsonl", lines)}};
    apply_preset(Preset::study, plan);
    record_traces(model_, plan, scratch_ / "traces", kQuiet);
    traces_ = open_trace_set(scratch_ / "traces");
    views_.documents = 4;
    views_.views = 4;
    views_.tokens = 40;
    views_.threads = 1;
    plan_.scorers = {{"h2o", {}, ""}};
    plan_.protect = {{1, 4}};
    plan_.layer_allocators = {{"uniform", {}, ""}};
    plan_.head_allocators = {{"uniform", {}, ""}};
    plan_.keep = {0.4};
  }

  std::vector<MetricProfile> profiles() {
    const ViewSet set = record_views(model_, traces_, views_, scratch_ / "views", kQuiet);
    return measure_representations(set, traces_, views_, kQuiet);
  }

  ScratchDirectory scratch_;
  TinyModel model_{{.layers = kStudyLayers}};
  TraceSet traces_;
  ViewPlan views_;
  ReplayPlan plan_;
  Registry registry_ = builtin_policies();
};

TEST_F(StudyTest, SplitsEveryTask) {
  const SplitSet split = split_set(traces_, 1);
  const auto names = [](const TraceSet& set) {
    std::vector<std::string> found;
    for (const auto& file : set.files) found.push_back(file.stem().string());
    return found;
  };
  EXPECT_THAT(names(split.learn), ElementsAre("x0", "y0"));
  EXPECT_THAT(names(split.judge), ElementsAre("x1", "x2", "y1", "y2"));
  EXPECT_THROW(split_set(traces_, 3), InputError);
}

TEST_F(StudyTest, DocumentsAreThePiecesOfContextsInTurn) {
  views_.documents = 8;
  const ViewSet set = record_views(model_, traces_, views_, scratch_ / "views", kQuiet);
  EXPECT_EQ(set.documents, 8);
  ASSERT_EQ(set.files.size(), 32U);
  EXPECT_EQ(set.files[0].filename(), "x0.part0.view0.h5");
  EXPECT_EQ(set.files[4 * 6].filename(), "x0.part1.view0.h5");  // six samples have a first piece
  const Trace view = Trace::open(set.files[0]);
  EXPECT_LE(view.sample().segments.prompt_end, views_.tokens);
  EXPECT_NE(view.sample().prompt_text, Trace::open(set.files[1]).sample().prompt_text);
  views_.documents = 2;
  views_.tokens = 4000;
  EXPECT_THROW(record_views(model_, traces_, views_, scratch_ / "none", kQuiet), InputError);
}

TEST_F(StudyTest, MetricsAreThoseOfTheViewsVectors) {
  const std::vector<MetricProfile> found = profiles();
  ASSERT_EQ(found.size(), 7 * kStages.size());
  const ViewSet set = record_views(model_, traces_, views_, scratch_ / "views", kQuiet);
  for (int layer = 0; layer < kStudyLayers; ++layer) {
    for (std::size_t stage = 0; stage < kStages.size(); ++stage) {
      std::vector<Tensor> means;
      std::vector<std::span<const float>> vectors;
      for (const auto& file : set.files) means.push_back(Trace::open(file).hidden_unit_mean(layer));
      for (const Tensor& mean : means) vectors.push_back(mean.view().row(static_cast<std::int64_t>(stage), 0));
      const ViewGram gram(vectors, 4);
      const auto l = static_cast<std::size_t>(layer);
      EXPECT_EQ(found[stage].metric, "infonce");
      EXPECT_EQ(found[stage].stage, kStages[stage]);
      EXPECT_EQ(found[stage].value[l], gram.infonce(std::vector<std::size_t>{0, 1, 2, 3}, 0.1));
      EXPECT_LE(found[stage].interval[l].low, found[stage].value[l] + 1e-12);
      EXPECT_GE(found[stage].interval[l].high, found[stage].value[l] - 1e-12);
      double curvature = 0;
      for (const auto& file : traces_.files)
        curvature += static_cast<double>(
            Trace::open(file).hidden_scalars(layer).view().row(static_cast<std::int64_t>(stage), 0)[0]);
      EXPECT_EQ(found[3 * kStages.size() + stage].metric, "curvature");
      EXPECT_NEAR(found[3 * kStages.size() + stage].value[l], curvature / 6, 1e-6);
    }
  }
}

TEST_F(StudyTest, ResultsAreTheSameForAnyNumberOfThreads) {
  const std::vector<MetricProfile> one = profiles();
  views_.threads = 3;
  const std::vector<MetricProfile> three = profiles();
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].value, three[i].value);
    EXPECT_EQ(one[i].draws, three[i].draws);
  }
}

// Drops of three layers on four samples, and a metric that orders layers as their means do.
TEST(Correlate, GoesByTaskAndOverAll) {
  std::vector<AblationRow> rows;
  for (int s = 0; s < 4; ++s)
    for (int layer = 0; layer < 4; ++layer)
      for (const double keep : {0.4, 1.0})
        rows.push_back({std::to_string(s), s < 2 ? "x" : "y", keep, layer,
                        keep == 1 ? 0.5 : 0.5 + (s < 2 ? layer : 10 * layer) + 0.1 * s, 0, 0});
  MetricProfile rising{"infonce", Stage::att, {1, 2, 3, 4}, {}, {{1, 2, 3, 4}, {1, 2, 4, 3}}};
  const std::vector<MetricCorrelation> found = correlate({rising}, rows);
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].task, "all");
  EXPECT_EQ(found[1].task, "x");
  for (const MetricCorrelation& it : found) {
    EXPECT_EQ(it.drop, Drop::kl);
    EXPECT_EQ(it.spearman.value, 1);
    EXPECT_NEAR(it.spearman.interval.low, 0.8, 0.02);
    EXPECT_NEAR(it.kendall.interval.high, 1, 0.02);
  }
}

TEST(VersusUniform, IsPairedBySample) {
  ResultTable results;
  results.samples.resize(3);
  for (std::size_t s = 0; s < 3; ++s) results.samples[s].task = s < 2 ? "x" : "y";
  LayerAllocator uniform, other;
  uniform.name = "uniform";
  other.name = "other";
  results.policies.layer_allocators = {uniform, other};
  Verification verification;
  verification.candidates = {{{{0, 0, 0}, 0.4}, 0, 0, "uniform"}, {{{0, 1, 0}, 0.4}, 1, 0, "top"}};
  const double none = kUnmeasured;
  const double kl[2][3] = {{1, 2, 3}, {0.5, 1, none}};
  const double score[2][3] = {{0.5, none, 0.1}, {0.75, 0.5, 0.1}};
  for (std::size_t c = 0; c < 2; ++c) {
    for (std::size_t s = 0; s < 3; ++s) {
      VerifyRow row;
      row.candidate = c;
      row.sample = s;
      row.kl = kl[c][s];
      row.score = score[c][s];
      verification.rows.push_back(row);
    }
  }
  const std::vector<VersusUniform> found = compare_to_uniform(results, verification);
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].task, "all");
  EXPECT_EQ(found[0].candidate, 1U);
  EXPECT_EQ(found[0].samples, 2U);
  EXPECT_DOUBLE_EQ(found[0].kl, 0.75);
  EXPECT_DOUBLE_EQ(found[0].kl_difference.value, -0.75);
  EXPECT_DOUBLE_EQ(found[0].kl_difference.interval.low, -1);
  EXPECT_DOUBLE_EQ(found[0].kl_ratio.value, 0.5);
  EXPECT_DOUBLE_EQ(found[0].kl_ratio.interval.high, 0.5);
  EXPECT_EQ(found[0].scored, 2U);
  EXPECT_DOUBLE_EQ(found[0].score_difference.value, 0.125);
  EXPECT_EQ(found[2].task, "y");
  EXPECT_EQ(found[2].samples, 0U);
  EXPECT_TRUE(std::isnan(found[2].kl));
}

TEST_F(StudyTest, LeavesTablesDrawingsAndAPage) {
  Study study;
  study.ablation = measure_importance(model_, traces_, plan_, registry_, kQuiet, {}, 4);
  study.tests = survey_layers(study.ablation.rows);
  study.profiles = profiles();
  study.correlations = correlate(study.profiles, study.ablation.rows);
  add_representations(study.ablation.importance, study.profiles);
  EXPECT_EQ(study.ablation.importance.layers[1].representations.at("dime")[2], study.profiles[6].value[1]);
  write_importance(study.ablation.importance, scratch_ / "importance.json");
  const std::string file = (scratch_ / "importance.json").string();
  plan_.layer_allocators = {{"uniform", {}, ""},
                            {"mlp", {{"protect_middle", std::int64_t{1}}}, ""},
                            {"mga", {{"file", file}}, ""},
                            {"optimised", {{"file", file}}, ""}};
  const ResultTable results = replay(traces_, with_bounds(plan_), registry_, kQuiet);
  const Verification verification =
      verify(model_, traces_, results,
             {.top = 4, .scorers = {"h2o"}, .controls = 1, .keep = {0.4}, .max_new = 4, .bounds = true}, kQuiet);
  EXPECT_EQ(verification.candidates.back().role, kBound);
  for (const VerifyRow& row : verification.rows) {
    double kept = 0;
    for (const double share : row.kept) kept += share / kStudyLayers;
    EXPECT_NEAR(kept, 0.4, 0.02);
  }
  write_study_csv(study, scratch_.path());
  write_study_report(study, results, verification, scratch_.path());
  const std::string page = read_text(scratch_ / "study.html");
  for (const char* part : {"Which allocation is best?", "mlp", "optimised", "oracle", "infonce", "permutation test"})
    EXPECT_THAT(page, HasSubstr(part));
  for (const char* name : {"outcome", "budgets", "predicted", "ablation-kl", "ablation-score", "metrics"})
    EXPECT_THAT(read_text(scratch_ / (std::string(name) + ".svg")), HasSubstr("<svg xmlns")) << name;
  EXPECT_THAT(read_text(scratch_ / "comparisons.csv"), HasSubstr("0.4,bound,h2o"));
  EXPECT_THAT(read_text(scratch_ / "correlations.csv"), HasSubstr("infonce,att,all,kl,"));
  EXPECT_THAT(read_text(scratch_ / "budgets.csv"), HasSubstr("layer,kept"));
  EXPECT_THAT(comparisons_table(results, verification), HasSubstr("KL over uniform's"));
}

}  // namespace
}  // namespace depthkv
