// SPDX-License-Identifier: Apache-2.0
// Verify and importance, interrupted and gone on with: what comes out is what an uninterrupted run writes.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "depthkv/progress.h"
#include "depthkv/record.h"
#include "depthkv/report.h"
#include "replay/model_work.h"
#include "replay/sample_store.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/tiny_model.h"

namespace depthkv {
namespace {

// Counts prefills and what branches are fed.
class CountingModel : public TinyModel {
 public:
  using TinyModel::TinyModel;
  std::unique_ptr<Branches> branch(std::span<const Token> prefix, std::span<const KeepMask> masks,
                                   std::int64_t capacity) override {
    ++prefills;
    prompt_tokens += static_cast<std::int64_t>(prefix.size());
    branches = std::max(branches, static_cast<std::int64_t>(masks.size()));
    return TinyModel::branch(prefix, masks, capacity);
  }
  int prefills = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t branches = 0;
};

// With a context of so many tokens; `most` is what any branch could hold.
class NarrowModel : public TinyModel {
 public:
  explicit NarrowModel(std::int64_t context) : card_(TinyModel::card()) { card_.context_length = context; }
  const ModelCard& card() const override { return card_; }
  std::unique_ptr<Branches> branch(std::span<const Token> prefix, std::span<const KeepMask> masks,
                                   std::int64_t capacity) override {
    most = std::max(most, static_cast<std::int64_t>(prefix.size()) + capacity);
    return TinyModel::branch(prefix, masks, capacity);
  }
  std::int64_t most = 0;

 private:
  ModelCard card_;
};

class ResumeTest : public testing::Test {
 protected:
  ResumeTest() {
    std::string lines;
    for (const std::string n : {"0", "1", "2"})
      lines += R"({"id": "s)" + n + R"(", "task": "t", "context": "The code of box )" + n + R"( is 4)" + n +
               R"(17. Grass grows. Rain falls on the hills.", "question": "What is it?", "answers": ["4"], )" +
               R"("max_new_tokens": 8, "metric": "f1"})" + "\n";
    TracePlan plan;
    plan.tasks = {{write_text(scratch_ / "t.jsonl", lines)}};
    record_traces(model_, plan, scratch_ / "traces", kQuiet);
    traces_ = open_trace_set(scratch_ / "traces");
    replay_plan_.scorers = {{"h2o", {}, ""}, {"knorm", {}, ""}, {"snapkv", {{"window", std::int64_t{8}}}, ""}};
    replay_plan_.protect = {{1, 4}};
    replay_plan_.layer_allocators = {{"uniform", {}, ""}, {"pyramid", {}, ""}};
    replay_plan_.head_allocators = {{"uniform", {}, ""}};
    replay_plan_.keep = {0.2, 0.6};
    results_ = replay(traces_, replay_plan_, registry_, kQuiet);
    verify_plan_ = {.top = 2, .controls = 2, .keep = {0.2, 0.6}, .max_new = 5};
  }

  // Stops when `sample` samples are done; 3: never.
  static Progress until(std::int64_t sample) {
    return [sample](std::string_view, std::int64_t done, std::int64_t total, std::string_view) {
      if (done == sample && done < total) throw Interrupted();
    };
  }

  std::string verified(const std::filesystem::path& kept, const Progress& progress = kQuiet) {
    write_verify_csv(results_, verify(model_, traces_, results_, verify_plan_, progress, kept),
                     scratch_ / "verify.csv");
    return read_text(scratch_ / "verify.csv");
  }
  std::string measured(const std::filesystem::path& kept, const Progress& progress = kQuiet) {
    ReplayPlan plan = replay_plan_;
    plan.scorers = {{"knorm", {}, ""}};
    const Ablation found = measure_importance(model_, traces_, plan, registry_, progress, kept);
    write_ablation_csv(found.rows, scratch_ / "importance.csv");
    write_importance(found.importance, scratch_ / "importance.json");
    return read_text(scratch_ / "importance.csv") + read_text(scratch_ / "importance.json");
  }
  int prefills_of(const std::function<void()>& act) {
    model_.prefills = 0;
    act();
    return model_.prefills;
  }

  ScratchDirectory scratch_;
  CountingModel model_{{.layers = 3}};
  Registry registry_ = builtin_policies();
  TraceSet traces_;
  ReplayPlan replay_plan_;
  ResultTable results_;
  VerifyPlan verify_plan_;
};

TEST_F(ResumeTest, AnInterruptedVerificationGoesOnToTheSameBytes) {
  const std::string whole = verified({});
  for (const std::int64_t done : {1, 2}) {
    const auto kept = scratch_ / ("kept" + std::to_string(done));
    EXPECT_THROW(verified(kept, until(done)), Interrupted);
    EXPECT_EQ(prefills_of([&] { EXPECT_EQ(verified(kept), whole); }), 3 - done);
    EXPECT_EQ(prefills_of([&] { EXPECT_EQ(verified(kept), whole); }), 0);
  }
}

TEST_F(ResumeTest, AnInterruptedAblationGoesOnToTheSameBytes) {
  const std::string whole = measured({});
  EXPECT_THROW(measured(scratch_ / "kept", until(2)), Interrupted);
  EXPECT_EQ(prefills_of([&] { EXPECT_EQ(measured(scratch_ / "kept"), whole); }), 1);
}

TEST_F(ResumeTest, WhatIsDamagedOrForeignIsComputedAgain) {
  const std::string whole = verified({});
  const auto kept = scratch_ / "kept";
  verified(kept);
  measured(scratch_ / "other");
  const std::string good = read_text(kept / "s1.rows");
  std::string changed = good;
  changed[changed.size() / 2] ^= 1;
  for (const std::string& bytes :
       {std::string(), good.substr(0, 10), good.substr(0, good.size() - 1), good + "x", changed,
        std::string("{\"rows\": []}"), read_text(kept / "s2.rows"), read_text(scratch_ / "other" / "s1.rows")}) {
    write_text(kept / "s1.rows", bytes);
    EXPECT_EQ(prefills_of([&] { EXPECT_EQ(verified(kept), whole); }), 1) << bytes.size();
  }
}

TEST_F(ResumeTest, WhateverDecidesRowsIsPartOfTheirKey) {
  const auto kept = scratch_ / "kept";
  const auto computes_again = [&](const char* what) {
    EXPECT_EQ(prefills_of([&] { verified(kept); }), 3) << what;
    EXPECT_EQ(prefills_of([&] { verified(kept); }), 0) << what;
  };
  computes_again("nothing there yet");
  verify_plan_.max_new = 4;
  computes_again("another bound");
  verify_plan_.reference = 0;
  computes_again("no likelihoods");
  for (const VerifyRow& row : verify(model_, traces_, results_, verify_plan_, kQuiet, kept).rows)
    EXPECT_TRUE(std::isnan(row.nll) && std::isnan(row.nll_full));
  verify_plan_.controls = 1;
  computes_again("other candidates");
  verify_plan_.keep = {0.6};
  computes_again("other keeps");
  replay_plan_.cut = Cut::context;
  results_ = replay(traces_, replay_plan_, registry_, kQuiet);
  computes_again("another cut");
  replay_plan_.scorers[2].params["window"] = std::int64_t{9};
  replay_plan_.scorers = {replay_plan_.scorers[2]};
  results_ = replay(traces_, replay_plan_, registry_, kQuiet);
  computes_again("another parameter");
  std::string lines = read_text(scratch_ / "t.jsonl");  // the same samples with other contexts
  for (std::size_t at; (at = lines.find("Grass")) != std::string::npos;) lines.replace(at, 5, "Wheat");
  TracePlan plan;
  plan.tasks = {{write_text(scratch_ / "t.jsonl", lines)}};
  record_traces(model_, plan, scratch_ / "traces", kQuiet);
  results_ = replay(traces_, replay_plan_, registry_, kQuiet);
  computes_again("another trace");
}

TEST_F(ResumeTest, TracesThatChangedSinceTheReplayAreRefused) {
  traces_.files.pop_back();
  EXPECT_THROW(verified({}), InputError);
}

TEST_F(ResumeTest, StoresNumbersAndBytesExactly) {
  const SampleStore store(scratch_ / "kept");
  const std::vector<double> numbers{0.1, -0.0, 1e-310, 1.0 / 3, std::numeric_limits<double>::infinity(), 1e300, 1.5};
  nlohmann::json found{{"numbers", numbers}, {"none", std::nan("")}, {"text", std::string("\xff\0\n\"\x80", 5)}};
  store.put("a", "key", found);
  const auto back = store.take("a", "key");
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->at("numbers").get<std::vector<double>>(), numbers);
  EXPECT_TRUE(std::signbit(back->at("numbers").at(1).get<double>()));
  EXPECT_TRUE(std::isnan(back->at("none").get<double>()));
  EXPECT_EQ(back->at("text").get<std::string>(), std::string("\xff\0\n\"\x80", 5));
  EXPECT_FALSE(store.take("a", "other key").has_value());
  EXPECT_FALSE(store.take("b", "key").has_value());
  write_text(scratch_ / "kept" / "theirs.txt", "x");
  store.clear();
  EXPECT_FALSE(store.take("a", "key").has_value());
  EXPECT_TRUE(std::filesystem::exists(scratch_ / "kept" / "theirs.txt"));
}

TEST_F(ResumeTest, WithoutAFolderNothingIsKept) {
  const SampleStore store({});
  store.put("a", "key", 1);
  EXPECT_FALSE(store.take("a", "key").has_value());
}

TEST_F(ResumeTest, AFolderThatCannotBeWrittenIsAnError) {
  write_text(scratch_ / "file", "x");
  EXPECT_THROW(verified(scratch_ / "file"), Error);
}

// Where the context ends soon behind a prompt, references and answers are as long as it allows.
TEST_F(ResumeTest, AnswersFitTheModelsContext) {
  std::int64_t longest = 0;
  for (const auto& file : traces_.files) longest = std::max(longest, Trace::open(file).sample().size());
  NarrowModel narrow(longest);
  verify_plan_.max_new = 1000;
  const Verification found = verify(narrow, traces_, results_, verify_plan_, kQuiet);
  EXPECT_EQ(narrow.most, longest);
  for (const VerifyRow& row : found.rows) EXPECT_TRUE(std::isfinite(row.score));
  narrow.most = 0;
  ReplayPlan alone = replay_plan_;
  alone.scorers = {{"knorm", {}, ""}};
  measure_importance(narrow, traces_, alone, registry_, kQuiet, {}, 1000);
  EXPECT_EQ(narrow.most, longest);
}

TEST_F(ResumeTest, WorkIsForetold) {
  const ModelWork work = verification_work(traces_, results_, verify_plan_);
  model_.prompt_tokens = 0;
  verified({});
  EXPECT_EQ(work.samples, 3);
  EXPECT_EQ(work.branches, model_.branches);
  EXPECT_EQ(work.prompt_tokens, model_.prompt_tokens);
  std::int64_t most = 0;
  for (const auto& file : traces_.files) {
    const Sample sample = Trace::open(file).sample();
    EXPECT_EQ(sample.size() - sample.segments.prompt_end, 8);
    most += work.branches * (7 + verify_plan_.reference - 1 + verify_plan_.max_new - 1);
  }
  EXPECT_EQ(work.branch_tokens, most);

  ReplayPlan alone = replay_plan_;
  const ModelWork pruned = importance_work(traces_, alone, 0);
  model_.branches = 0;
  measured({});
  EXPECT_EQ(pruned.branches, model_.branches);
  EXPECT_EQ(pruned.branch_tokens, 3 * pruned.branches * 7);
}

TEST(BranchRoom, IsBoundedByMemoryAndTheSameForAnyLoad) {
  ModelCard card;
  card.layers.assign(3, {.query_heads = 4, .kv_heads = 2, .head_dim = 8});
  constexpr std::int64_t kCell = 3 * 2 * 2 * 8 * 2;  // layers, keys and values, heads, dimensions, bytes
  const auto room = [&](std::size_t branches, std::int64_t memory) {
    return branch_room(card, 100, branches, 10, memory);
  };
  EXPECT_EQ(room(1, 1 << 30).together, 1);
  EXPECT_EQ(room(3, 1 << 30).together, 3);
  EXPECT_EQ(room(3, 1 << 30).cells, 130);
  EXPECT_EQ(room(3, 1 << 30).bytes, 130 * kCell);
  EXPECT_EQ(room(5, 4 * 20 * kCell).together, 2);  // a quarter of it holds two
  EXPECT_EQ(room(5, 4 * 20 * kCell - 4).together, 1);
  EXPECT_EQ(room(5, 0).together, 1);
  EXPECT_LT(room(1000, std::int64_t{1} << 50).together, 1000);
  EXPECT_EQ(branch_room(card, 100, 2, 0, 1 << 30).cells, 102);
  EXPECT_GT(machine_memory(), std::int64_t{1} << 28);
}

}  // namespace
}  // namespace depthkv
