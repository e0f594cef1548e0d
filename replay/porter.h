// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

namespace depthkv {

// Porter's stemmer (An algorithm for suffix stripping, Program 14(3), 1980) as rouge_score uses it, which is NLTK's:
// with the author's two later corrections and NLTK's own departures, each marked in the source. Snowball's "porter"
// stems 1.7 % of English words otherwise (they, used). `word` holds [a-z0-9] only.
std::string porter_stem(std::string word);

}  // namespace depthkv
