// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/workers.h"

#include "depthkv/error.h"

namespace depthkv {
namespace {

void call(ggml_tensor* /*result*/, const ggml_tensor* /*input*/, int thread, int threads, void* work) {
  if (thread < threads) (*static_cast<const std::function<void()>*>(work))();
}

}  // namespace

// A graph of one operation, which is ours.
void EngineWorkers::run(int threads, const std::function<void()>& work) {
  memory_.resize(ggml_graph_overhead() + 4 * ggml_tensor_overhead() + 4096);
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> context(ggml_init({memory_.size(), memory_.data(), false}),
                                                                    ggml_free);
  ggml_tensor* one = ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, 1);
  ggml_tensor* operation =
      ggml_map_custom1_inplace(context.get(), one, call, threads, const_cast<std::function<void()>*>(&work));
  ggml_cgraph* graph = ggml_new_graph(context.get());
  ggml_build_forward_expand(graph, operation);
  if (ggml_backend_graph_compute(backend_.get(), graph) != GGML_STATUS_SUCCESS)
    throw Error("the engine could not run an operation of ours on its threads");
}

}  // namespace depthkv
