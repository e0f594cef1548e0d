// SPDX-License-Identifier: Apache-2.0
// What reports say, as cells: the terminal and the HTML page show the same tables.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "depthkv/report.h"

namespace depthkv {

struct Table {
  std::string title;
  std::vector<std::vector<std::string>> rows;  // the first names the columns
  std::size_t text_columns = 0;                // the rest are numbers
};

std::string aligned(const Table& table);  // for the terminal: text to the left, numbers to the right
std::string shown(double value, const char* format = "{:.4f}");
std::string shown_interval(Interval x, const char* format);

std::string results_heading(const ResultTable& results, Metric metric);
// One per keep: the best policies, then what to judge them by (random, best uniform split, best bound).
std::vector<Table> results_tables(const ResultTable& results, Metric metric, std::size_t rows_per_keep);
Table verify_rows(const ResultTable& results, const Verification& verification);
// All of it, or what rank_by predicts and, of every other metric, its pooled figure.
Table agreement_rows(const Verification& verification, bool whole);

}  // namespace depthkv
