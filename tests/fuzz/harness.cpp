// SPDX-License-Identifier: Apache-2.0
#include "fuzz/harness.h"

#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "depthkv/error.h"
#include "depthkv/tasks.h"
#include "depthkv/trace.h"

namespace depthkv::fuzz {
namespace {

// A file in memory that has a path, so that readers take it like any other and a disk isn't needed.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const unsigned char> bytes) : descriptor_(memfd_create("depthkv-fuzz", 0)) {
    if (descriptor_ < 0 || write(descriptor_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      throw std::runtime_error("no memory for a file");
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { close(descriptor_); }
  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

void read_layer(const Trace& trace, int layer) {
  for (const Channel channel : kChannels) {
    if (trace.has(channel, layer)) trace.storage(channel, layer);
  }
  if (trace.has(Channel::keys, layer)) trace.keys(layer);
  if (trace.has(Channel::values, layer)) trace.values(layer);
  if (trace.has(Channel::queries, layer)) trace.queries(layer);
  if (trace.has(Channel::column_sums, layer)) {
    for (const Cut cut : {Cut::context, Cut::prompt}) trace.column_sums(layer, cut);
  }
  if (trace.has(Channel::attention, layer)) trace.attention(layer, {0, trace.sample().size()});
}

}  // namespace

bool read_trace(std::span<const unsigned char> bytes) {
  const MemoryFile file(bytes);
  try {
    const Trace trace = Trace::open(file.path());
    for (int layer = 0; layer < static_cast<int>(trace.model().layers.size()); ++layer) read_layer(trace, layer);
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool read_task_file(std::span<const unsigned char> bytes) {
  const MemoryFile file(bytes);
  try {
    read_tasks(file.path());
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace depthkv::fuzz
