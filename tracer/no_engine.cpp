// SPDX-License-Identifier: Apache-2.0
// Stands in for tracer/llama/ in builds without llama.cpp.
#include "depthkv/error.h"
#include "depthkv/model.h"

namespace depthkv {

std::unique_ptr<Model> open_llama_model(const LlamaOptions&) {
  throw InputError(
      "this build has no engine, so nothing can be traced or verified; install llama.cpp (scripts/setup) and build "
      "again");
}

std::string llama_engine_version() { return "none (built without llama.cpp)"; }

}  // namespace depthkv
