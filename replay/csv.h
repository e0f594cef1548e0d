// SPDX-License-Identifier: Apache-2.0
// Comma-separated tables as RFC 4180 has them: first line names the columns, fields are quoted where they must be.
#pragma once
#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace depthkv {

class CsvWriter {
 public:
  explicit CsvWriter(std::vector<std::string> columns);

  // As many fields as there are columns. NaN becomes an empty field.
  void row(const std::vector<std::string>& fields);
  const std::string& text() const { return text_; }

 private:
  std::size_t columns_;
  std::string text_;
};

std::string csv_number(double value);  // shortest text that reads back equal; "" for NaN
double csv_number(const std::string& field);

class CsvTable {
 public:
  // Throws Error with file and line: unreadable, unbalanced quotes, a row of another length.
  static CsvTable read(const std::filesystem::path& file);

  std::size_t rows() const { return rows_.size(); }
  // Throws Error if there is no such column.
  const std::string& at(std::size_t row, const std::string& column) const;
  // "results.csv:12", for messages about a row.
  std::string where(std::size_t row) const;

 private:
  std::filesystem::path file_;
  std::map<std::string, std::size_t> columns_;
  std::vector<std::vector<std::string>> rows_;
  std::vector<std::size_t> lines_;
};

// Writes aside, then renames: a file under its final name is complete. Throws Error (disk full, folder gone, ...).
void write_file(const std::filesystem::path& file, const std::string& text);

}  // namespace depthkv
