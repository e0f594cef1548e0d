// SPDX-License-Identifier: Apache-2.0
// Masks that change while a model decodes.
#pragma once
#include <cstdint>

#include "depthkv/model.h"

namespace depthkv {

// hides(layer, KV head, hidden position, position of the token), of all entries before a token.
template <class Hides>
KeepMask changing_mask(const ModelCard& card, Hides hides) {
  KeepMask mask = KeepMask::everything(card);
  mask.hidden_at = [none = mask.pruned, hides](std::int64_t position) {
    EntrySets hidden = none;
    for (std::size_t layer = 0; layer < hidden.size(); ++layer)
      for (std::size_t head = 0; head < hidden[layer].size(); ++head)
        for (std::uint32_t p = 0; p < position; ++p)
          if (hides(layer, head, p, position)) hidden[layer][head].push_back(p);
    return hidden;
  };
  return mask;
}

// As StreamingLLM evicts: a token sees the first `sinks` positions and the last `recent`, its own included.
inline KeepMask streaming_mask(const ModelCard& card, std::int64_t sinks, std::int64_t recent) {
  return changing_mask(card, [=](std::size_t, std::size_t, std::int64_t p, std::int64_t position) {
    return p >= sinks && p <= position - recent;
  });
}

// Another half of the entries for every token, head and layer, so that what was hidden comes back.
inline KeepMask selecting_mask(const ModelCard& card) {
  return changing_mask(card, [](std::size_t layer, std::size_t head, std::uint32_t p, std::int64_t position) {
    return (p * 2654435761U + layer * 31 + head * 7 + static_cast<std::uint64_t>(position) * 13) / 5 % 2 == 0;
  });
}

// What a mask hides from one token, as a mask that doesn't change.
inline KeepMask frozen_at(const KeepMask& mask, std::int64_t position) { return {mask.hidden_at(position)}; }

}  // namespace depthkv
