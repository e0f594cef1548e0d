// SPDX-License-Identifier: Apache-2.0
// Traces are for everybody: h5py opens index.h5, reads every dataset, and comes to the same checksums.
#include <gtest/gtest.h>

#include <cstdlib>

#include "support/command.h"
#include "support/scratch.h"
#include "support/source.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

TEST(H5py, ReadsEveryDatasetThroughTheIndex) {
  const char* python = std::getenv("DEPTHKV_PYTHON");
  ASSERT_NE(python, nullptr)
      << "DEPTHKV_PYTHON names a Python with h5py; scripts/setup makes one, scripts/env.sh sets it";
  const ScratchDirectory scratch;
  SyntheticTrace options;
  for (const Codec codec : kCodecs) {
    options.id = codec == Codec::none ? "plain, with a space" : std::string(to_string(codec));
    options.codec = codec;
    options.attention = true;
    options.hidden = options.repeats = codec == Codec::zstd;
    write_synthetic_trace(scratch.path(), options);
  }
  write_synthetic_weights(scratch.path(), options);
  write_trace_index(scratch.path());
  const std::string script = kSource / "tests/format/read_with_h5py.py";
  const CommandResult result = run_command({python, script, scratch.path().string()});
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(result.output, std::to_string(3 * (3 * 5 + 15) + 3 * 5 + (3 + 2)) + "\n");
  // 5 datasets a layer, 15 a sample; 4 of hidden states and 1 of a repeated context in each layer of one; weights: one
  // a layer, two of the model
}

}  // namespace
}  // namespace depthkv
