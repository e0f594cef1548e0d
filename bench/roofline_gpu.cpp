// SPDX-License-Identifier: Apache-2.0
// See bench/roofline_gpu.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "bench/gpu_work.h"

namespace depthkv {
namespace {

// Peaks as published; bytes and operations a second.
struct Gpu {
  std::string_view name;
  double memory;
  double single;  // a fused multiply-add counts as two
  double dbl;
  double special;  // 16 results a clock and multiprocessor: CUDA C++ Programming Guide, throughput of instructions
  double bf16_tensor;
  double link;  // one way
};
constexpr Gpu kGpus[] = {
    // NVIDIA H100 Tensor Core GPU datasheet (SXM5): 3.35 TB/s, 67 and 34 TFLOPS, 1,979 with sparsity, PCIe Gen5 128
    // GB/s
    // both ways. 132 multiprocessors at 1.98 GHz.
    {"H100 SXM", 3.35e12, 67e12, 34e12, 132 * 16 * 1.98e9, 989e12, 64e9},
    // NVIDIA A100 80GB datasheet (SXM4): 2,039 GB/s, 19.5 and 9.7 TFLOPS, 312, PCIe Gen4 64 GB/s both ways. 108
    // multiprocessors at 1.41 GHz.
    {"A100 80GB", 2.039e12, 19.5e12, 9.7e12, 108 * 16 * 1.41e9, 312e12, 32e9},
};

struct Limit {
  double seconds = 0;
  std::string_view what;
};

// Operations that aren't fused take as long as one that is.
Limit limit_of(const GpuWork& work, const Gpu& gpu) {
  const std::array<Limit, 4> limits{Limit{(work.loaded + work.stored) / gpu.memory, "memory"},
                                    Limit{(work.products + 2 * work.single) / gpu.single, "float"},
                                    Limit{2 * work.dbl / gpu.dbl, "double"},
                                    Limit{work.special / gpu.special, "special"}};
  return *std::ranges::max_element(limits, {}, &Limit::seconds);
}

void print(const KernelCase& c, const GpuWork& work) {
  fmt::print("| `{}` | {} | {:.1f} | {:.3f} |", work.op, c.name, (work.loaded + work.stored) / 1e6,
             (work.products + work.single + work.dbl + work.special) / 1e9);
  for (const Gpu& gpu : kGpus) {
    const Limit limit = limit_of(work, gpu);
    fmt::print(" {:.1f} {} | {:.1f} | {:.1f} |", limit.seconds * 1e6, limit.what, work.products / gpu.bf16_tensor * 1e6,
               (work.to_device + work.to_host) / gpu.link * 1e6);
  }
  fmt::print("\n");
}

int print_table(std::string_view op, std::int64_t most_tokens) {
  fmt::print("| op | case | MB | Gop |");
  for (const Gpu& gpu : kGpus) fmt::print(" {}, us | bf16, us | transfer, us |", gpu.name);
  fmt::print("\n|---|---|---|---|---|---|---|---|---|---|\n");
  const std::size_t ops = gpu_works_of(kBenchCases[0]).size();
  for (std::size_t i = 0; i < ops; ++i) {
    for (const KernelCase& c : kBenchCases) {
      const GpuWork work = gpu_works_of(c)[i];
      if (c.tokens <= most_tokens && work.op.find(op) != std::string_view::npos) print(c, work);
    }
  }
  return 0;
}

}  // namespace
}  // namespace depthkv

int main(int count, char** arguments) {
  return depthkv::print_table(count > 1 ? arguments[1] : "", count > 2 ? std::atoll(arguments[2]) : 1 << 20);
}
