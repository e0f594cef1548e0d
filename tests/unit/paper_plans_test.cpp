// SPDX-License-Identifier: Apache-2.0
// configs/depthkv-paper on small stand-ins for the paper's files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/plan.h"
#include "depthkv/error.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

const std::filesystem::path kPlans = kSource / "configs/depthkv-paper";

// One line in the layout that README.md gives for each of the files.
const std::map<std::string, std::string> kLines{
    {"arxiv", R"({"article": "Text.", "abstract": "A."})"},
    {"pubmed", R"({"article": "Text.", "abstract": "A."})"},
    {"govreport", R"({"report": "Text.", "summary": "A."})"},
    {"legalcase", R"({"judgement": "Text.", "summary": "A."})"},
    {"qasper", R"({"_id": "q1", "context": "Text.", "input": "Who?", "answers": ["A.", "B."], "length": 9})"},
    {"hotpotqa", R"({"_id": "h1", "context": "Text.", "input": "Who?", "answers": ["A."], "length": 9})"},
    {"gsm-infinite", R"({"problem": "3 foxes.", "question": "How many?", "solution": "So 3. Answer: 3.", "op": 2})"}};

struct PaperPlan {
  const char* name;
  const char* variable;
  std::size_t layers;
};

class PaperPlans : public testing::TestWithParam<PaperPlan> {
 protected:
  PaperPlans() {
    for (const auto& [name, line] : kLines) write_text(scratch_ / (name + ".jsonl"), line + "\n");
    setting_.variables = {{"DEPTHKV_PAPER_DATA", scratch_.path().string()},
                          {GetParam().variable, write_text(scratch_ / "m.gguf", "").string()}};
  }
  Plan load() const {
    return load_plan(kPlans / (std::string(GetParam().name) + ".yaml"), {}, builtin_policies(), setting_);
  }
  std::string error() const {
    try {
      load();
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }

  ScratchDirectory scratch_;
  PlanSetting setting_{.expect_files = true};
};

TEST_P(PaperPlans, HaveThePapersDataBudgetsAndStrategies) {
  const Plan plan = load();
  EXPECT_EQ(plan.batch, 1024);
  EXPECT_EQ(plan.replay.keep, std::vector<double>{0.4});
  EXPECT_EQ(plan.verify->max_new, 500);
  EXPECT_EQ(plan.trace->max_new, 500);
  ASSERT_EQ(plan.trace->tasks.size(), kLines.size());
  for (const TaskSource& source : plan.trace->tasks) {
    const TaskSample sample = read_tasks(source).at(0);
    EXPECT_EQ(sample.task, source.file.stem());
    EXPECT_FALSE(sample.question.empty()) << sample.task;
    EXPECT_FALSE(sample.answers.empty()) << sample.task;
  }
  std::vector<std::string> layers;
  for (const PolicySpec& spec : plan.replay.layer_allocators) layers.push_back(spec.name);
  EXPECT_THAT(layers, testing::ElementsAre("uniform", "mlp", "mga", "mlma", "depthkv", "optimised", "oracle"));
  EXPECT_EQ(static_cast<std::size_t>(plan.verify->top), layers.size() - 1) << "all but the bound are verified";
  EXPECT_TRUE(plan.study && plan.verify->bounds);
}

// Of prompts of 1,000 tokens, much shorter than the paper's.
TEST_P(PaperPlans, MiddlesFitIntoTheBudget) {
  LayerInput input;
  input.shape.tokens = 1000;
  input.protected_per_head = 36;
  input.shape.layers.assign(GetParam().layers, {8, 4, 128});
  const Plan plan = load();
  for (const PolicySpec& spec : plan.replay.layer_allocators) {
    if (spec.name != "mlp") continue;  // mlma has as wide a one
    const LayerAllocator allocator = builtin_policies().make_layer_allocator(spec);
    const Budget budget = budget_from_keep(input.shape, 0.4);
    std::int64_t total = 0;
    for (const std::int64_t entries : allocator.prepare(input)(budget)) total += entries;
    EXPECT_EQ(total, budget.entries) << spec.name;
  }
}

TEST_P(PaperPlans, SayWhatIsMissing) {
  std::filesystem::remove(scratch_ / "pubmed.jsonl");
  std::filesystem::remove(scratch_ / "m.gguf");
  EXPECT_THAT(error(),
              testing::ContainsRegex("yaml:2: model: .*m.gguf\n.*yaml:[0-9]+: trace.tasks.path: .*pubmed.jsonl"));
  setting_.variables.erase("DEPTHKV_PAPER_DATA");
  EXPECT_THAT(error(), AllOf(HasSubstr("trace.tasks.path"), HasSubstr("DEPTHKV_PAPER_DATA is not set")));
}

INSTANTIATE_TEST_SUITE_P(Models, PaperPlans,
                         testing::Values(PaperPlan{"gemma-7b-it", "DEPTHKV_GEMMA_7B_IT", 28},
                                         PaperPlan{"llama-3.1-8b-instruct", "DEPTHKV_LLAMA_3_1_8B_INSTRUCT", 32},
                                         PaperPlan{"qwen2.5-7b-instruct", "DEPTHKV_QWEN2_5_7B_INSTRUCT", 28}),
                         [](const auto& plan) {
                           std::string name;
                           for (const char c : std::string(plan.param.name))
                             if (std::isalnum(static_cast<unsigned char>(c)) != 0) name += c;
                           return name;
                         });

}  // namespace
}  // namespace depthkv
