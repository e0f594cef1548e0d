// SPDX-License-Identifier: Apache-2.0
#include "policies/allocators/table.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "depthkv/error.h"

namespace depthkv {
namespace {

constexpr std::string_view kBlanks = " \t\r,";
constexpr std::size_t kShown = 40;  // characters of a bad word that messages repeat

std::string expected(double least) {
  return std::isinf(least) ? "a number" : fmt::format("a number of at least {}", least);
}

bool fits(double value, double least) { return std::isfinite(value) && value >= least; }

std::vector<double> numbers_of(std::string_view line, const std::string& where, double least) {
  std::vector<double> values;
  line = line.substr(0, line.find('#'));
  for (auto begin = line.find_first_not_of(kBlanks); begin != std::string_view::npos;
       begin = line.find_first_not_of(kBlanks)) {
    line.remove_prefix(begin);
    const std::string_view word = line.substr(0, line.find_first_of(kBlanks));
    double value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc{} || end != word.data() + word.size() || !fits(value, least))
      throw InputError(fmt::format("{}: found \"{}\", expected {}", where, word.substr(0, kShown), expected(least)));
    values.push_back(value);
    line.remove_prefix(word.size());
  }
  return values;
}

}  // namespace

NumberTable read_table(const std::string& file, double least) {
  std::ifstream stream(file);
  if (!stream || std::filesystem::is_directory(file))
    throw InputError(fmt::format("{}: can't be read; expected a text file with a line of numbers per layer", file));
  NumberTable table{file, {}};
  std::string line;
  for (std::size_t number = 1; std::getline(stream, line); ++number) {
    std::vector<double> values = numbers_of(line, fmt::format("{}:{}", file, number), least);
    if (!values.empty()) table.lines.push_back({number, std::move(values)});
  }
  if (table.lines.empty())
    throw InputError(fmt::format("{}: found no numbers, expected a line of them per layer", file));
  return table;
}

std::optional<MeasuredOn> PerLayer::measured_on() const {
  if (!importance) return std::nullopt;
  return MeasuredOn{source, importance->model, importance->fingerprint, importance->cut};
}

void PerLayer::expect(const std::string& who, std::size_t layers) const {
  if (values.size() == layers) return;
  throw InputError(fmt::format("{}: {} has {} numbers, the model has {} layers that can be pruned; give one for each",
                               who, source, values.size(), layers));
}

PerLayer take_per_layer(Params& params, const std::string& who, const std::string& key, double least,
                        const MeasuredOfLayer& measured) {
  PerLayer given{params.take<std::vector<double>>(key, {}), key, {}};
  const auto file = params.take<std::string>("file", kNoFile);
  for (const double value : given.values) {
    if (!fits(value, least))
      throw InputError(fmt::format("{}: {} has {}, expected {}", who, key, value, expected(least)));
  }
  if (file == kNoFile) return given;
  if (!given.values.empty()) throw InputError(fmt::format("{}: has both {} and file; give one of them", who, key));
  given.source = file;
  if (measured && is_importance_file(file)) {
    given.importance = read_importance(file);
    for (const LayerImportance& layer : given.importance->layers) {
      given.values.push_back(measured(layer));
      if (!std::isfinite(given.values.back()))
        throw InputError(
            fmt::format("{}: {}: what it asks for wasn't measured of layer {}; task scores and lengths come "
                        "with `depthkv importance --generate`, metrics of hidden states with a study",
                        file, who, layer.layer));
    }
    return given;
  }
  for (const NumberTable::Line& line : read_table(file, least).lines) {
    if (line.values.size() != 1)
      throw InputError(fmt::format("{}:{}: found {} numbers, expected one", file, line.number, line.values.size()));
    given.values.push_back(line.values[0]);
  }
  return given;
}

const std::vector<double>& line_of(const NumberTable& table, int layer, std::size_t heads) {
  const auto index = static_cast<std::size_t>(layer);
  if (index >= table.lines.size())
    throw InputError(
        fmt::format("{}: found {} lines of numbers, expected one for each layer of the model; there is a layer {}",
                    table.file, table.lines.size(), layer));
  const NumberTable::Line& line = table.lines[index];
  if (line.values.size() != heads)
    throw InputError(fmt::format("{}:{}: found {} numbers, expected {}: one for each KV head of layer {}", table.file,
                                 line.number, line.values.size(), heads, layer));
  return line.values;
}

}  // namespace depthkv
