// SPDX-License-Identifier: Apache-2.0
// How ops' cost grows from one number of tokens to twice as many, both measured in turn. Run by bench/growth.
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <numeric>
#include <string_view>
#include <vector>

#include "bench/op_work.h"
#include "bench/timing.h"

namespace depthkv {
namespace {

constexpr std::int64_t kFewest = 1 << 10;
constexpr std::int64_t kMost = 1 << 15;
constexpr std::int64_t kRows = 64;
constexpr std::int64_t kWidth = 64;
constexpr std::int64_t kBlock = 128;  // rows that the tracer hands over at once

// Whole prompts, causal, one head, block by block: every row of attention, kept no longer than its block, or summed per
// key.
struct Prompt {
  explicit Prompt(std::int64_t tokens)
      : in({"prompt", 1, 1, tokens, kBlock, kWidth}, 1), sums(static_cast<std::size_t>(tokens)) {}

  void rows() const {
    std::vector<std::int32_t> positions(kBlock);
    for (std::int64_t first = 0; first < in.keys.rows(); first += kBlock) {
      std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(first));
      ops_for(Device::cpu)
          .attention_rows(in.queries.view(), in.keys.view().row_range(0, first + kBlock), positions, {});
    }
  }
  void column_sums() {
    for (std::int64_t first = 0; first < in.keys.rows(); first += kBlock)
      ops_for(Device::cpu).attention_sums(in.queries.view(), in.halves().first_rows(first + kBlock), first, {}, sums);
  }

  KernelInputs in;
  std::vector<double> sums;
};

MedianInterval growth_of(const std::function<void()>& once, const std::function<void()>& twice) {
  std::vector<double> ratios;
  for (const std::vector<double>& times : time_in_turn({once, twice}, {})) ratios.push_back(times[1] / times[0]);
  return interval_of(ratios);
}

bool print_growth(std::string_view op, std::int64_t tokens, const std::function<void()>& once,
                  const std::function<void()>& twice, double bar) {
  const MedianInterval growth = growth_of(once, twice);
  fmt::print("{:<24} {:>5} to {:>5} tokens  {:.2f} [{:.2f}, {:.2f}] times  bar {}{}\n", op, tokens, 2 * tokens,
             growth.middle, growth.low, growth.high, bar, growth.middle <= bar ? "" : "  above bar");
  std::fflush(stdout);
  return growth.middle <= bar;
}

// Twice as many bytes may leave a cache; where an op is above the bar, so that it can be told from that.
void print_copying(const OpWork& once, const OpWork& twice) {
  const MedianInterval growth = growth_of(copy_of(once.bytes), copy_of(twice.bytes));
  fmt::print("{:<24} copying as many bytes  {:.2f} [{:.2f}, {:.2f}] times\n", "", growth.middle, growth.low,
             growth.high);
}

bool run_ops(std::string_view filter, std::int64_t tokens) {
  const std::vector<OpWork> once = works_of({"once", 2, 4, tokens, kRows, kWidth});
  const std::vector<OpWork> twice = works_of({"twice", 2, 4, 2 * tokens, kRows, kWidth});
  bool good = true;
  for (std::size_t i = 0; i < once.size(); ++i) {
    if (once[i].op.find(filter) == std::string_view::npos) continue;
    if (print_growth(once[i].op, tokens, once[i].run, twice[i].run, 2.2)) continue;
    print_copying(once[i], twice[i]);
    good = false;
  }
  return good;
}

bool run_prompts(std::string_view filter, std::int64_t tokens) {
  Prompt once(tokens);
  Prompt twice(2 * tokens);
  bool good = true;
  if (std::string_view("prompt_attention_rows").find(filter) != std::string_view::npos)
    good = print_growth(
        "prompt_attention_rows", tokens, [&] { once.rows(); }, [&] { twice.rows(); }, 4.4);
  if (std::string_view("prompt_column_sums").find(filter) != std::string_view::npos)
    good = print_growth(
               "prompt_column_sums", tokens, [&] { once.column_sums(); }, [&] { twice.column_sums(); }, 4.4) &&
           good;
  return good;
}

}  // namespace
}  // namespace depthkv

int main(int argc, char** argv) try {
  if (argc > 2) {
    fmt::print(stderr, "usage: depthkv_growth [PART_OF_AN_OP'S_NAME]\n");
    return 2;
  }
  bool good = true;
  for (std::int64_t tokens = depthkv::kFewest; tokens < depthkv::kMost; tokens *= 2) {
    good = depthkv::run_ops(argc > 1 ? argv[1] : "", tokens) && good;
    good = depthkv::run_prompts(argc > 1 ? argv[1] : "", tokens) && good;
  }
  return good ? 0 : 1;
} catch (const std::exception& error) {
  fmt::print(stderr, "growth: {}\n", error.what());
  return 2;
}
