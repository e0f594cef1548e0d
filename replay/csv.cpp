// SPDX-License-Identifier: Apache-2.0
#include "replay/csv.h"

#include <fmt/format.h>

#include <cassert>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

#include "depthkv/error.h"

namespace depthkv {
namespace {

std::string quoted(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  std::string text = "\"";
  for (const char c : field) text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + '"';
}

// Splits one record off the front of `text`; `line` counts the lines passed.
std::vector<std::string> next_record(const std::string& text, std::size_t& at, std::size_t& line,
                                     const std::filesystem::path& file) {
  std::vector<std::string> fields(1);
  const std::size_t first_line = line;
  bool in_quotes = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\n') ++line;
    if (in_quotes) {
      if (c != '"') {
        fields.back() += c;
      } else if (at + 1 < text.size() && text[at + 1] == '"') {
        fields.back() += text[at++];
      } else {
        in_quotes = false;
      }
    } else if (c == '"') {
      in_quotes = true;
    } else if (c == ',') {
      fields.emplace_back();
    } else if (c == '\n') {
      ++at;
      break;
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  if (in_quotes)
    throw Error(
        fmt::format("{}:{}: a quote is never closed; the file was cut short or edited", file.string(), first_line));
  return fields;
}

}  // namespace

CsvWriter::CsvWriter(std::vector<std::string> columns) : columns_(columns.size()) { row(columns); }

void CsvWriter::row(const std::vector<std::string>& fields) {
  assert(fields.size() == columns_);
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (i > 0) text_ += ',';
    text_ += quoted(fields[i]);
  }
  text_ += '\n';
}

std::string csv_number(double value) { return std::isnan(value) ? "" : fmt::format("{}", value); }

double csv_number(const std::string& field) {
  if (field.empty()) return std::numeric_limits<double>::quiet_NaN();
  double value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size())
    throw Error(fmt::format("\"{}\" is not a number", field));
  return value;
}

CsvTable CsvTable::read(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream)
    throw Error(fmt::format("{}: can't be read; run `depthkv replay` or `depthkv run` first", file.string()));
  std::stringstream buffer;
  buffer << stream.rdbuf();
  const std::string text = buffer.str();
  CsvTable table;
  table.file_ = file;
  std::size_t at = 0;
  std::size_t line = 1;
  while (at < text.size()) {
    const std::size_t starts = line;
    std::vector<std::string> fields = next_record(text, at, line, file);
    if (table.columns_.empty()) {
      for (std::size_t i = 0; i < fields.size(); ++i) table.columns_[fields[i]] = i;
      continue;
    }
    if (fields.size() != table.columns_.size()) {
      throw Error(fmt::format("{}:{}: {} fields, expected {}; the file was cut short or edited", file.string(), starts,
                              fields.size(), table.columns_.size()));
    }
    table.rows_.push_back(std::move(fields));
    table.lines_.push_back(starts);
  }
  return table;
}

const std::string& CsvTable::at(std::size_t row, const std::string& column) const {
  const auto found = columns_.find(column);
  if (found == columns_.end()) throw Error(fmt::format("{}: no column \"{}\"", file_.string(), column));
  return rows_[row][found->second];
}

std::string CsvTable::where(std::size_t row) const { return fmt::format("{}:{}", file_.string(), lines_[row]); }

void write_file(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::path aside = file;
  aside += ".partial";
  std::ofstream stream(aside, std::ios::binary | std::ios::trunc);
  stream << text;
  stream.close();
  if (!stream) {
    std::error_code ignored;
    std::filesystem::remove(aside, ignored);
    throw Error(
        fmt::format("{}: can't be written; is the folder there and writable, and the disk not full?", file.string()));
  }
  std::filesystem::rename(aside, file);
}

}  // namespace depthkv
