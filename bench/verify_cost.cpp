// SPDX-License-Identifier: Apache-2.0
// What verifying several policies from one prefill costs beside runs that each prefill. Run by bench/verify_cost.
#include <fmt/format.h>

#include <cstdlib>

#include "bench/long_sample.h"
#include "bench/timing.h"
#include "depthkv/progress.h"
#include "depthkv/replay.h"
#include "replay/divergence.h"

namespace depthkv {
namespace {

constexpr std::int64_t kAnswer = 64;    // tokens that every policy decodes
constexpr std::int64_t kQuestion = 48;  // tokens that every policy processes before them under the cut `context`
constexpr std::size_t kSlices = 4;      // rounds in which every policy has run alone once
constexpr double kBar = 0.20;

// Sixteen policies at keep 0.2.
std::vector<KeepMask> masks_of_policies(const Trace& trace) {
  ReplayPlan plan;
  for (const char* name : {"h2o", "snapkv", "knorm", "random", "keydiff", "tova", "sink_recent", "observed"})
    plan.scorers.push_back({name, {}, ""});
  plan.layer_allocators = {{"uniform", {}, ""}, {"pyramid", {}, ""}};
  plan.head_allocators = {{"adakv", {}, ""}};
  plan.keep = {0.2};
  const Policies policies = make_policies(plan, builtin_policies());
  std::vector<PolicyChoice> choices;
  for (std::size_t r = 0; r < policies.rankers.size(); ++r)
    for (std::size_t l = 0; l < policies.layer_allocators.size(); ++l) choices.push_back({{r, l, 0}, 0.2});
  return keep_masks(trace, plan, policies, choices);
}

// What a piece of work takes: by the clock, and of all threads together, which what others run hardly changes.
struct Cost {
  double seconds = 0;
  double processor = 0;

  void add(const Cost& other) { seconds += other.seconds, processor += other.processor; }
};

Cost cost_of(const std::function<void()>& work) {
  Cost cost;
  const double before = cpu_seconds();
  cost.seconds = seconds_of(work);
  cost.processor = cpu_seconds() - before;
  return cost;
}

struct Case {
  const char* name;
  std::int64_t question = 0;
  bool greedy = false;
};

class Runs {
 public:
  Runs(LlamaModel& model, const Trace& trace)
      : model_(model), sample_(trace.sample()), masks_(masks_of_policies(trace)) {
    cut_ = sample_.segments.prompt_end;
  }

  std::size_t policies() const { return masks_.size(); }
  std::int64_t prompt() const { return cut_; }

  // All policies from one prefill, as verify does it: beside the full cache, and compared with it.
  Cost together(const Case& what) const {
    std::vector<KeepMask> masks = masks_;
    masks.insert(masks.begin(), KeepMask::everything(model_.card()));
    return cost_of([&] {
      const auto branches = branch(masks);
      if (what.greedy) {
        branches->generate(question(what), kAnswer);
      } else {
        measure_divergence(*branches, masks.size(), judged(what), cut_);
      }
    });
  }

  // One policy by itself, compared with nothing.
  Cost alone(const Case& what, std::size_t policy) const {
    return cost_of([&] {
      const auto branches = branch({&masks_[policy], 1});
      if (what.greedy) {
        branches->generate(question(what), kAnswer);
      } else {
        const auto fed =
            std::span(sample_.tokens)
                .subspan(static_cast<std::size_t>(cut_), static_cast<std::size_t>(what.question + kAnswer - 1));
        branches->score(fed, std::max<std::int64_t>(0, what.question - 1), [](auto&&...) {});
      }
    });
  }

  Cost prefill() const {
    return cost_of([&] { branch({masks_.data(), 1}); });
  }

 private:
  std::unique_ptr<Branches> branch(std::span<const KeepMask> masks) const {
    return model_.branch(std::span(sample_.tokens).first(static_cast<std::size_t>(cut_)), masks, kQuestion + kAnswer);
  }
  std::span<const Token> question(const Case& what) const {
    return std::span(sample_.tokens).subspan(static_cast<std::size_t>(cut_), static_cast<std::size_t>(what.question));
  }
  // The sample as if the question were the prompt's end.
  Sample judged(const Case& what) const {
    Sample sample = sample_;
    sample.segments.prompt_end = cut_ + what.question;
    sample.tokens.resize(static_cast<std::size_t>(cut_ + what.question + kAnswer));
    return sample;
  }

  LlamaModel& model_;
  const Sample& sample_;
  std::vector<KeepMask> masks_;
  std::int64_t cut_ = 0;
};

bool compare(const Runs& runs, const Case& what, int rounds) {
  std::vector<double> ratios;
  std::vector<double> processor;
  for (int round = 0; round < rounds; ++round) {
    const Cost prefill = runs.prefill();
    const Cost together = runs.together(what);
    Cost alone;
    for (std::size_t p = static_cast<std::size_t>(round) % kSlices; p < runs.policies(); p += kSlices)
      alone.add(runs.alone(what, p));
    ratios.push_back(together.seconds / (alone.seconds * kSlices));
    processor.push_back(together.processor / (alone.processor * kSlices));
    fmt::print(
        "{}, round {}: prefill {:.2f} s, {} policies and the full cache together {:.2f} s, {} of the policies one by "
        "one "
        "{:.1f} s\n",
        what.name, round + 1, prefill.seconds, runs.policies(), together.seconds, runs.policies() / kSlices,
        alone.seconds);
  }
  const auto [low, middle, high] = spread(ratios);
  const auto [least, usual, most] = spread(processor);
  fmt::print(
      "{}: together / one by one = {:.3f} [{:.3f}, {:.3f}] over {} rounds, bar {:.2f}; processor time {:.3f} [{:.3f}, "
      "{:.3f}]\n",
      what.name, middle, low, high, rounds, kBar, usual, least, most);
  return middle <= kBar;
}

int run(const std::filesystem::path& model_file, const std::filesystem::path& tasks,
        const std::filesystem::path& scratch, std::int64_t tokens, int rounds) {
  LlamaModel model({.model = model_file});
  record_traces(model, long_sample(model, tasks, scratch, tokens, kQuestion + kAnswer), scratch / "traces", kQuiet);
  const Trace trace = Trace::open(open_trace_set(scratch / "traces").files[0]);
  const Runs runs(model, trace);
  fmt::print("prompt of {} tokens, {} policies, {} tokens each\n", runs.prompt(), runs.policies(), kAnswer);
  bool good = true;
  for (const Case& what :
       {Case{"teacher-forced", 0, false}, Case{"greedy", 0, true},
        Case{"teacher-forced behind a question", kQuestion, false}, Case{"greedy behind a question", kQuestion, true}})
    good = compare(runs, what, rounds) && good;
  return good ? 0 : 1;
}

}  // namespace
}  // namespace depthkv

int main(int argc, char** argv) try {
  if (argc != 6) {
    fmt::print(stderr, "usage: depthkv_bench_verify MODEL TASK_FOLDER SCRATCH TOKENS ROUNDS\n");
    return 2;
  }
  return depthkv::run(argv[1], argv[2], argv[3], std::atoll(argv[4]), std::atoi(argv[5]));
} catch (const std::exception& error) {
  fmt::print(stderr, "verify_cost: {}\n", error.what());
  return 1;
}
