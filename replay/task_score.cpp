// SPDX-License-Identifier: Apache-2.0
// Scores of what a model answered. docs/metrics.md defines them; tests/unit/task_score_reference.py computes them by
// the field's implementations.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "depthkv/error.h"
#include "depthkv/tasks.h"
#include "replay/words.h"

namespace depthkv {
namespace {

using References = std::span<const std::string>;

// The best score of the output against any reference.
template <class Score>
double best(References references, const Score& score) {
  double most = 0;
  for (const std::string& reference : references) most = std::max(most, score(reference));
  return most;
}

// F1 where `common` of the output's and the reference's words are the same.
double f_measure(std::size_t common, std::size_t output, std::size_t reference) {
  if (common == 0) return 0;
  const double precision = static_cast<double>(common) / static_cast<double>(output);
  const double recall = static_cast<double>(common) / static_cast<double>(reference);
  return 2 * precision * recall / (precision + recall);
}

// F1 of two bags of words.
double bag_f1(const Words& output, const Words& reference) {
  std::map<std::string_view, std::int64_t> left;
  for (const std::string& word : reference) ++left[word];
  const auto common = std::ranges::count_if(output, [&](const std::string& word) { return left[word]-- > 0; });
  return f_measure(static_cast<std::size_t>(common), output.size(), reference.size());
}

Words pairs(const Words& words) {
  Words joined;
  for (std::size_t i = 1; i < words.size(); ++i) joined.push_back(words[i - 1] + " " + words[i]);
  return joined;
}

// Length of the longest common subsequence.
std::size_t common_subsequence(const Words& a, const Words& b) {
  std::vector<std::size_t> row(b.size() + 1, 0);  // row[j]: of what was seen of a, and the first j of b
  for (const std::string& word : a) {
    std::size_t diagonal = 0;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t above = row[j + 1];
      row[j + 1] = word == b[j] ? diagonal + 1 : std::max(above, row[j]);
      diagonal = above;
    }
  }
  return row.back();
}

enum class Rouge { words, pairs, subsequence };

template <Rouge kind, bool stem>
double rouge(std::string_view output, References references) {
  const Words words = rouge_words(output, stem);
  return best(references, [&](const std::string& reference) {
    const Words wanted = rouge_words(reference, stem);
    if (kind == Rouge::words) return bag_f1(words, wanted);
    if (kind == Rouge::pairs) return bag_f1(pairs(words), pairs(wanted));
    return f_measure(common_subsequence(words, wanted), words.size(), wanted.size());
  });
}

// SQuAD 2.0: references without words count only where there are no others; to them, an output without words is right.
template <class Score>
double squad(std::string_view output, References references, const Score& score) {
  const Words words = squad_words(output);
  std::vector<Words> wanted;
  for (const std::string& reference : references) wanted.push_back(squad_words(reference));
  std::erase_if(wanted, [](const Words& w) { return w.empty(); });
  if (wanted.empty()) return words.empty() ? 1 : 0;
  double most = 0;
  for (const Words& w : wanted) most = std::max(most, score(words, w));
  return most;
}

double f1(std::string_view output, References references) { return squad(output, references, bag_f1); }

double exact_match(std::string_view output, References references) {
  return squad(output, references, [](const Words& a, const Words& b) { return a == b ? 1.0 : 0.0; });
}

// The first letter A to D.
double choice(std::string_view output, References references) {
  const std::size_t first = output.find_first_of("ABCD");
  return first != std::string_view::npos && output.substr(first, 1) == references[0] ? 1 : 0;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Drops the commas of "1,234,567": those between a digit and three digits that no fourth follows.
std::string without_thousands_commas(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = text.substr(i + 1);
    const auto digits = static_cast<std::size_t>(std::ranges::find_if_not(rest, is_digit) - rest.begin());
    if (!(text[i] == ',' && i > 0 && is_digit(text[i - 1]) && digits == 3)) out += text[i];
  }
  return out;
}

// The number that `text` begins with, and its length. It is written as its digits say, however many, so that equal
// numbers are equal texts: no zeros before them, none at the end of a fraction, a point always, no minus before zero.
std::pair<std::string, std::size_t> leading_number(std::string_view text) {
  const std::size_t sign = text.starts_with('-') ? 1 : 0;
  const std::size_t point = std::min(text.find_first_not_of("0123456789", sign), text.size());
  std::string number(text.substr(sign, point - sign));
  number.erase(0, std::min(number.find_first_not_of('0'), number.size()));
  std::size_t end = point;
  if (point < text.size() && text[point] == '.') {
    end = std::min(text.find_first_not_of("0123456789", point + 1), text.size());
    number += text.substr(point, end - point);
    number.erase(number.find_last_not_of('0') + 1);
  } else {
    number += '.';
  }
  return {sign == 1 && number != "." ? "-" + number : number, end};
}

// The first number after the last "Answer:", or else the last number of the text. A number begins with a digit, or a
// minus and a digit.
std::optional<std::string> stated_number(std::string_view output) {
  const std::size_t marker = output.rfind("Answer:");
  const bool marked = marker != std::string_view::npos;
  const std::string plain = without_thousands_commas(marked ? output.substr(marker) : output);
  std::optional<std::string> found;
  for (std::string_view text = plain; !text.empty();) {
    const std::string_view digits = text.substr(text.front() == '-' ? 1 : 0);
    if (digits.empty() || !is_digit(digits.front())) {
      text.remove_prefix(1);
      continue;
    }
    const auto [number, length] = leading_number(text);
    found = number;
    if (marked) break;
    text.remove_prefix(length);
  }
  return found;
}

double exact_number(std::string_view output, References references) {
  const std::optional<std::string> found = stated_number(output);
  return found && found == stated_number(references[0]) ? 1 : 0;
}

std::size_t occurring(std::string_view output, References references) {
  const std::u32string text = lower_case(output);
  return static_cast<std::size_t>(std::ranges::count_if(
      references, [&](const std::string& r) { return text.find(lower_case(r)) != std::u32string::npos; }));
}

double string_match_all(std::string_view output, References references) {
  return static_cast<double>(occurring(output, references)) / static_cast<double>(references.size());
}

double string_match_part(std::string_view output, References references) {
  return occurring(output, references) > 0 ? 1 : 0;
}

double length_ratio(std::string_view output, References references) {
  const std::size_t words = plain_words(output).size();
  const std::size_t wanted = plain_words(references[0]).size();
  return wanted == 0 && words == 0 ? 1
                                   : static_cast<double>(words) / static_cast<double>(std::max<std::size_t>(wanted, 1));
}

struct TextMetric {
  std::string_view name;
  double (*score)(std::string_view output, References references);
};

constexpr TextMetric kTextMetrics[] = {{"rouge1", rouge<Rouge::words, false>},
                                       {"rouge2", rouge<Rouge::pairs, false>},
                                       {"rougeL", rouge<Rouge::subsequence, false>},
                                       {"rouge1_stem", rouge<Rouge::words, true>},
                                       {"rouge2_stem", rouge<Rouge::pairs, true>},
                                       {"rougeL_stem", rouge<Rouge::subsequence, true>},
                                       {"f1", f1},
                                       {"exact_match", exact_match},
                                       {"choice", choice},
                                       {"exact_number", exact_number},
                                       {"string_match_all", string_match_all},
                                       {"string_match_part", string_match_part},
                                       {"length_ratio", length_ratio}};

}  // namespace

const std::vector<std::string>& metric_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const TextMetric& metric : kTextMetrics) names.emplace_back(metric.name);
    names.insert(names.end(), {"nll", "none"});
    return names;
  }();
  return kNames;
}

bool is_text_metric(std::string_view metric) { return metric != "nll" && metric != "none"; }

double score_answer(std::string_view metric, std::string_view output, std::span<const std::string> references) {
  if (references.empty()) throw Error(fmt::format("metric {} needs a reference answer, the sample has none", metric));
  const auto found = std::ranges::find(kTextMetrics, metric, &TextMetric::name);
  if (found == std::end(kTextMetrics)) throw Error(fmt::format("\"{}\" is not a score of a text", metric));
  return found->score(output, references);
}

}  // namespace depthkv
