// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "depthkv/error.h"
#include "depthkv/importance.h"
#include "depthkv/version.h"
#include "replay/csv.h"

namespace depthkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kFormat = "depthkv-importance";
constexpr std::int64_t kVersion = 1;
constexpr double kMost = 1e12;  // keeps sums and products of losses finite

// Takes values out of an importance file; messages name the file and the value.
class Reader {
 public:
  Reader(std::string file, const Json& json) : file_(std::move(file)), json_(json) {}

  std::string text(const char* key) const {
    const Json& value = at(key);
    if (!value.is_string()) refuse(key, "a text");
    return value.get<std::string>();
  }
  double number(const char* key) const { return number_of(at(key), key); }
  // Of any sign; not a number where it is null or missing.
  double measure(const char* key) const { return measure_of(json_.value(key, Json()), key); }
  Interval interval(const char* key) const {
    const std::vector<double> found = numbers(key);
    if (found.size() != 2) refuse(key, "a pair");
    return {found[0], found[1]};
  }
  Interval measured_interval(const char* key) const {
    const std::vector<double> found = measures(json_.value(key, Json::array({nullptr, nullptr})), key);
    if (found.size() != 2) refuse(key, "a pair");
    return {found[0], found[1]};
  }
  std::vector<double> measures(const Json& values, const char* key) const {
    if (!values.is_array()) refuse(key, "a list");
    std::vector<double> found;
    for (const Json& value : values) found.push_back(measure_of(value, key));
    return found;
  }
  Json object(const char* key) const {
    const Json found = json_.value(key, Json::object());
    if (!found.is_object()) refuse(key, "a mapping");
    return found;
  }
  std::vector<double> numbers(const char* key) const {
    std::vector<double> found;
    for (const Json& value : list(key)) found.push_back(number_of(value, key));
    return found;
  }
  const Json& list(const char* key) const {
    if (!at(key).is_array()) refuse(key, "a list");
    return at(key);
  }
  [[noreturn]] void refuse(const char* key, std::string_view expected) const {
    throw InputError(
        fmt::format("{}: \"{}\" is not {}; expected what `depthkv importance` writes", file_, key, expected));
  }

 private:
  const Json& at(const char* key) const {
    if (!json_.is_object() || !json_.contains(key))
      throw InputError(fmt::format("{}: has no \"{}\"; expected what `depthkv importance` writes", file_, key));
    return json_[key];
  }
  double number_of(const Json& value, const char* key) const {
    const double x = value.is_number() ? value.get<double>() : -1;
    if (!(x >= 0 && x <= kMost)) refuse(key, fmt::format("a number from 0 to {}", kMost));
    return x;
  }

  double measure_of(const Json& value, const char* key) const {
    if (value.is_null()) return kUnmeasured;
    const double x = value.is_number() ? value.get<double>() : 2 * kMost;
    if (!(std::abs(x) <= kMost)) refuse(key, fmt::format("a number from -{0} to {0}, or null", kMost));
    return x;
  }

  std::string file_;
  const Json& json_;
};

Json pair_of(const Interval& interval) { return {interval.low, interval.high}; }

void read_representations(const Reader& reader, LayerImportance& layer) {
  const Json all = reader.object("representations");
  for (const auto& [metric, values] : all.items()) {
    const std::vector<double> stages = reader.measures(values, "representations");
    if (stages.size() != kStages.size())
      reader.refuse("representations", fmt::format("{} numbers per metric, one per stage", kStages.size()));
    std::ranges::copy(stages, layer.representations[metric].begin());
  }
}

LayerImportance read_layer(const std::string& file, const Json& json, std::size_t shares) {
  const Reader reader(file, json);
  LayerImportance layer;
  layer.layer = static_cast<int>(reader.number("layer"));
  layer.kl = reader.number("kl");
  layer.kl_interval = reader.interval("kl_interval");
  layer.noise = reader.number("noise");
  layer.output_error = reader.number("output_error");
  layer.sensitivity = reader.number("sensitivity");
  layer.score_drop = reader.measure("score_drop");
  layer.score_drop_interval = reader.measured_interval("score_drop_interval");
  layer.length_ratio = reader.measure("length_ratio");
  layer.length_ratio_interval = reader.measured_interval("length_ratio_interval");
  read_representations(reader, layer);
  layer.curve = reader.numbers("curve");
  if (layer.curve.size() != shares) reader.refuse("curve", fmt::format("a list of {} numbers, one per share", shares));
  return layer;
}

}  // namespace

std::vector<double> Importance::sensitivities() const {
  std::vector<double> found;
  for (const LayerImportance& layer : layers) found.push_back(layer.sensitivity);
  return found;
}

bool is_importance_file(const std::filesystem::path& file) { return file.extension() == ".json"; }

void write_importance(const Importance& importance, const std::filesystem::path& file) {
  Json root{{"format", kFormat},
            {"version", kVersion},
            {"build", kBuild},
            {"model", importance.model},
            {"fingerprint", importance.fingerprint},
            {"cut", importance.cut},
            {"policy", importance.policy},
            {"keep", importance.keep},
            {"samples", importance.samples},
            {"shares", importance.shares},
            {"layers", Json::array()}};
  for (const LayerImportance& layer : importance.layers) {
    root["layers"].push_back({{"layer", layer.layer},
                              {"kl", layer.kl},
                              {"kl_interval", pair_of(layer.kl_interval)},
                              {"noise", layer.noise},
                              {"output_error", layer.output_error},
                              {"sensitivity", layer.sensitivity},
                              {"score_drop", layer.score_drop},
                              {"score_drop_interval", pair_of(layer.score_drop_interval)},
                              {"length_ratio", layer.length_ratio},
                              {"length_ratio_interval", pair_of(layer.length_ratio_interval)},
                              {"representations", layer.representations},
                              {"curve", layer.curve}});
  }
  write_file(file, root.dump(1) + "\n");
}

void write_ablation_csv(const std::vector<AblationRow>& rows, const std::filesystem::path& file) {
  CsvWriter csv(
      {"sample", "task", "keep", "layer", "kl", "top1", "output_error", "score", "score_full", "length_ratio"});
  for (const AblationRow& row : rows)
    csv.row({row.sample, row.task, csv_number(row.keep), fmt::format("{}", row.layer), csv_number(row.kl),
             csv_number(row.top1), csv_number(row.output_error), csv_number(row.score), csv_number(row.score_full),
             csv_number(row.length_ratio)});
  write_file(file, csv.text());
}

Importance read_importance(const std::filesystem::path& file) {
  std::ifstream stream(file);
  if (!stream || std::filesystem::is_directory(file))
    throw InputError(
        fmt::format("{}: can't be read; expected the importance.json of `depthkv importance`", file.string()));
  const Json root = Json::parse(stream, nullptr, false);
  const Reader reader(file.string(), root);
  if (reader.text("format") != kFormat) reader.refuse("format", kFormat);
  if (reader.number("version") != static_cast<double>(kVersion)) reader.refuse("version", fmt::format("{}", kVersion));
  Importance importance;
  importance.model = reader.text("model");
  importance.fingerprint = reader.text("fingerprint");
  importance.cut = reader.text("cut");
  importance.policy = reader.text("policy");
  importance.keep = reader.numbers("keep");
  importance.samples = static_cast<std::int64_t>(reader.number("samples"));
  importance.shares = reader.numbers("shares");
  for (std::size_t i = 1; i < importance.shares.size(); ++i)
    if (!(importance.shares[i] > importance.shares[i - 1])) reader.refuse("shares", "a rising list");
  if (importance.shares.size() < 2 || importance.shares.front() != 0 || importance.shares.back() != 1)
    reader.refuse("shares", "a list from 0 to 1");
  for (const Json& layer : reader.list("layers"))
    importance.layers.push_back(read_layer(file.string(), layer, importance.shares.size()));
  if (importance.layers.empty()) reader.refuse("layers", "a list of at least one layer");
  return importance;
}

}  // namespace depthkv
