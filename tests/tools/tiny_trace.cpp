// SPDX-License-Identifier: Apache-2.0
// `depthkv trace` with the tiny model in place of an engine, for tests that kill it, starve it or run it twice at once.
//
// usage: depthkv_tiny_trace TASKS OUT [MOST_BYTES [sweep]]
// MOST_BYTES: no file may grow beyond, as if the disk were full. sweep: without hidden states, which fill a disk first.
// Prints how many samples it recorded and its peak memory in KiB.
#include <fmt/format.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>

#include "depthkv/record.h"
#include "support/tiny_model.h"

// AddressSanitizer would hold freed memory back, and peak memory rise with all that was ever freed.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "quarantine_size_mb=1:thread_local_quarantine_size_kb=64"; }

int main(int argc, char** argv) {
  using namespace depthkv;
  if (argc < 3) return 2;
  if (argc > 3) {
    const rlim_t most = std::strtoull(argv[3], nullptr, 10);
    const rlimit limit{most, most};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::signal(SIGXFSZ, SIG_IGN);  // writes then fail, as on a full disk
  }
  try {
    TinyModel model;
    TracePlan plan;
    plan.tasks = {{argv[1]}};
    apply_preset(Preset::full, plan);
    if (argc > 4) plan.channels = preset_channels(Preset::sweep);
    const TraceSummary done = record_traces(model, plan, argv[2], [](auto&&...) {});
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    fmt::print("{} {}\n", done.recorded, usage.ru_maxrss);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
