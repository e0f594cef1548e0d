// SPDX-License-Identifier: Apache-2.0
// Scores of what a model answered. docs/metrics.md defines them.
#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "depthkv/error.h"
#include "depthkv/tasks.h"

namespace depthkv {
namespace {

using Words = std::vector<std::string>;

// Lower case, code point by code point; bytes that aren't UTF-8 stay as they are.
std::string lower(std::string_view text) {
  std::string out;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto size = static_cast<utf8proc_ssize_t>(text.size());
  for (utf8proc_ssize_t at = 0; at < size;) {
    utf8proc_int32_t point = -1;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + at, size - at, &point);
    if (length <= 0) {
      out += text[static_cast<std::size_t>(at++)];
      continue;
    }
    utf8proc_uint8_t encoded[4];
    const utf8proc_ssize_t written = utf8proc_encode_char(utf8proc_tolower(point), encoded);
    out.append(reinterpret_cast<const char*>(encoded), static_cast<std::size_t>(written));
    at += length;
  }
  return out;
}

bool is_ascii_alphanumeric(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool is_ascii_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

Words split_words(const std::string& text) {
  Words words;
  std::string word;
  for (const char c : text + ' ') {
    if (c == ' ' || (c >= '\t' && c <= '\r')) {
      if (!word.empty()) words.push_back(std::exchange(word, ""));
    } else {
      word += c;
    }
  }
  return words;
}

// SQuAD: lower case, no ASCII punctuation, no articles.
Words squad_words(std::string_view text) {
  std::string plain = lower(text);
  std::erase_if(plain, is_ascii_punctuation);
  Words words = split_words(plain);
  std::erase_if(words, [](const std::string& word) { return word == "a" || word == "an" || word == "the"; });
  return words;
}

// rouge_score's default tokeniser: runs of [a-z0-9] of the lower-cased text, no stemming.
Words rouge_words(std::string_view text) {
  std::string plain = lower(text);
  std::replace_if(
      plain.begin(), plain.end(), [](char c) { return !is_ascii_alphanumeric(c); }, ' ');
  return split_words(plain);
}

// F1 of two bags of words.
double bag_f1(const Words& output, const Words& reference) {
  if (output.empty() || reference.empty()) return 0;
  std::map<std::string, int> left;
  for (const std::string& word : reference) ++left[word];
  const auto common = static_cast<double>(
      std::count_if(output.begin(), output.end(), [&](const std::string& word) { return left[word]-- > 0; }));
  if (common == 0) return 0;
  const double precision = common / static_cast<double>(output.size());
  const double recall = common / static_cast<double>(reference.size());
  return 2 * precision * recall / (precision + recall);
}

double f1(std::string_view output, std::span<const std::string> references) {
  double best = 0;
  for (const std::string& reference : references) {
    const Words a = squad_words(output);
    const Words b = squad_words(reference);
    // As SQuAD 2.0 scores them: where either is empty, right only if both are.
    best = std::max(best, a.empty() || b.empty() ? (a == b ? 1.0 : 0.0) : bag_f1(a, b));
  }
  return best;
}

// The first letter A to D.
double choice(std::string_view output, std::string_view reference) {
  const auto first = std::find_if(output.begin(), output.end(), [](char c) { return c >= 'A' && c <= 'D'; });
  return first != output.end() && std::string_view(first, 1) == reference ? 1 : 0;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Drops the commas of "1,234,567": those between a digit and three digits.
std::string without_thousands_commas(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view next = text.substr(i + 1 < text.size() ? i + 1 : i, 3);
    const bool separator = text[i] == ',' && i > 0 && is_digit(text[i - 1]) && next.size() == 3 &&
                           std::all_of(next.begin(), next.end(), is_digit);
    if (!separator) out += text[i];
  }
  return out;
}

// The number after the last "Answer:", or else the last number of the text.
std::optional<double> stated_number(std::string_view output) {
  const std::size_t marker = output.rfind("Answer:");
  const bool marked = marker != std::string_view::npos;
  const std::string text = without_thousands_commas(marked ? output.substr(marker) : output);
  const char* const end = text.data() + text.size();
  std::optional<double> found;
  for (const char* at = text.data(); at != end;) {
    const char* const digits = *at == '-' ? at + 1 : at;
    if (digits == end || !is_digit(*digits)) {
      ++at;
      continue;
    }
    double value = 0;
    at = std::from_chars(at, end, value, std::chars_format::fixed).ptr;
    found = value;
    if (marked) break;
  }
  return found;
}

double exact_number(std::string_view output, std::string_view reference) {
  const std::optional<double> found = stated_number(output);
  return found && found == stated_number(reference) ? 1 : 0;
}

double string_match_all(std::string_view output, std::span<const std::string> references) {
  const std::string text = lower(output);
  const auto hits = std::count_if(references.begin(), references.end(),
                                  [&](const std::string& r) { return text.find(lower(r)) != std::string::npos; });
  return static_cast<double>(hits) / static_cast<double>(references.size());
}

}  // namespace

const std::vector<std::string>& metric_names() {
  static const std::vector<std::string> kNames{"rouge1",           "f1",  "choice", "exact_number",
                                               "string_match_all", "nll", "none"};
  return kNames;
}

bool is_text_metric(std::string_view metric) { return metric != "nll" && metric != "none"; }

double score_answer(std::string_view metric, std::string_view output, std::span<const std::string> references) {
  if (references.empty()) throw Error(fmt::format("metric {} needs a reference answer, the sample has none", metric));
  if (metric == "f1") return f1(output, references);
  if (metric == "rouge1") return bag_f1(rouge_words(output), rouge_words(references[0]));
  if (metric == "choice") return choice(output, references[0]);
  if (metric == "exact_number") return exact_number(output, references[0]);
  if (metric == "string_match_all") return string_match_all(output, references);
  throw Error(fmt::format("\"{}\" is not a score of a text", metric));
}

}  // namespace depthkv
