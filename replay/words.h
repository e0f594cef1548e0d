// SPDX-License-Identifier: Apache-2.0
// Words of a text, as the field's scores count them. Their reference implementations are written in Python, so case,
// word characters and white space are Python's here.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace depthkv {

using Words = std::vector<std::string>;  // UTF-8

// Lower case in code points, as str.lower(): one by one, but for a capital sigma at a word's end and a dotted capital
// I. Bytes that aren't UTF-8 become U+FFFD, as many as errors="replace" makes of them.
std::u32string lower_case(std::string_view text);

// SQuAD's normalisation: lower case, no ASCII punctuation, no a, an, the; split at white space.
Words squad_words(std::string_view text);

// rouge_score's default tokeniser: runs of [a-z0-9] of the lower-cased text; those of more than three letters stemmed,
// if asked for.
Words rouge_words(std::string_view text, bool stem);

// Runs between white space.
Words plain_words(std::string_view text);

}  // namespace depthkv
