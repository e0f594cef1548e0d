// SPDX-License-Identifier: Apache-2.0
// Every op as a share of what this machine could do with it, measured in turn with the op. Run by bench/roofline.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "bench/limits.h"
#include "bench/op_work.h"
#include "bench/sorts.h"
#include "bench/timing.h"
#include "depthkv/error.h"

namespace depthkv {
namespace {

constexpr double kShareBar = 0.7;
constexpr double kSortBar = 1.3;
constexpr ProductShape kSquare{1024, 1024, 1024};

// Of each round, f(times of that round).
template <class F>
MedianInterval over(const std::vector<std::vector<double>>& rounds, F f) {
  std::vector<double> values;
  for (const std::vector<double>& times : rounds) values.push_back(f(times));
  return interval_of(values);
}

std::string verdict(bool good) { return good ? "" : "  below bar"; }

// The roofline: products at sgemm's rate or bytes at the copy's, whichever takes longer, over the op's time. sgemm is
// taken at the op's own shape, and beside it at a big square.
bool print_share(const OpWork& work, const char* name) {
  const ProductShape shape = work.flops > 0 ? work.shape : kSquare;
  const auto rounds = time_in_turn({work.run, sgemm_of(shape), sgemm_of(kSquare), copy_of(work.bytes)}, {});
  const MedianInterval products =
      over(rounds, [&](const auto& t) { return work.flops / flops_of(shape) * t[1] / t[0]; });
  const MedianInterval square =
      over(rounds, [&](const auto& t) { return work.flops / flops_of(kSquare) * t[2] / t[0]; });
  const MedianInterval copied = over(rounds, [](const auto& t) { return t[3] / t[0]; });
  const double seconds = over(rounds, [](const auto& t) { return t[0]; }).middle;
  const bool product_bound = products.middle >= copied.middle;
  const MedianInterval& share = product_bound ? products : copied;
  fmt::print("{:<18} {:<10} {:>9.3f} {:>7.1f} {:>6.1f}  {:<7} {:>5.2f} [{:.2f}, {:.2f}]", work.op, name, 1e3 * seconds,
             1e-9 * work.flops / seconds, 1e-9 * work.bytes / seconds, product_bound ? "sgemm" : "copy", share.middle,
             share.low, share.high);
  if (product_bound) fmt::print("  square {:.2f}  copy {:.2f}", square.middle, copied.middle);
  fmt::print("{}\n", verdict(share.middle >= kShareBar));
  std::fflush(stdout);
  return share.middle >= kShareBar;
}

// The op against every sort; the bar is against the fastest.
bool print_ranking(const OpWork& rank, const KernelCase& c, const char* name) {
  const KernelInputs in(c, 1);
  const Tensor scores = ops_for(Device::cpu).row_norms(in.keys.view(), Norm::l2);
  std::vector<std::function<void()>> works{rank.run};
  std::vector<std::uint32_t> orders;
  for (const SegmentedSort& sort : segmented_sorts()) works.push_back([&] { sort.run(scores.view(), orders); });
  const auto rounds = time_in_turn(works, {});
  MedianInterval worst;
  for (std::size_t s = 0; s < segmented_sorts().size(); ++s) {
    const MedianInterval ratio = over(rounds, [&](const auto& t) { return t[0] / t[s + 1]; });
    fmt::print("rank               {:<10} {:.2f} [{:.2f}, {:.2f}] times {}\n", name, ratio.middle, ratio.low,
               ratio.high, segmented_sorts()[s].name);
    if (ratio.middle > worst.middle) worst = ratio;
  }
  fmt::print(
      "rank               {:<10} {:.1f} ns an entry, {:.2f} times the fastest, bar {}{}\n", name,
      1e9 * over(rounds, [](const auto& t) { return t[0]; }).middle / static_cast<double>(scores.values().size()),
      worst.middle, kSortBar, verdict(worst.middle <= kSortBar));
  std::fflush(stdout);
  return worst.middle <= kSortBar;
}

int run(std::string_view filter, std::int64_t most_tokens) {
  fmt::print("OpenBLAS kernels: {}; one thread, processor time, {} rounds at most\n", sgemm_kernels(), Rounds{}.most);
  fmt::print("{:<18} {:<10} {:>9} {:>7} {:>6}  {:<7} {}\n", "op", "case", "ms", "GFLOP/s", "GB/s", "limit",
             "share of the limit, 95 % interval of the median");
  bool good = true;
  for (const KernelCase& c : kBenchCases) {
    if (c.tokens > most_tokens) continue;
    for (const OpWork& work : works_of(c)) {
      if (!filter.empty() && work.op.find(filter) == std::string_view::npos) continue;
      good = (work.op == "rank" ? print_ranking(work, c, c.name) : print_share(work, c.name)) && good;
    }
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace depthkv

int main(int argc, char** argv) try {
  if (argc > 3) {
    fmt::print(stderr, "usage: depthkv_roofline [PART_OF_AN_OP'S_NAME [MOST_TOKENS]]\n");
    return 2;
  }
  return depthkv::run(argc > 1 ? argv[1] : "", argc > 2 ? std::stoll(argv[2]) : 1 << 20);
} catch (const std::exception& error) {
  fmt::print(stderr, "roofline: {}\n", error.what());
  return 2;
}
