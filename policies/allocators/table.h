// SPDX-License-Identifier: Apache-2.0
// Numbers that policies take from the user: lists in the plan, or text files with a line per layer.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "depthkv/importance.h"
#include "depthkv/policy.h"

namespace depthkv {

inline constexpr const char* kNoFile = "";  // where a file could be named and none is

// Lines of numbers apart by blanks or commas; # starts a comment, lines without a number don't count.
struct NumberTable {
  struct Line {
    std::size_t number;  // in the file, from 1
    std::vector<double> values;
  };
  std::string file;
  std::vector<Line> lines;
};
// Throws InputError naming file and line unless all are finite and at least `least`.
NumberTable read_table(const std::string& file, double least);

// One number per prunable layer.
struct PerLayer {
  std::vector<double> values;            // empty: none were given
  std::string source;                    // what to call it in messages
  std::optional<Importance> importance;  // all of the file, where it is such a one
  std::optional<MeasuredOn> measured_on() const;
  // Throws InputError unless there is one for each.
  void expect(const std::string& who, std::size_t layers) const;
};
// From the list `key`, or the file that the parameter `file` names: its lines, or where `measured` says which number,
// what `depthkv importance` wrote (*.json). `who` in messages: "layer allocator depthkv". Throws InputError where such
// a file doesn't hold the number.
using MeasuredOfLayer = std::function<double(const LayerImportance&)>;
PerLayer take_per_layer(Params& params, const std::string& who, const std::string& key, double least,
                        const MeasuredOfLayer& measured = {});

// The line of a layer, by its number in the model: one number >= 0 per KV head. Throws InputError if it isn't so.
const std::vector<double>& line_of(const NumberTable& table, int layer, std::size_t heads);

}  // namespace depthkv
