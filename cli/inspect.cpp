// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "cli/console.h"
#include "depthkv/trace.h"

namespace depthkv {
namespace {

std::string channels_text(const Trace& trace) {
  std::string text;
  const auto layers = static_cast<int>(trace.model().layers.size());
  for (const Channel channel : kChannels) {
    int held = 0;
    for (int layer = 0; layer < layers; ++layer) held += trace.has(channel, layer) ? 1 : 0;
    if (held == 0) continue;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", to_string(channel));
    if (held < layers) text += fmt::format(" ({} of {} layers)", held, layers);
  }
  return text;
}

void print_card(const ModelCard& card) {
  const LayerShape& layer = card.layers.front();
  fmt::print("model     {} ({}, fingerprint {})\n", card.name, card.architecture, card.fingerprint);
  fmt::print("engine    {} on {}\n", card.engine, card.device);
  fmt::print("geometry  {} layers; first: {} query heads, {} KV heads, d {}; context {}\n", card.layers.size(),
             layer.query_heads, layer.kv_heads, layer.head_dim, card.context_length);
  fmt::print("rotary    {}, base {}; attention scale {}, soft cap {}\n\n", card.rotary_layout, card.rotary_base,
             card.attention_scale, card.logit_softcap);
}

ExitCode inspect(const std::filesystem::path& folder) {
  const TraceSet set = open_trace_set(folder);
  double mebibytes = 0;
  for (std::size_t i = 0; i < set.files.size(); ++i) {
    const Trace trace = Trace::open(set.files[i]);
    const Sample& sample = trace.sample();
    if (i == 0) {
      print_card(trace.model());
      fmt::print("{:<32} {:>7} {:>8} {:>7} {:>7} {:>9} {:>9}  {}\n", "sample", "tokens", "context", "prompt", "answer",
                 "evidence", "MiB", "channels");
    }
    std::int64_t evidence = 0;
    for (const Span& span : sample.evidence) evidence += span.end - span.begin;
    const double size = static_cast<double>(std::filesystem::file_size(set.files[i])) / (1 << 20);
    mebibytes += size;
    fmt::print("{:<32} {:>7} {:>8} {:>7} {:>7} {:>9} {:>9.1f}  {}\n", sample.id, sample.size(),
               sample.segments.context.end, sample.segments.prompt_end, sample.size() - sample.segments.prompt_end,
               evidence, size, channels_text(trace));
  }
  fmt::print("\n{} samples, {:.1f} MiB\n", set.files.size(), mebibytes);
  return ExitCode::fine;
}

ExitCode check(const std::filesystem::path& folder) {
  const std::vector<std::string> problems = validate_trace_set(folder, console_progress());
  for (const std::string& problem : problems) fmt::print("{}\n", problem);
  fmt::print("{}: {}\n", folder.string(),
             problems.empty() ? "as traces/FORMAT.md says" : fmt::format("{} problems", problems.size()));
  return problems.empty() ? ExitCode::fine : ExitCode::failed;
}

}  // namespace

void add_inspect_command(CLI::App& app, Action& action) {
  const auto folder = std::make_shared<std::filesystem::path>();
  CLI::App* command = app.add_subcommand("inspect", "Show what a trace set holds");
  command->footer("Examples:\n  depthkv inspect traces\n  depthkv inspect run/traces --check");
  command->add_option("TRACES", *folder, "folder of a trace set, or one of its files")->required();
  const auto checked = std::make_shared<bool>(false);
  command->add_flag("--check", *checked, "check every file against the format; exit 1 if anything is wrong");
  command->callback([folder, checked, &action] {
    action = [folder, checked] { return *checked ? check(*folder) : inspect(*folder); };
  });
}

}  // namespace depthkv
