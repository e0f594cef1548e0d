// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>

#include "cli/commands.h"
#include "depthkv/error.h"
#include "depthkv/ops.h"
#include "depthkv/trace.h"
#include "depthkv/version.h"

namespace depthkv {
namespace {

ExitCode examine(std::filesystem::path model) {
  fmt::print("depthkv   {} (compiled by {} {})\n", kBuild, DEPTHKV_COMPILER, DEPTHKV_COMPILER_VERSION);
  fmt::print("machine   {} hardware threads\n", std::thread::hardware_concurrency());
  fmt::print("devices   cpu, reference; cuda: {}\n", cuda_summary());
  fmt::print("HDF5      {}\n", trace_library_version());
  fmt::print("engine    {}\n", llama_engine_version());
  const char* fallback = std::getenv("DEPTHKV_MODEL");
  if (model.empty() && fallback != nullptr) model = fallback;
  if (model.empty()) {
    fmt::print("model     none given (--model FILE.gguf, or DEPTHKV_MODEL)\n");
    return ExitCode::fine;
  }
  const std::unique_ptr<Model> opened = open_model(model, 0);
  const ModelCard& card = opened->card();
  fmt::print("model     {}\n          {}, {}, {} layers, context {}, fingerprint {}: fit for trace and verify\n",
             model.string(), card.name, card.architecture, card.layers.size(), card.context_length, card.fingerprint);
  return ExitCode::fine;
}

}  // namespace

void add_doctor_command(CLI::App& app, Action& action) {
  const auto model = std::make_shared<std::filesystem::path>();
  CLI::App* command = app.add_subcommand("doctor", "Say what is installed and whether a model can be traced");
  command->footer("Examples:\n  depthkv doctor\n  depthkv doctor --model model.gguf");
  command->add_option("--model", *model, "GGUF file to examine (default: $DEPTHKV_MODEL)");
  command->callback([model, &action] { action = [model] { return examine(*model); }; });
}

}  // namespace depthkv
