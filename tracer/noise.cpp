// SPDX-License-Identifier: Apache-2.0
#include "depthkv/representations.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <vector>

#include "depthkv/stats.h"
#include "tracer/utf8.h"

namespace depthkv {
namespace {

constexpr std::size_t kShortest = 4;  // code points of a word that may be touched, as in nlpaug
constexpr std::string_view kBlanks = " \t\r\n";
constexpr std::string_view kRandom = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
constexpr std::string_view kRows[] = {"qwertyuiop", "asdfghjkl", "zxcvbnm"};

// A word's code points.
using Word = std::vector<std::string>;
using Mistake = std::function<void(Word& word, std::uint64_t& state)>;

Word code_points(std::string_view text) {
  const std::vector<std::int64_t> offsets = code_point_offsets(text);
  Word word;
  for (std::size_t i = 1; i < offsets.size(); ++i)
    word.emplace_back(
        text.substr(static_cast<std::size_t>(offsets[i - 1]), static_cast<std::size_t>(offsets[i] - offsets[i - 1])));
  return word;
}

// The share of `count` things, drawn without replacement.
std::vector<std::size_t> drawn(std::size_t count, double share, std::uint64_t& state) {
  std::vector<std::size_t> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = i;
  shuffle(all, state);
  all.resize(std::min(
      count, std::max<std::size_t>(1, static_cast<std::size_t>(std::llround(share * static_cast<double>(count))))));
  return all;
}

// Lets the mistake happen to a share of the words; what is between them stays.
std::string with_mistakes(std::string_view text, double share, const Mistake& mistake, std::uint64_t& state) {
  struct Part {
    Word points;
    bool may_change = false;
  };
  std::vector<Part> parts;
  std::vector<std::size_t> words;  // of parts
  for (std::size_t at = 0; at < text.size();) {
    const bool blank = kBlanks.find(text[at]) != std::string_view::npos;
    const std::size_t end =
        std::min(blank ? text.find_first_not_of(kBlanks, at) : text.find_first_of(kBlanks, at), text.size());
    parts.push_back({code_points(text.substr(at, end - at))});
    if (!blank && parts.back().points.size() >= kShortest) words.push_back(parts.size() - 1);
    at = end;
  }
  for (const std::size_t w : drawn(words.size(), share, state)) mistake(parts[words[w]].points, state);
  std::string changed;
  for (const Part& part : parts)
    for (const std::string& point : part.points) changed += point;
  return changed;
}

void split(Word& word, std::uint64_t& state) {
  word.insert(word.begin() + 1 + static_cast<std::ptrdiff_t>(draw_below(word.size() - 1, state)), " ");
}

// The keys beside a letter's, in its row and those above and below; nothing for anything else.
std::string neighbours(char letter) {
  std::string found;
  const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  for (std::size_t r = 0; r < std::size(kRows); ++r) {
    const std::size_t at = kRows[r].find(lower);
    if (at == std::string_view::npos) continue;
    if (at > 0) found += kRows[r][at - 1];
    if (at + 1 < kRows[r].size()) found += kRows[r][at + 1];
    if (r > 0) found += kRows[r - 1].substr(at, 2);
    if (r + 1 < std::size(kRows)) found += kRows[r + 1].substr(at > 0 ? at - 1 : 0, at > 0 ? 2 : 1);
  }
  if (lower != letter)
    for (char& c : found) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return found;
}

void replace_one(std::string& point, std::string_view by, std::uint64_t& state) {
  if (!by.empty()) point = by[draw_below(by.size(), state)];
}

}  // namespace

std::string noised(std::string_view text, const Noise& noise, std::uint64_t seed) {
  std::uint64_t state = seed;
  const auto in_characters = [&](const std::function<std::string(const std::string&)>& choices) -> Mistake {
    return [&noise, choices](Word& word, std::uint64_t& random) {
      for (const std::size_t c : drawn(word.size(), noise.characters, random))
        replace_one(word[c], choices(word[c]), random);
    };
  };
  std::string changed = with_mistakes(text, noise.words, split, state);
  changed = with_mistakes(changed, noise.words, in_characters([](const auto&) { return std::string(kRandom); }), state);
  return with_mistakes(
      changed, noise.words,
      in_characters([](const auto& point) { return point.size() == 1 ? neighbours(point[0]) : std::string(); }), state);
}

}  // namespace depthkv
