// SPDX-License-Identifier: Apache-2.0
// Replays that find their curves in a folder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "depthkv/error.h"
#include "depthkv/progress.h"
#include "depthkv/replay.h"
#include "depthkv/report.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

class CurveCache : public testing::Test {
 protected:
  CurveCache() {
    SyntheticTrace options;
    options.layers = 2;
    options.segments = {{3, 40}, 50};
    options.tokens = 56;
    write_synthetic_trace(scratch_ / "traces", options);
    plan_.scorers = {{"snapkv", {{"window", std::int64_t{8}}}, "test"}};
    plan_.layer_allocators = {{"uniform", {}, "test"}, {"cake", {{"window", std::int64_t{8}}}, "test"}};
    plan_.head_allocators = {{"uniform", {}, "test"}};
    plan_.protect = {{2, 4}};
    plan_.observed_rows = 8;
    plan_.threads = 1;
    plan_.cache = scratch_ / "cache";
  }

  std::string results(const ReplayPlan& plan) {
    const ResultTable table = replay(open_trace_set(scratch_ / "traces"), plan, builtin_policies(), kQuiet);
    EXPECT_FALSE(table.any_skipped());
    write_results_csv(table, scratch_ / "results.csv");
    return read_text(scratch_ / "results.csv");
  }
  // Name and content of every file in the cache.
  std::map<std::string, std::string> files() {
    std::map<std::string, std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(plan_.cache))
      all[entry.path().filename().string()] = read_text(entry.path());
    return all;
  }
  std::string uncached(ReplayPlan plan) {
    plan.cache.clear();
    return results(plan);
  }

  ScratchDirectory scratch_;
  ReplayPlan plan_;
};

TEST_F(CurveCache, ASecondReplayReadsItAndGivesTheSameBytes) {
  const std::string first = results(plan_);
  EXPECT_EQ(first, uncached(plan_));
  std::map<std::string, std::filesystem::file_time_type> times;
  for (const auto& entry : std::filesystem::directory_iterator(plan_.cache)) {
    const auto long_ago = entry.last_write_time() - std::chrono::hours(1);
    std::filesystem::last_write_time(entry.path(), long_ago);
    times[entry.path().filename().string()] = entry.last_write_time();
  }
  ASSERT_GE(times.size(), 2U) << "curves, and what an allocator measured";
  for (const int threads : {1, 3}) {
    plan_.threads = threads;
    EXPECT_EQ(results(plan_), first);
  }
  for (const auto& entry : std::filesystem::directory_iterator(plan_.cache))
    EXPECT_LT(entry.last_write_time(), std::filesystem::file_time_type::clock::now() - std::chrono::minutes(30))
        << "made again: " << entry.path();
  EXPECT_EQ(files().size(), times.size());
}

// Each file in turn: cut short, and a bit turned over in the magic, the key, the sizes of blocks and their data.
TEST_F(CurveCache, DamageIsNoticedAndMadeAgain) {
  const std::string expected = results(plan_);
  for (const auto& [name, whole] : files()) {
    const auto expect_repaired = [&](const std::string& damaged, const std::string& how) {
      write_text(plan_.cache / name, damaged);
      EXPECT_EQ(results(plan_), expected) << name << ' ' << how;
      EXPECT_TRUE(read_text(plan_.cache / name) == whole) << name << ' ' << how;
    };
    for (const std::size_t length : {std::size_t{0}, std::size_t{5}, whole.size() / 2, whole.size() - 1})
      expect_repaired(whole.substr(0, length), "cut to " + std::to_string(length));
    std::uint64_t key = 0;
    std::copy_n(whole.begin() + 8, sizeof key, reinterpret_cast<char*>(&key));
    const std::size_t blocks = 16 + key;
    std::vector<std::size_t> places{0, 9, 20, blocks - 1};
    for (std::size_t i = 0; i < 34; ++i) places.push_back(blocks + i);  // sizes and checksum of the first, and its data
    for (std::size_t i = 1; i < 12; ++i) places.push_back(blocks + (whole.size() - 1 - blocks) * i / 11);
    for (const std::size_t place : places) {
      std::string damaged = whole;
      damaged.at(place) = static_cast<char>(damaged.at(place) ^ (1 << place % 8));
      expect_repaired(damaged, "bit " + std::to_string(place % 8) + " of byte " + std::to_string(place));
    }
  }
}

TEST_F(CurveCache, AChangedParameterDoesNotHit) {
  std::string last = results(plan_);
  std::size_t there = files().size();
  const auto expect_made = [&](const ReplayPlan& plan, const char* what) {
    const std::string now = results(plan);
    EXPECT_EQ(now, uncached(plan)) << what;
    EXPECT_GT(files().size(), there) << what;
    there = files().size();
  };
  ReplayPlan plan = plan_;
  plan.scorers[0].params["kernel"] = std::int64_t{3};
  expect_made(plan, "scorer");
  plan = plan_;
  plan.protect = {{2, 5}};
  expect_made(plan, "protect");
  plan = plan_;
  plan.structures = {{"shared", {}, "test"}};
  expect_made(plan, "structure");
  plan.structures = {{"shared", {{"reduce", std::string("max")}}, "test"}};
  expect_made(plan, "structure's");
  plan = plan_;
  plan.layer_allocators[1].params["window"] = std::int64_t{4};
  expect_made(plan, "layer allocator");
  plan = plan_;
  plan.cut = Cut::context;
  expect_made(plan, "cut");
  plan = plan_;
  plan.observed_rows = 4;
  expect_made(plan, "observed rows");
  plan = plan_;
  plan.device = Device::reference;
  expect_made(plan, "device");
  plan = plan_;
  plan.keep = {0.5};  // curves hold every budget
  results(plan);
  EXPECT_EQ(files().size(), there);
}

TEST_F(CurveCache, AFolderThatCannotBeWrittenToIsTheUsersMistake) {
  const auto message = [&](const std::filesystem::path& folder) -> std::string {
    ReplayPlan plan = plan_;
    plan.cache = folder;
    try {
      results(plan);
    } catch (const InputError& error) {
      return error.what();
    }
    return "accepted";
  };
  using testing::HasSubstr;
  using testing::StartsWith;
  const auto file = write_text(scratch_ / "file", "");
  EXPECT_THAT(message(file), AllOf(StartsWith(file.string()), HasSubstr("--cache")));
  EXPECT_THAT(message(file / "below"), AllOf(StartsWith(file.string()), HasSubstr("--cache")));
  // Root may write to any folder but this one.
  if (std::filesystem::exists("/proc/self")) {
    EXPECT_THAT(message("/proc"), AllOf(StartsWith("/proc: no file"), HasSubstr("--cache")));
  }
}

}  // namespace
}  // namespace depthkv
