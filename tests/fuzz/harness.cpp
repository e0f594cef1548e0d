// SPDX-License-Identifier: Apache-2.0
#include "fuzz/harness.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "depthkv/error.h"
#include "depthkv/tasks.h"
#include "depthkv/trace.h"

namespace depthkv::fuzz {
namespace {

// A file that lives in memory where the system has such a folder; rewritten for every execution. (A memfd won't do:
// libhdf5 resolves links, and one's target has no name.) Called as a set's weights are, in a folder of its own.
std::filesystem::path memory_file(std::span<const unsigned char> bytes) {
  const std::filesystem::path shared = "/dev/shm";
  static const std::filesystem::path folder =
      (std::filesystem::is_directory(shared) ? shared : std::filesystem::temp_directory_path()) /
      ("depthkv-fuzz-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::filesystem::path path = folder / "weights.h5";
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!stream.flush()) throw std::runtime_error("can't write " + path.string());
  return path;
}

// Removes the file on every way out.
struct MemoryFile {
  explicit MemoryFile(std::span<const unsigned char> bytes) : path(memory_file(bytes)) {}
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { std::filesystem::remove_all(path.parent_path()); }
  std::filesystem::path path;
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
  const MemoryFile file(bytes);
  try {
    const Trace trace = Trace::open(file.path);
    for (int layer = 0; layer < static_cast<int>(trace.model().layers.size()); ++layer) read_layer(trace, layer);
    return true;
  } catch (const Error&) {
    return read_weights(file.path.parent_path());
  }
}

bool read_task_file(std::span<const unsigned char> bytes) {
  const MemoryFile file(bytes);
  try {
    read_tasks({file.path});
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace depthkv::fuzz
