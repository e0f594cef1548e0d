// SPDX-License-Identifier: Apache-2.0
// What column sums cost beside the engine's own attention: both layer by layer in one prefill, each block of rows right
// after the other. Run by bench/column_sums.
#include <fmt/format.h>

#include <cstdlib>

#include "bench/long_sample.h"
#include "bench/timing.h"
#include "depthkv/tasks.h"
#include "tracer/column_sums.h"
#include "tracer/llama/graph.h"
#include "tracer/llama/workers.h"

namespace depthkv {
namespace {

// Seconds of a layer over the whole prompt.
struct LayerCost {
  double attention = 0;  // from the last store into the cache to the product with the values
  double sums = 0;
  std::int64_t rows = 0;
};

// Runs the clock while the engine computes attention, and stops it for the sums of the same rows.
class Stopwatch : public Watcher {
 public:
  Stopwatch(const ModelCard& card, const Segments& segments, int threads)
      : card_(card), sums_(card, segments, threads), workers_(threads), layers_(card.layers.size()) {}

  bool wants(const ggml_tensor& node) override {
    const bool stores = node.op == GGML_OP_SET_ROWS && (key_cache_layer(&node) || value_cache_layer(&node));
    return stores || is_key_query_product(node) || is_value_product(node);
  }

  void take(ggml_tensor& node) override {
    const double spent = cpu_seconds() - started_;
    if (is_key_query_product(node)) {
      cost(layer_of(node)).attention += spent;
      add_sums(node, layer_of(node));
    } else if (is_value_product(node)) {
      cost(*value_cache_layer(node.src[0])).attention += spent;
    }
    started_ = cpu_seconds();
  }

  const std::vector<LayerCost>& layers() const { return layers_; }

 private:
  static bool is_value_product(const ggml_tensor& node) {
    return node.op == GGML_OP_MUL_MAT && value_cache_layer(node.src[0]).has_value();
  }
  LayerCost& cost(int layer) { return layers_.at(static_cast<std::size_t>(layer)); }

  void add_sums(const ggml_tensor& product, int layer) {
    const LayerShape& shape = card_.layers[static_cast<std::size_t>(layer)];
    const auto [_, cache, queries] = *attention_inputs(product);
    const auto stride = [&](int i) { return static_cast<std::int64_t>(queries->nb[i] / sizeof(float)); };
    LayerCost& at = cost(layer);
    const std::int64_t width = std::int64_t{shape.kv_heads} * shape.head_dim;
    const View rows{
        static_cast<const float*>(queries->data), queries->ne[2], queries->ne[1], queries->ne[0], stride(2), stride(1)};
    const HalfRows keys{static_cast<const std::uint16_t*>(cache->data), shape.kv_heads, at.rows + rows.rows,
                        shape.head_dim, width};
    const UseWorkers use(workers_);
    const double start = cpu_seconds();
    sums_.add(layer, at.rows, rows, keys);
    at.sums += cpu_seconds() - start;
    at.rows += rows.rows;
  }

  const ModelCard& card_;
  ColumnSums sums_;
  EngineWorkers workers_;
  std::vector<LayerCost> layers_;
  double started_ = 0;
};

int run(const std::filesystem::path& model_file, const std::filesystem::path& tasks,
        const std::filesystem::path& scratch, std::int64_t tokens, int rounds) {
  LlamaModel model({.model = model_file});
  const TracePlan plan = long_sample(model, tasks, scratch, tokens, 1);
  const Prompt prompt = make_prompt(model, read_tasks(plan.tasks[0])[0]);
  std::vector<double> ratios;
  double attention = 0;
  double sums = 0;
  for (int round = 0; round < rounds; ++round) {
    Stopwatch watch(model.card(), prompt.segments, thread_count(0));
    model.prefill(prompt.tokens, false, &watch);
    for (const LayerCost& layer : watch.layers()) {
      ratios.push_back(layer.sums / layer.attention);
      attention += layer.attention;
      sums += layer.sums;
    }
  }
  const MedianInterval ratio = interval_of(ratios);
  const auto count = static_cast<double>(ratios.size());
  fmt::print(
      "{} tokens, per layer: attention without flash attention {:.0f} ms, column sums {:.0f} ms of processor time; "
      "ratio {:.2f} [{:.2f}, {:.2f}] over {} layers, bar 1\n",
      prompt.tokens.size(), 1e3 * attention / count, 1e3 * sums / count, ratio.middle, ratio.low, ratio.high,
      ratios.size());
  return ratio.high < 1 ? 0 : 1;
}

}  // namespace
}  // namespace depthkv

int main(int argc, char** argv) try {
  if (argc != 6) {
    fmt::print(stderr, "usage: depthkv_bench_column_sums MODEL TASK_FOLDER SCRATCH TOKENS ROUNDS\n");
    return 2;
  }
  return depthkv::run(argv[1], argv[2], argv[3], std::atoll(argv[4]), std::atoi(argv[5]));
} catch (const std::exception& error) {
  fmt::print(stderr, "column_sums: {}\n", error.what());
  return 1;
}
