// SPDX-License-Identifier: Apache-2.0
// bench/compare.py on outputs written by hand.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

class CompareTest : public testing::Test {
 protected:
  // One benchmark, "op", with those times, and the aggregates that Google Benchmark adds.
  std::string output(const char* name, const std::vector<double>& times, const char* unit = "us") {
    std::string runs;
    for (const double time : times)
      runs += fmt::format(
          R"({{"name": "op", "run_name": "op", "run_type": "iteration", "cpu_time": {}, "real_time": 1, "time_unit": "{}"}},)",
          time, unit);
    runs +=
        R"({"name": "op_mean", "run_name": "op", "run_type": "aggregate", "cpu_time": 1e9, "real_time": 1, "time_unit": "us"})";
    const std::filesystem::path path = scratch_.path() / name;
    write_text(path, R"({"context": {"host_name": "here", "num_cpus": 2, "mhz_per_cpu": 2000}, "benchmarks": [)" +
                         runs + "]}");
    return path.string();
  }
  CommandResult compare(const std::string& old, const std::string& changed) {
    return run_command({"python3", (kSource / "bench/compare.py").string(), old, changed});
  }

  ScratchDirectory scratch_;
  const std::vector<double> narrow_{100, 101, 102, 103, 104, 105};
  const std::vector<double> wide_{80, 90, 100, 110, 120, 130};
};

TEST_F(CompareTest, IntervalsThatAreApartAreFastOrSlow) {
  const std::string a = output("a.json", narrow_);
  const std::string b = output("b.json", {106, 107, 108, 109, 110, 111});
  const CommandResult slow = compare(a, b);
  EXPECT_EQ(slow.exit_code, 1) << slow.errors;
  EXPECT_THAT(slow.output, HasSubstr("102.5 [100, 105] us -> 108.5 [106, 111] us  1.06 times  SLOW"));
  const CommandResult fast = compare(b, a);
  EXPECT_EQ(fast.exit_code, 0) << fast.errors;
  EXPECT_THAT(fast.output, HasSubstr("0 SAME, 1 FAST, 0 SLOW, 0 UNCLEAR"));
}

TEST_F(CompareTest, IntervalsThatOverlapAreTheSameOnlyIfNarrow) {
  const std::string a = output("a.json", narrow_);
  EXPECT_THAT(compare(a, output("b.json", {105, 106, 107, 108, 109, 110})).output, HasSubstr(" SAME\n"));
  EXPECT_THAT(compare(a, output("c.json", wide_)).output, HasSubstr(" UNCLEAR\n"));
  EXPECT_THAT(compare(output("d.json", wide_), a).output, HasSubstr(" UNCLEAR\n"));
}

TEST_F(CompareTest, UnitsAreConverted) {
  const std::string a = output("a.json", narrow_);
  EXPECT_THAT(compare(a, output("b.json", {0.1, 0.101, 0.102, 0.103, 0.104, 0.105}, "ms")).output,
              HasSubstr(" SAME\n"));
}

TEST_F(CompareTest, WhatCannotBeComparedIsSaid) {
  const std::string a = output("a.json", narrow_);
  const CommandResult few = compare(a, output("b.json", {1, 2, 3}));
  EXPECT_EQ(few.exit_code, 2);
  EXPECT_THAT(few.errors, HasSubstr("op has 3 repetitions, expected at least 6"));
  write_text(scratch_.path() / "c.json", "no");
  const CommandResult broken = compare(a, (scratch_.path() / "c.json").string());
  EXPECT_EQ(broken.exit_code, 2);
  EXPECT_THAT(broken.errors, HasSubstr("c.json isn't an output of Google Benchmark"));
}

}  // namespace
}  // namespace depthkv
