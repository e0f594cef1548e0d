// SPDX-License-Identifier: Apache-2.0
#include "replay/words.h"

#include <utf8proc.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "replay/porter.h"

namespace depthkv {
namespace {

constexpr char32_t kReplacement = 0xFFFD;
constexpr char32_t kCapitalSigma = 0x3A3;
constexpr char32_t kDottedCapitalI = 0x130;

// The code point that `text` begins with and its bytes.
std::optional<std::pair<char32_t, std::size_t>> first_code_point(std::string_view text) {
  utf8proc_int32_t point = -1;
  const utf8proc_ssize_t length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                                   static_cast<utf8proc_ssize_t>(text.size()), &point);
  if (length < 1) return std::nullopt;
  return std::pair{static_cast<char32_t>(point), static_cast<std::size_t>(length)};
}

// Bytes of a `text` that begins with no code point which one U+FFFD stands for: as many as could be one's beginning, at
// least one.
std::size_t broken_bytes(std::string_view text) {
  for (std::size_t count = std::min<std::size_t>(3, text.size()); count > 1; --count) {
    std::string completed(text.substr(0, count));
    while (completed.size() < 4) {
      completed += '\x80';
      if (const auto whole = first_code_point(completed); whole && whole->second == completed.size()) return count;
    }
  }
  return 1;
}

std::u32string decode(std::string_view text) {
  std::u32string points;
  while (!text.empty()) {
    const auto first = first_code_point(text);
    points += first ? first->first : kReplacement;
    text.remove_prefix(first ? first->second : broken_bytes(text));
  }
  return points;
}

std::string encode(std::u32string_view points) {
  std::string text;
  for (const char32_t point : points) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(point), bytes);
    text.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
  }
  return text;
}

utf8proc_category_t category(char32_t point) { return utf8proc_category(static_cast<utf8proc_int32_t>(point)); }

bool is_letter(char32_t point) {
  const utf8proc_category_t c = category(point);
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool is_number(char32_t point) {
  const utf8proc_category_t c = category(point);
  return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

// \w of Python's regular expressions: no combining marks.
bool is_word_character(char32_t point) { return is_letter(point) || is_number(point) || point == U'_'; }

bool is_white_space(char32_t point) {
  constexpr std::u32string_view kOthers = U" \u0085\u2028\u2029";
  return (point >= 0x9 && point <= 0xD) || (point >= 0x1C && point <= 0x1F) ||
         kOthers.find(point) != std::u32string_view::npos || category(point) == UTF8PROC_CATEGORY_ZS;
}

bool is_ascii_punctuation(char32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

// Unicode's Cased and Case_Ignorable (chapter 3.13), which decide where a sigma ends a word.
bool is_cased(char32_t point) {
  // Beside letters: ordinals, Roman numerals, letters in circles and squares.
  constexpr std::pair<char32_t, char32_t> kOthers[] = {{0xAA, 0xAA},      {0xBA, 0xBA},       {0x2160, 0x217F},
                                                       {0x24B6, 0x24E9},  {0x1F130, 0x1F149}, {0x1F150, 0x1F169},
                                                       {0x1F170, 0x1F189}};
  const auto holds = [&](const auto& range) { return point >= range.first && point <= range.second; };
  const utf8proc_category_t c = category(point);
  return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT ||
         std::ranges::any_of(kOthers, holds);
}

bool is_case_ignorable(char32_t point) {
  constexpr std::u32string_view kInsideWords =
      U"'.:\u00B7\u0387\u055F\u05F4\u2018\u2019\u2024\u2027\uFE13\uFE52\uFE55\uFF07\uFF0E\uFF1A";
  const utf8proc_category_t c = category(point);
  return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF ||
         c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_SK ||
         kInsideWords.find(point) != std::u32string_view::npos;
}

bool ends_word(std::u32string_view text, std::size_t sigma) {
  const auto matters = [](char32_t point) { return !is_case_ignorable(point); };
  const auto after = std::find_if(text.begin() + sigma + 1, text.end(), matters);
  const auto before = std::find_if(text.rbegin() + (text.size() - sigma), text.rend(), matters);
  return before != text.rend() && is_cased(*before) && (after == text.end() || !is_cased(*after));
}

Words split(std::u32string_view text) {
  Words words;
  while (true) {
    const auto begin = std::find_if_not(text.begin(), text.end(), is_white_space);
    if (begin == text.end()) return words;
    const auto end = std::find_if(begin, text.end(), is_white_space);
    words.push_back(encode({begin, end}));
    text = {end, text.end()};
  }
}

// Each article that stands as a word of its own becomes a space, as do those next to a dash or a combining mark.
std::u32string without_articles(std::u32string_view text) {
  std::u32string out;
  while (!text.empty()) {
    const auto word_end = std::find_if_not(text.begin(), text.end(), is_word_character);
    const std::u32string_view word(text.begin(), word_end);
    out += word == U"a" || word == U"an" || word == U"the" ? U" " : word;
    const auto next = std::find_if(word_end, text.end(), is_word_character);
    out.append(word_end, next);
    text = {next, text.end()};
  }
  return out;
}

}  // namespace

std::u32string lower_case(std::string_view text) {
  const std::u32string points = decode(text);
  std::u32string lower;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (points[i] == kCapitalSigma) {
      lower += ends_word(points, i) ? U'\u03C2' : U'\u03C3';
    } else if (points[i] == kDottedCapitalI) {
      lower += U"i\u0307";
    } else {
      lower += static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(points[i])));
    }
  }
  return lower;
}

Words squad_words(std::string_view text) {
  std::u32string plain = lower_case(text);
  std::erase_if(plain, is_ascii_punctuation);
  return split(without_articles(plain));
}

Words rouge_words(std::string_view text, bool stem) {
  std::u32string plain = lower_case(text);
  const auto separates = [](char32_t c) { return !((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')); };
  std::replace_if(plain.begin(), plain.end(), separates, U' ');
  Words words = split(plain);
  for (std::string& word : words) {
    if (stem && word.size() > 3) word = porter_stem(std::move(word));
  }
  return words;
}

Words plain_words(std::string_view text) { return split(decode(text)); }

}  // namespace depthkv
