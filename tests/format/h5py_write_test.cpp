// SPDX-License-Identifier: Apache-2.0
// Traces are from everybody: what h5py writes as traces/FORMAT.md says, our reader takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "support/command.h"
#include "support/scratch.h"
#include "support/source.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

bool equal(const Tensor& a, const Tensor& b) {
  return a.heads() == b.heads() && a.rows() == b.rows() && std::ranges::equal(a.values(), b.values());
}

void expect_equal_samples(const Sample& a, const Sample& b) {
  EXPECT_EQ(std::tie(a.id, a.task, a.metric, a.source, a.license),
            std::tie(b.id, b.task, b.metric, b.source, b.license));
  EXPECT_EQ(std::tie(a.prompt_text, a.answer_text, a.answer_source),
            std::tie(b.prompt_text, b.answer_text, b.answer_source));
  EXPECT_EQ(std::tie(a.answers, a.tokens, a.text_offsets, a.segments, a.evidence),
            std::tie(b.answers, b.tokens, b.text_offsets, b.segments, b.evidence));
}

void expect_equal_layers(const Trace& a, const Trace& b) {
  for (int layer = 0; layer < static_cast<int>(a.model().layers.size()); ++layer) {
    for (const Channel channel : kChannels) ASSERT_EQ(a.has(channel, layer), b.has(channel, layer));
    EXPECT_TRUE(equal(a.keys(layer), b.keys(layer)));
    EXPECT_TRUE(equal(a.values(layer), b.values(layer)));
    EXPECT_TRUE(equal(a.queries(layer), b.queries(layer)));
    for (const Cut cut : {Cut::context, Cut::prompt})
      EXPECT_TRUE(equal(a.column_sums(layer, cut), b.column_sums(layer, cut)));
    EXPECT_TRUE(equal(a.hidden_mean(layer), b.hidden_mean(layer)));
    EXPECT_TRUE(equal(a.hidden_unit_mean(layer), b.hidden_unit_mean(layer)));
    EXPECT_TRUE(equal(a.hidden_scalars(layer), b.hidden_scalars(layer)));
    EXPECT_TRUE(equal(a.attention_cosines(layer), b.attention_cosines(layer)));
    for (const Repeat repeat : kRepeats)
      EXPECT_TRUE(equal(a.repeat_max(layer, repeat, Cut::prompt), b.repeat_max(layer, repeat, Cut::prompt)));
    EXPECT_TRUE(equal(a.attention(layer, {0, a.sample().size()}), b.attention(layer, {0, b.sample().size()})));
  }
}

struct Style {
  const char* name;
  const char* codec;
};

class H5pyWrites : public testing::TestWithParam<Style> {
 protected:
  // The sample once from our writer and once more from h5py.
  void compare(const SyntheticTrace& options) {
    const char* python = std::getenv("DEPTHKV_PYTHON");
    ASSERT_NE(python, nullptr) << "DEPTHKV_PYTHON names a Python with h5py; scripts/env.sh sets it";
    const ScratchDirectory scratch;
    const std::filesystem::path ours = write_synthetic_trace(scratch.path(), options);
    const std::filesystem::path theirs = scratch / "from_h5py.h5";
    const std::string script = kSource / "tests/format/write_with_h5py.py";
    const CommandResult result = run_command({python, script, ours.string(), theirs.string(), GetParam().name});
    ASSERT_EQ(result.exit_code, 0) << result.errors;
    const Trace written = Trace::open(ours);
    const Trace read = Trace::open(theirs);
    EXPECT_EQ(read.model(), written.model());
    expect_equal_samples(read.sample(), written.sample());
    EXPECT_TRUE(std::ranges::equal(read.query_rows(), written.query_rows()));
    expect_equal_layers(read, written);
    EXPECT_EQ(read.storage(Channel::keys, 0).codec, GetParam().codec);
  }
};
INSTANTIATE_TEST_SUITE_P(Format, H5pyWrites,
                         testing::Values(Style{"natural", "none"}, Style{"packed", "deflate"},
                                         Style{"checked", "shuffle+deflate+fletcher32"}, Style{"indexed", "deflate"}),
                         [](const auto& style) { return style.param.name; });

TEST_P(H5pyWrites, ASampleThatReadsLikeOurs) {
  SyntheticTrace options;
  options.attention = true;
  options.hidden = options.repeats = true;
  compare(options);
}

TEST_P(H5pyWrites, EmptyListsAndTexts) {
  SyntheticTrace options;
  options.attention = true;
  options.hidden = options.repeats = true;
  options.evidence = false;
  options.answers = {};
  compare(options);
  options.answers = {"", "æøå"};
  compare(options);
}

constexpr const char* kCopyWeights = R"(
import h5py, sys
with h5py.File(sys.argv[1]) as source, h5py.File(sys.argv[2], "w") as target:
    for name, value in source.attrs.items():
        target.attrs[name] = value.decode() if isinstance(value, bytes) else value
    source.copy("model", target)
    for layer in source["layers"]:
        name = f"layers/{layer}/output_projection"
        target.create_dataset(name, data=source[name][()], compression="gzip")
)";

TEST(H5pyWritesWeights, ThatReadLikeOurs) {
  const char* python = std::getenv("DEPTHKV_PYTHON");
  ASSERT_NE(python, nullptr) << "DEPTHKV_PYTHON names a Python with h5py; scripts/env.sh sets it";
  const ScratchDirectory scratch;
  const SyntheticTrace options;
  write_synthetic_weights(scratch / "ours", options);
  std::filesystem::create_directories(scratch / "theirs");
  const CommandResult result = run_command(
      {python, "-c", kCopyWeights, (scratch / "ours/weights.h5").string(), (scratch / "theirs/weights.h5").string()});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const TraceWeights theirs = TraceWeights::open(scratch / "theirs");
  EXPECT_EQ(theirs.model(), synthetic_card(options));
  for (int layer = 0; layer < options.layers; ++layer)
    EXPECT_TRUE(equal(theirs.output_projection(layer), synthetic_projection(options, layer)));
}

}  // namespace
}  // namespace depthkv
