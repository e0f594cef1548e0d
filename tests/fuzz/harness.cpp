// SPDX-License-Identifier: Apache-2.0
#include "fuzz/harness.h"

#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "depthkv/error.h"
#include "depthkv/tasks.h"
#include "depthkv/trace.h"
#include "support/scratch.h"

namespace depthkv::fuzz {
namespace {

// A file in a folder of its own, called as a set's weights are; TMPDIR says where. (A memfd won't do: libhdf5 resolves
// links, and one's target has no name.)
class ScratchFile {
 public:
  explicit ScratchFile(std::span<const unsigned char> bytes) : path_(folder_ / "weights.h5") {
    std::ofstream stream(path_, std::ios::binary);
    stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!stream.flush()) throw std::runtime_error("can't write " + path_.string());
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  // Of a new name every time: workers that are killed leave theirs behind, and the numbers of processes recur.
  ScratchDirectory folder_;
  std::filesystem::path path_;
};

void read_layer(const Trace& trace, int layer) {
  for (const Channel channel : kChannels) {
    if (trace.has(channel, layer)) trace.storage(channel, layer);
  }
  if (trace.has(Channel::keys, layer)) trace.keys(layer);
  if (trace.has(Channel::values, layer)) trace.values(layer);
  if (trace.has(Channel::queries, layer)) trace.queries(layer);
  for (const Cut cut : {Cut::context, Cut::prompt}) {
    if (trace.has(Channel::column_sums, layer)) trace.column_sums(layer, cut);
    if (trace.has(Channel::query_mean, layer)) trace.query_mean(layer, cut);
    if (trace.has(Channel::query_second_moment, layer)) trace.query_second_moment(layer, cut);
  }
  if (trace.has(Channel::value_output_norms, layer)) trace.value_output_norms(layer, Norm::l2);
  if (trace.has(Channel::hidden_mean, layer)) trace.hidden_mean(layer);
  if (trace.has(Channel::hidden_unit_mean, layer)) trace.hidden_unit_mean(layer);
  if (trace.has(Channel::hidden_scalars, layer)) trace.hidden_scalars(layer);
  if (trace.has(Channel::attention_cosines, layer)) trace.attention_cosines(layer);
  if (trace.has(Channel::repeat_max, layer))
    for (const Repeat repeat : kRepeats) trace.repeat_max(layer, repeat, Cut::prompt);
  if (trace.has(Channel::attention, layer)) trace.attention(layer, {0, trace.sample().size()});
}

bool read_weights(const std::filesystem::path& folder) {
  try {
    const TraceWeights weights = TraceWeights::open(folder);
    for (int layer = 0; layer < static_cast<int>(weights.model().layers.size()); ++layer)
      weights.output_projection(layer);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

bool read_trace(std::span<const unsigned char> bytes) {
  const ScratchFile file(bytes);
  try {
    const Trace trace = Trace::open(file.path());
    for (int layer = 0; layer < static_cast<int>(trace.model().layers.size()); ++layer) read_layer(trace, layer);
    return true;
  } catch (const Error&) {
    return read_weights(file.path().parent_path());
  }
}

bool read_task_file(std::span<const unsigned char> bytes) {
  const ScratchFile file(bytes);
  try {
    read_tasks({file.path()});
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace depthkv::fuzz
