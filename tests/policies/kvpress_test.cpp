// SPDX-License-Identifier: Apache-2.0
// Wherever a definition is kvpress's, what is kept is what kvpress keeps. kvpress_reference.py computes the presses
// from the same queries, keys and values by their published formulas, without our code; see there what counts as a tie.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "depthkv/progress.h"
#include "depthkv/replay.h"
#include "support/command.h"
#include "support/scratch.h"
#include "support/source.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

const std::vector<double> kKeep{0.2, 0.4, 0.6};
constexpr const char* kKeepTexts = "0.2,0.4,0.6";

// A press and what it is in our terms.
struct Case {
  std::string name;
  std::string press;
  PolicySpec scorer;
  PolicySpec structure{"token", {}, ""};
  PolicySpec layers{"uniform", {}, ""};
  PolicySpec heads{"uniform", {}, ""};
  double overlap = 0.995;  // at least, of every head's kept set
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.press; }

const PolicySpec kKnorm{"knorm", {}, ""};
PolicySpec snapkv(std::int64_t window) {
  return {"snapkv", {{"window", window}, {"kernel", std::int64_t{5}}, {"order", std::string("pool_then_group")}}, ""};
}
const PolicySpec kKvZip{"kvzip", {{"parity_bugs", true}}, ""};
const PolicySpec kKvZipPlus{"kvzip", {{"parity_bugs", true}, {"plus", true}}, ""};
const PolicySpec kNoFloor{"adakv", {{"mode", std::string("floor")}, {"alpha", 0.0}}, ""};
const PolicySpec kAdaKv{"adakv", {{"mode", std::string("floor")}, {"alpha", 0.2}}, ""};

std::vector<Case> cases() {
  const PolicySpec token{"token", {}, ""};
  const PolicySpec uniform{"uniform", {}, ""};
  const PolicySpec critical{"critical", {}, ""};
  const PolicySpec chunks{"chunk", {{"length", std::int64_t{20}}}, ""};
  return {
      {"Knorm", "knorm", kKnorm},
      {"StreamingLlm", "streaming_llm:sinks=4", {"sink_recent", {{"sinks", std::int64_t{4}}}, ""}},
      {"SnapKv", "snapkv:window=64,kernel=5", snapkv(64)},
      {"SnapKvNarrow", "snapkv:window=16,kernel=5", snapkv(16)},
      {"Tova", "tova", {"tova", {{"protect_last", true}}, ""}},
      {"Finch", "finch", {"finch", {{"parity_bugs", true}}, ""}},
      {"ObservedAttention", "observed_attention", {"observed", {}, ""}},
      {"AdaSnapKv", "adakv:alpha=0.2/snapkv:window=64", snapkv(64), token, uniform, kAdaKv},
      {"AdaKnorm", "adakv:alpha=0.2/knorm", kKnorm, token, uniform, kAdaKv},
      {"CriticalSnapKv", "criticalkv/snapkv:window=64", snapkv(64), critical},
      {"CriticalObserved", "criticalkv/observed_attention", {"observed", {}, ""}, critical},
      {"CriticalAdaSnapKv", "critical_adakv/snapkv:window=64", snapkv(64), critical, uniform, kAdaKv},
      {"KeyDiff", "keydiff", {"keydiff", {}, ""}},
      {"BlockKeyDiff",
       "block_press:size=128/keydiff",
       {"keydiff", {}, ""},
       {"block", {{"size", std::int64_t{128}}}, ""}},
      {"LagKv", "lagkv:sinks=4,lag=128", {"lagkv", {{"lag", std::int64_t{128}}}, ""}},
      {"LagKvShort", "lagkv:sinks=4,lag=32", {"lagkv", {{"lag", std::int64_t{32}}}, ""}},
      {"Cur", "cur:sinks=4,window=16", {"cur", {}, ""}},
      {"Leverage", "leverage", {"leverage", {{"sketch", std::int64_t{0}}}, ""}},
      {"NonCausal", "noncausal:chunk=256,padding=1", {"noncausal", {{"parity_bugs", true}}, ""}},
      {"NonCausalMasked", "noncausal:chunk=256,padding=0", {"noncausal", {}, ""}},
      {"Compactor", "compactor:padding=1", {"compactor", {{"sketch", std::int64_t{0}}, {"parity_bugs", true}}, ""}},
      {"ExpectedAttention", "expected_attention:skip=0", {"expected_attention", {}, ""}},
      {"Cap", "cap:skip=0", {"cap", {}, ""}},
      // kvpress leaves the first four rows out of the moments; a trace holds those of all.
      {"ExpectedAttentionOwnMoments",
       "expected_attention",
       {"expected_attention", {}, ""},
       token,
       uniform,
       uniform,
       0.97},
      {"CapOwnMoments", "cap", {"cap", {}, ""}, token, uniform, uniform, 0.97},
      // kvpress's window bounds its pyramid from both sides; at this beta neither bound is met.
      {"PyramidKv", "pyramidkv:beta=2,window=32/snapkv:window=32", snapkv(32), token, {"pyramid", {{"beta", 2.0}}, ""}},
      {"ChunkKvSnapKv", "chunkkv:length=20/snapkv:window=64", snapkv(64), chunks},
      {"ChunkKvKnorm", "chunkkv:length=20/knorm", kKnorm, chunks},
      {"ChunkKnorm", "chunk_press:length=160/knorm", kKnorm, {"chunked_prefill", {{"length", std::int64_t{160}}}, ""}},
      {"BlockKnorm", "block_press:size=128/knorm", kKnorm, {"block", {{"size", std::int64_t{128}}}, ""}},
      {"DmsKnorm",
       "dms:threshold=-5.5,window=128/knorm",
       kKnorm,
       {"threshold", {{"tau", -5.5}, {"window", std::int64_t{128}}}, ""}},
      {"KvZip", "pooled/kvzip", kKvZip, token, {"pooled", {}, ""}, kNoFloor},
      {"KvZipPlus", "pooled/kvzip:plus=1", kKvZipPlus, token, {"pooled", {}, ""}, kNoFloor},
      {"KvZipByLayer", "adakv:alpha=0/kvzip", kKvZip, token, uniform, kNoFloor},
      {"KvCompose", "composed/kvcompose", {"kvcompose", {}, ""}, token, {"kvcompose", {}, ""}},
      // Weights 2, 3, 1: importance above the lowest, plus one.
      {"PerLayerKnorm",
       "per_layer:factors=1+1.5+0.5/knorm",
       kKnorm,
       token,
       {"depthkv",
        {{"importance", std::vector<double>{1, 2, 0}},
         {"normalise", std::string("none")},
         {"map", std::string("shift")}},
        ""}},
      {"PerLayerExplicit",
       "per_layer:factors=1+1.5+0.5/knorm",
       kKnorm,
       token,
       {"explicit", {{"ratios", std::vector<double>{1, 1.5, 0.5}}}, ""}},
  };
}

class Kvpress : public testing::TestWithParam<Case> {
 protected:
  // One run of Python for all the presses that this process tests.
  static void SetUpTestSuite() {
    SyntheticTrace options;
    options.head_dim = 16;
    options.segments = {{3, 760}, 800};  // every keep of 800 entries is a whole number
    options.tokens = 808;
    options.all_queries = options.moments = options.output_norms = options.repeats = options.uneven = true;
    options.rotary_layout = "half_split";
    scratch_ = std::make_unique<ScratchDirectory>();
    const std::filesystem::path file = write_synthetic_trace(scratch_->path(), options);
    const char* python = std::getenv("DEPTHKV_PYTHON");
    ASSERT_NE(python, nullptr) << "DEPTHKV_PYTHON names a Python with numpy and h5py; scripts/env.sh sets it";
    const std::string script = kSource / "tests/policies/kvpress_reference.py";
    std::vector<std::string> command{python, script, file.string(), kKeepTexts};
    const auto& suite = *testing::UnitTest::GetInstance()->current_test_suite();
    for (const Case& one : cases()) {
      for (int i = 0; i < suite.total_test_count(); ++i) {
        const testing::TestInfo& test = *suite.GetTestInfo(i);
        if (test.should_run() && std::string(test.name()).ends_with("/" + one.name)) command.push_back(one.press);
      }
    }
    const CommandResult result = run_command(command);
    ASSERT_EQ(result.exit_code, 0) << result.errors;
    kept_by_kvpress_ = nlohmann::json::parse(result.output);
  }
  static void TearDownTestSuite() { scratch_.reset(); }

  static std::unique_ptr<ScratchDirectory> scratch_;
  static nlohmann::json kept_by_kvpress_;  // [press][keep][layer][KV head] {certain, tied}
};
std::unique_ptr<ScratchDirectory> Kvpress::scratch_;
nlohmann::json Kvpress::kept_by_kvpress_;

INSTANTIATE_TEST_SUITE_P(Policies, Kvpress, testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name; });

// Share of a head's kept set that agrees, tied entries counting for whoever keeps them.
double overlap(const std::vector<std::uint32_t>& kept, const nlohmann::json& sets) {
  const auto certain = sets.at(0).get<std::set<std::uint32_t>>();
  const auto tied = sets.at(1).get<std::set<std::uint32_t>>();
  const auto both = std::ranges::count_if(kept, [&](std::uint32_t j) { return certain.contains(j); });
  const auto foreign =
      std::ranges::count_if(kept, [&](std::uint32_t j) { return !certain.contains(j) && !tied.contains(j); });
  const auto missed = std::max(static_cast<std::int64_t>(certain.size()) - both, foreign);
  return 1 - static_cast<double>(missed) / static_cast<double>(std::max<std::size_t>(1, kept.size()));
}

TEST_P(Kvpress, KeepsTheSame) {
  const Case& tested = GetParam();
  ReplayPlan plan;
  plan.scorers = {tested.scorer};
  plan.structures = {tested.structure};
  plan.layer_allocators = {tested.layers};
  plan.head_allocators = {tested.heads};
  plan.protect = {{0, 0}};  // what a press protects is part of its scores
  plan.keep = kKeep;
  plan.threads = 1;
  int heads = 0;
  double least = 1;
  ReplayWatch watch;
  watch.kept = [&](const Sample&, const ResultTable& table, std::size_t policy, std::size_t keep, int layer,
                   const std::vector<std::vector<std::uint32_t>>& kept) {
    if (table.policy(policy) != PolicyIndex{0, 0, 0}) return;  // a bound that replay adds
    const nlohmann::json& expected = kept_by_kvpress_.at(tested.press).at(keep).at(static_cast<std::size_t>(layer));
    for (std::size_t g = 0; g < kept.size(); ++g) {
      const double agrees = overlap(kept[g], expected.at(g));
      EXPECT_GE(agrees, tested.overlap) << fmt::format("keep {}, layer {}, KV head {}: ours keeps {}", kKeep[keep],
                                                       layer, g, kept[g].size());
      least = std::min(least, agrees);
      ++heads;
    }
  };
  const ResultTable table = replay(open_trace_set(scratch_->path()), plan, builtin_policies(), kQuiet, watch);
  EXPECT_EQ(table.samples.at(0).why_skipped({0, 0, 0}), "");
  EXPECT_EQ(heads, 3 * 3 * 2) << "keeps, layers, KV heads";
  RecordProperty("least_overlap", fmt::format("{:.4f}", least));
}

}  // namespace
}  // namespace depthkv
