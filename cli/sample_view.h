// SPDX-License-Identifier: Apache-2.0
// What `inspect --sample` shows of one layer: attention received per position, and the attention matrix, both in as
// many bins as there is room for.
#pragma once
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "depthkv/trace.h"

namespace depthkv {

struct ViewOptions {
  int layer = 0;
  std::optional<int> head;  // query head; none: the mean over all
  Cut cut = Cut::prompt;
};

// Equal parts of [0, size), as many as `most` or one per position.
struct Bins {
  std::int64_t size = 0;
  std::int64_t count = 0;

  Bins(std::int64_t positions, std::int64_t most) : size(positions), count(std::min(positions, most)) {}
  std::int64_t first(std::int64_t bin) const { return bin * size / count; }
  std::int64_t of(std::int64_t position) const { return ((position + 1) * count - 1) / size; }
  bool overlaps(std::int64_t bin, Span span) const { return span.begin < first(bin + 1) && span.end > first(bin); }
};

struct Profile {
  Bins bins;                   // of the positions below the cut
  std::vector<double> values;  // mean attention that a position of the bin received from the rows below the cut
};

struct AttentionMap {
  std::string source;              // "recorded", or "recomputed from queries and keys"
  std::vector<std::int32_t> rows;  // query positions, ascending
  Bins row_bins;                   // of `rows`
  Bins key_bins;                   // of the positions below the cut
  std::vector<double> values;  // [row bin, key bin]: share of a row's attention that the bin receives, mean over rows

  double at(std::int64_t row, std::int64_t key) const {
    return values[static_cast<std::size_t>(row * key_bins.count + key)];
  }
};

// Throw InputError when the layer or head doesn't exist, or the channels that are needed weren't recorded.
void check_view(const Trace& trace, const ViewOptions& options);
Profile profile_of(const Trace& trace, const ViewOptions& options, std::int64_t most_bins);
AttentionMap attention_map_of(const Trace& trace, const ViewOptions& options, std::int64_t most_rows,
                              std::int64_t most_keys);
bool has_attention(const Trace& trace, int layer);  // recorded, or what it can be recomputed from

// As text for a terminal, and as a page that needs nothing but itself. Parts that weren't asked for are left out.
struct Drawing {
  const Trace& trace;
  ViewOptions options;
  std::optional<Profile> profile;
  std::optional<AttentionMap> map;
};
std::string draw_text(const Drawing& drawing, bool utf8);
std::string draw_svg(const Drawing& drawing);

}  // namespace depthkv
