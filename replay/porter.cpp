// SPDX-License-Identifier: Apache-2.0
#include "replay/porter.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

namespace depthkv {
namespace {

using Text = std::string_view;

// A y is a vowel behind a consonant.
bool is_consonant(Text word, std::size_t i) {
  if (word[i] == 'y') return i == 0 || !is_consonant(word, i - 1);
  return Text("aeiou").find(word[i]) == Text::npos;
}

bool ends_in_consonant(Text word) { return !word.empty() && is_consonant(word, word.size() - 1); }

// Porter's m: how often a consonant follows a vowel.
int measure(Text stem) {
  int count = 0;
  for (std::size_t i = 1; i < stem.size(); ++i) count += is_consonant(stem, i) && !is_consonant(stem, i - 1) ? 1 : 0;
  return count;
}

bool has_vowel(Text stem) {
  for (std::size_t i = 0; i < stem.size(); ++i) {
    if (!is_consonant(stem, i)) return true;
  }
  return false;
}

// *d
bool ends_double(Text word) {
  const std::size_t n = word.size();
  return n >= 2 && word[n - 1] == word[n - 2] && is_consonant(word, n - 1);
}

// *o: consonant, vowel, consonant other than w, x, y. NLTK: so does a word of vowel and consonant.
bool ends_short(Text word) {
  const std::size_t n = word.size();
  if (n < 2 || !is_consonant(word, n - 1) || is_consonant(word, n - 2)) return false;
  return n == 2 || (is_consonant(word, n - 3) && Text("wxy").find(word[n - 1]) == Text::npos);
}

Text without(Text word, Text suffix) { return word.substr(0, word.size() - suffix.size()); }

struct Rule {
  Text suffix;
  Text replacement;
};

// The first rule whose suffix fits decides, whether or not the rest is long enough for it.
std::string apply(std::string word, std::span<const Rule> rules, int measure_above) {
  const auto fits = [&](const Rule& rule) { return word.ends_with(rule.suffix); };
  const auto rule = std::find_if(rules.begin(), rules.end(), fits);
  if (rule == rules.end()) return word;
  const Text stem = without(word, rule->suffix);
  if (measure(stem) <= measure_above) return word;
  return std::string(stem).append(rule->replacement);
}

constexpr int kAny = -1;

std::string drop_plural(std::string word) {
  if (word.ends_with("ies") && word.size() == 4) return word.substr(0, 3);  // NLTK: dies, ties
  static constexpr Rule kRules[] = {{"sses", "ss"}, {"ies", "i"}, {"ss", "ss"}, {"s", ""}};
  return apply(std::move(word), kRules, kAny);
}

std::string drop_past_or_gerund(std::string word) {
  if (word.ends_with("ied")) return word.substr(0, word.size() - (word.size() == 4 ? 1 : 2));  // NLTK: died, spied
  if (word.ends_with("eed")) return measure(without(word, "eed")) > 0 ? word.substr(0, word.size() - 1) : word;
  const auto drops = [&](Text suffix) { return word.ends_with(suffix) && has_vowel(without(word, suffix)); };
  if (drops("ed")) {
    word.resize(word.size() - 2);
  } else if (drops("ing")) {
    word.resize(word.size() - 3);
  } else {
    return word;
  }
  if (word.ends_with("at") || word.ends_with("bl") || word.ends_with("iz")) return word + "e";
  if (ends_double(word)) return Text("lsz").find(word.back()) == Text::npos ? word.substr(0, word.size() - 1) : word;
  return measure(word) == 1 && ends_short(word) ? word + "e" : word;
}

// NLTK, as Porter's second stemmer: behind a consonant that isn't the word's first letter. Porter: behind any vowel.
std::string turn_y(std::string word) {
  if (word.size() > 2 && word.back() == 'y' && ends_in_consonant(without(word, "y"))) word.back() = 'i';
  return word;
}

// bli and logi are the author's corrections; fulli and what happens to alli are NLTK's.
std::string shorten_double_suffix(std::string word) {
  static constexpr Rule kRules[] = {{"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"},   {"anci", "ance"},
                                    {"izer", "ize"},    {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"},
                                    {"eli", "e"},       {"ousli", "ous"},   {"ization", "ize"}, {"ation", "ate"},
                                    {"ator", "ate"},    {"alism", "al"},    {"iveness", "ive"}, {"fulness", "ful"},
                                    {"ousness", "ous"}, {"aliti", "al"},    {"iviti", "ive"},   {"biliti", "ble"},
                                    {"fulli", "ful"}};
  if (word.ends_with("alli") && measure(without(word, "alli")) > 0)
    return shorten_double_suffix(word.substr(0, word.size() - 2));
  if (word.ends_with("logi")) return measure(without(word, "ogi")) > 0 ? word.substr(0, word.size() - 1) : word;
  return apply(std::move(word), kRules, 0);
}

std::string shorten_suffix(std::string word) {
  static constexpr Rule kRules[] = {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"},
                                    {"ical", "ic"},  {"ful", ""},   {"ness", ""}};
  return apply(std::move(word), kRules, 0);
}

std::string drop_suffix(std::string word) {
  if (word.ends_with("sion") || word.ends_with("tion"))
    return measure(without(word, "ion")) > 1 ? word.substr(0, word.size() - 3) : word;
  static constexpr Rule kRules[] = {{"al", ""},   {"ance", ""}, {"ence", ""},  {"er", ""},   {"ic", ""},  {"able", ""},
                                    {"ible", ""}, {"ant", ""},  {"ement", ""}, {"ment", ""}, {"ent", ""}, {"ou", ""},
                                    {"ism", ""},  {"ate", ""},  {"iti", ""},   {"ous", ""},  {"ive", ""}, {"ize", ""}};
  return apply(std::move(word), kRules, 1);
}

std::string tidy_up(std::string word) {
  if (word.ends_with('e')) {
    const Text stem = without(word, "e");
    if (measure(stem) > 1 || (measure(stem) == 1 && !ends_short(stem))) word.pop_back();
  }
  if (word.ends_with("ll") && measure(without(word, "l")) > 1) word.pop_back();
  return word;
}

// NLTK: words that the rules would confuse with others.
constexpr std::pair<Text, Text> kIrregular[] = {
    {"sky", "sky"},       {"skies", "sky"},       {"dying", "die"},       {"lying", "lie"},
    {"tying", "tie"},     {"news", "news"},       {"inning", "inning"},   {"innings", "inning"},
    {"outing", "outing"}, {"outings", "outing"},  {"canning", "canning"}, {"cannings", "canning"},
    {"howe", "howe"},     {"proceed", "proceed"}, {"exceed", "exceed"},   {"succeed", "succeed"}};

}  // namespace

std::string porter_stem(std::string word) {
  for (const auto& [irregular, stem] : kIrregular) {
    if (word == irregular) return std::string(stem);
  }
  if (word.size() < 3) return word;
  word = drop_past_or_gerund(drop_plural(std::move(word)));
  word = shorten_suffix(shorten_double_suffix(turn_y(std::move(word))));
  return tidy_up(drop_suffix(std::move(word)));
}

}  // namespace depthkv
