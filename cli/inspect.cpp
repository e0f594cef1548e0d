// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <langinfo.h>
#include <locale.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string_view>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/sample_view.h"
#include "depthkv/error.h"
#include "depthkv/trace.h"
#include "replay/csv.h"

namespace depthkv {
namespace {

struct InspectOptions {
  std::filesystem::path folder;
  std::string sample;
  std::string map;  // which of the two drawings; empty: both
  std::string cut = "prompt";
  ViewOptions view;
  std::filesystem::path out;
  bool check = false;
};

// What a channel takes over all samples of a set.
struct ChannelTotal {
  int layers = 0;
  std::int64_t bytes = 0;
  std::int64_t stored = 0;
  std::set<std::string> codecs;
};
using Totals = std::map<Channel, ChannelTotal>;

double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

std::string layer_list(const std::vector<std::size_t>& layers) {
  std::string list;
  for (std::size_t i = 0; i < layers.size();) {
    std::size_t end = i + 1;
    while (end < layers.size() && layers[end] == layers[end - 1] + 1) ++end;
    list += fmt::format("{}{}", list.empty() ? "" : ",", layers[i]);
    if (end - i > 1) list += fmt::format("-{}", layers[end - 1]);
    i = end;
  }
  return list;
}

// A line for all layers that rotate alike.
void print_rotations(const ModelCard& card) {
  std::vector<std::pair<LayerRotation, std::vector<std::size_t>>> kinds;
  for (std::size_t l = 0; l < card.rotations.size(); ++l) {
    const LayerRotation& rotation = card.rotations[l];
    const auto same = std::ranges::find(kinds, rotation, [](const auto& kind) { return kind.first; });
    if (same == kinds.end()) {
      kinds.push_back({rotation, {l}});
    } else {
      same->second.push_back(l);
    }
  }
  for (const auto& [rotation, layers] : kinds) {
    const std::vector<double>& turns = rotation.frequencies;
    if (turns.empty()) {
      fmt::print("          layers {}: no rotation\n", layer_list(layers));
    } else {
      fmt::print("          layers {}: {} of {} dimensions turn, by {:.4g} to {:.4g} radians per position{}\n",
                 layer_list(layers), 2 * turns.size(), card.layers[layers.front()].head_dim, std::ranges::max(turns),
                 std::ranges::min(turns),
                 rotation.magnitude == 1 ? "" : fmt::format(", and grow {:.4g} times", rotation.magnitude));
    }
  }
}

void print_card(const Trace& trace) {
  const ModelCard& card = trace.model();
  const LayerShape& layer = card.layers.front();
  fmt::print("model     {} ({}, fingerprint {})\n", card.name, card.architecture, card.fingerprint);
  fmt::print("engine    {} on {}\n", card.engine, card.device);
  fmt::print("geometry  {} layers; first: {} query heads, {} KV heads, d {}; context {}\n", card.layers.size(),
             layer.query_heads, layer.kv_heads, layer.head_dim, card.context_length);
  fmt::print("rotary    {}, base {}; attention scale {}, soft cap {}\n", card.rotary_layout, card.rotary_base,
             card.attention_scale, card.logit_softcap);
  print_rotations(card);
  fmt::print("softmax   {}\n\n",
             trace.engine_softmax() ? "the engine's own" : "recomputed from queries and cached keys");
}

void add_channels(const Trace& trace, Totals& totals) {
  for (int layer = 0; layer < static_cast<int>(trace.model().layers.size()); ++layer) {
    for (const Channel channel : kChannels) {
      if (!trace.has(channel, layer)) continue;
      const ChannelStorage storage = trace.storage(channel, layer);
      ChannelTotal& total = totals[channel];
      ++total.layers;
      total.bytes += storage.bytes;
      total.stored += storage.stored;
      total.codecs.insert(storage.codec);
    }
  }
}

// What the list says of a sample.
struct SampleRow {
  std::string id;
  std::int64_t tokens = 0;
  Segments segments;
  std::int64_t evidence = 0;  // tokens
  std::int64_t truncated = 0;
  std::size_t query_rows = 0;
  std::int64_t bytes = 0;
};

SampleRow row_of(const Trace& trace) {
  const Sample& sample = trace.sample();
  std::int64_t evidence = 0;
  for (const Span& span : sample.evidence) evidence += span.end - span.begin;
  return {sample.id,
          sample.size(),
          sample.segments,
          evidence,
          sample.truncated,
          trace.query_rows().size(),
          static_cast<std::int64_t>(std::filesystem::file_size(trace.path()))};
}

void print_samples(const std::vector<SampleRow>& rows) {
  const bool any_truncated = std::ranges::any_of(rows, [](const SampleRow& row) { return row.truncated > 0; });
  const auto truncated = [&](const auto& cell) { return any_truncated ? fmt::format(" {:>9}", cell) : ""; };
  fmt::print("{:<32} {:>7} {:>8} {:>7} {:>7} {:>9} {:>11}{} {:>9}\n", "sample", "tokens", "context", "prompt", "answer",
             "evidence", "query rows", truncated("truncated"), "MiB");
  for (const SampleRow& row : rows) {
    fmt::print("{:<32} {:>7} {:>8} {:>7} {:>7} {:>9} {:>11}{} {:>9.1f}\n", row.id, row.tokens, row.segments.context.end,
               row.segments.prompt_end, row.tokens - row.segments.prompt_end, row.evidence, row.query_rows,
               truncated(row.truncated), mebibytes(row.bytes));
  }
}

// `layers`: of all samples together, which is what a channel could be there for.
void print_channels(const Totals& totals, std::size_t layers) {
  fmt::print("\n{:<20} {:>9} {:>11} {:>11} {:>7}  {}\n", "channel", "layers", "values, MiB", "stored, MiB", "ratio",
             "codec");
  for (const auto& [channel, total] : totals) {
    fmt::print("{:<20} {:>9} {:>11.2f} {:>11.2f} {:>7.2f}  {}\n", to_string(channel),
               fmt::format("{}/{}", total.layers, layers), mebibytes(total.bytes), mebibytes(total.stored),
               static_cast<double>(total.bytes) / static_cast<double>(std::max<std::int64_t>(1, total.stored)),
               fmt::join(total.codecs, ", "));
  }
}

void print_weights(const std::filesystem::path& folder) {
  if (!TraceWeights::in(folder)) return;
  const ModelCard model = TraceWeights::open(folder).model();
  std::int64_t bytes = 0;
  for (const LayerShape& layer : model.layers)
    bytes += 2 * std::int64_t{layer.query_heads} * layer.head_dim * model.embedding;
  fmt::print("weights   output projections of {} layers, {:.1f} MiB\n", model.layers.size(), mebibytes(bytes));
}

ExitCode inspect_set(const std::filesystem::path& folder) {
  const TraceSet set = open_trace_set(folder);
  std::int64_t bytes = 0;
  std::size_t layers = 0;
  Totals totals;
  std::vector<SampleRow> rows;
  for (std::size_t i = 0; i < set.files.size(); ++i) {
    const Trace trace = Trace::open(set.files[i]);
    if (i == 0) print_card(trace);
    rows.push_back(row_of(trace));
    add_channels(trace, totals);
    layers += trace.model().layers.size();
    bytes += rows.back().bytes;
  }
  print_samples(rows);
  print_channels(totals, layers);
  fmt::print("\n{} samples, {:.1f} MiB\n", set.files.size(), mebibytes(bytes));
  print_weights(folder);
  return ExitCode::fine;
}

Trace find_sample(const std::filesystem::path& folder, const std::string& id) {
  const TraceSet set = open_trace_set(folder);
  std::vector<std::string> ids;
  for (const auto& file : set.files) {
    Trace trace = Trace::open(file);
    if (trace.sample().id == id) return trace;
    ids.push_back(trace.sample().id);
  }
  throw InputError(fmt::format("--sample: {} holds no sample \"{}\"{}; `depthkv inspect` lists the {} that it holds",
                               folder.string(), id, suggestion(id, ids), ids.size()));
}

bool is_utf8_terminal() {
  const locale_t locale = newlocale(LC_CTYPE_MASK, "", locale_t{});
  if (locale == locale_t{}) return false;
  const bool utf8 = std::string_view(nl_langinfo_l(CODESET, locale)) == "UTF-8";
  freelocale(locale);
  return utf8;
}

// Columns and rows for a drawing: what the terminal has, or a page's width where there is none.
std::pair<std::int64_t, std::int64_t> room() {
  constexpr int kBesides = 22;  // columns for labels and legends
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col <= kBesides + 10) return {100 - kBesides, 32};
  return {size.ws_col - kBesides, std::clamp(size.ws_row - 18, 12, 48)};
}

Drawing make_drawing(const Trace& trace, const InspectOptions& given, std::int64_t columns, std::int64_t rows) {
  Drawing drawing{trace, given.view, {}, {}};
  const bool sums = trace.has(Channel::column_sums, given.view.layer);
  const bool map = has_attention(trace, given.view.layer);
  // What was asked for by name has to be there; otherwise what is there is drawn.
  if (given.map == "column_sums" || (given.map.empty() && (sums || !map)))
    drawing.profile = profile_of(trace, given.view, columns);
  if (given.map == "attention" || (given.map.empty() && map))
    drawing.map = attention_map_of(trace, given.view, rows, columns);
  return drawing;
}

ExitCode inspect_sample(const InspectOptions& given) {
  constexpr std::int64_t kPageColumns = 128;
  constexpr std::int64_t kPageRows = 96;
  const Trace trace = find_sample(given.folder, given.sample);
  check_view(trace, given.view);
  const auto [columns, rows] = room();
  fmt::print("{}", draw_text(make_drawing(trace, given, columns, rows), is_utf8_terminal()));
  if (given.out.empty()) return ExitCode::fine;
  write_file(given.out, draw_svg(make_drawing(trace, given, kPageColumns, kPageRows)));
  fmt::print("\n{}\n", given.out.string());
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
  const auto given = std::make_shared<InspectOptions>();
  CLI::App* command = app.add_subcommand("inspect", "Show what a trace set holds, or draw one layer of a sample");
  command->footer(
      "Examples:\n  depthkv inspect run/traces\n"
      "  depthkv inspect run/traces --check\n"
      "  depthkv inspect traces --sample needle-0 --layer 7\n"
      "  depthkv inspect traces --sample needle-0 --layer 7 --head 2 --map attention --out head.svg");
  command->add_option("TRACES", given->folder, "folder of a trace set, or one of its files")->required();
  CLI::Option* sample = command->add_option("--sample", given->sample, "id of the sample to draw");
  CLI::Option* layer = command->add_option("--layer", given->view.layer, "layer to draw")->needs(sample);
  sample->needs(layer);
  command->add_option("--head", given->view.head, "query head to draw; left out: the mean over all")->needs(sample);
  command->add_option("--map", given->map, "draw only `attention` or only `column_sums`")
      ->check(CLI::IsMember({"attention", "column_sums"}))
      ->needs(sample);
  command->add_option("--cut", given->cut, "cache that is looked at: `context` or `prompt` (default)")
      ->check(CLI::IsMember({"context", "prompt"}))
      ->needs(sample);
  command->add_option("--out", given->out, "write the drawings to this SVG file too")->needs(sample);
  command->add_flag("--check", given->check, "check every file against the format; exit 1 if anything is wrong")
      ->excludes(sample);
  command->callback([given, &action] {
    action = [given] {
      if (given->check) return check(given->folder);
      given->view.cut = given->cut == "context" ? Cut::context : Cut::prompt;
      return given->sample.empty() ? inspect_set(given->folder) : inspect_sample(*given);
    };
  });
}

}  // namespace depthkv
