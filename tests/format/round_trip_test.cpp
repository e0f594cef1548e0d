// SPDX-License-Identifier: Apache-2.0
// What is written is what is read, through our own reader.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <bit>
#include <cmath>
#include <random>

#include "depthkv/error.h"
#include "kernels/half.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

// Rows of random half-precision numbers, handed to the writer in ragged blocks and kept for comparison.
std::vector<float> random_floats(std::mt19937& random, std::size_t count) {
  std::uniform_real_distribution<float> draw(-4, 4);
  std::vector<float> values(count);
  for (float& x : values) x = from_half(to_half(draw(random)));
  return values;
}

struct RoundTripCase {
  const char* name;
  std::int64_t tokens;
  Segments segments;
  int query_heads;
  int kv_heads;
  int head_dim;
  std::int64_t block;  // rows per write
  Codec codec;
  bool all_queries;
};

class RoundTrip : public testing::TestWithParam<RoundTripCase> {};
INSTANTIATE_TEST_SUITE_P(
    Format, RoundTrip,
    testing::Values(RoundTripCase{"one_token", 1, {{0, 1}, 1}, 1, 1, 2, 1, Codec::none, false},
                    RoundTripCase{"one_head", 130, {{0, 100}, 129}, 1, 1, 4, 7, Codec::deflate, true},
                    RoundTripCase{"tile_sized", 128, {{1, 64}, 128}, 2, 1, 8, 128, Codec::none, true},
                    RoundTripCase{"ragged", 301, {{5, 200}, 290}, 6, 3, 8, 53, Codec::none, false},
                    RoundTripCase{"deflated", 301, {{5, 257}, 290}, 4, 2, 8, 256, Codec::deflate, false},
                    RoundTripCase{"zstd", 700, {{5, 600}, 690}, 4, 2, 8, 300, Codec::zstd, true}),
    [](const auto& test) { return test.param.name; });

TEST_P(RoundTrip, EveryChannelReadsBackAsWritten) {
  const RoundTripCase& c = GetParam();
  ModelCard card = synthetic_card({});
  card.layers = {{c.query_heads, c.kv_heads, c.head_dim}};
  Sample sample;
  sample.id = "x";
  sample.segments = c.segments;
  sample.tokens.assign(static_cast<std::size_t>(c.tokens), 7);
  sample.text_offsets.assign(static_cast<std::size_t>(c.segments.prompt_end), 0);

  std::mt19937 random(3);
  const auto size = [&](std::int64_t heads, std::int64_t width) {
    return static_cast<std::size_t>(c.tokens * heads * width);
  };
  const std::vector<float> keys = random_floats(random, size(c.kv_heads, c.head_dim));
  const std::vector<float> queries = random_floats(random, size(c.query_heads, c.head_dim));
  const std::vector<float> attention = random_floats(random, size(c.query_heads, c.tokens));  // [row][head][key]
  const std::vector<float> norms = random_floats(random, size(c.query_heads, 2));
  const auto whole = [&](std::int64_t width) {
    return random_floats(random, static_cast<std::size_t>(2 * c.query_heads * width));
  };
  const std::vector<float> sums = whole(c.segments.prompt_end);
  const std::vector<float> means = whole(c.head_dim);
  const std::vector<float> moments = whole(c.head_dim * c.head_dim);
  const auto embedding = static_cast<std::size_t>(card.embedding);
  const std::vector<float> hidden = random_floats(random, 4 * embedding);
  const std::vector<float> units = random_floats(random, 4 * embedding);
  const std::vector<float> scalars = random_floats(random, 16);
  const std::vector<float> repeats =
      random_floats(random, static_cast<std::size_t>(3 * c.query_heads * c.segments.prompt_end));
  const std::vector<float> cosines = random_floats(random, static_cast<std::size_t>(2 * c.segments.prompt_end));

  const ScratchDirectory scratch;
  const std::set<Channel> channels{Channel::keys, Channel::values, Channel::queries, Channel::value_output_norms};
  TraceWriter writer(scratch / "x.h5", card, c.segments, c.tokens + 300,
                     {.attention = {true}, .all_queries = c.all_queries, .codec = c.codec, .channels = channels});
  for (std::int64_t first = 0; first < c.tokens; first += c.block) {
    const std::int64_t count = std::min(c.block, c.tokens - first);
    const auto rows = [&](const std::vector<float>& all, std::int64_t width) {
      return std::span(all).subspan(static_cast<std::size_t>(first * width), static_cast<std::size_t>(count * width));
    };
    writer.write_rows(Channel::keys, 0, first, rows(keys, c.kv_heads * c.head_dim));
    writer.write_rows(Channel::values, 0, first, rows(keys, c.kv_heads * c.head_dim));
    writer.write_rows(Channel::queries, 0, first, rows(queries, c.query_heads * c.head_dim));
    writer.write_rows(Channel::value_output_norms, 0, first, rows(norms, c.query_heads * 2));
    std::vector<float> block;  // [head][row][key], as an engine has it
    for (std::int64_t h = 0; h < c.query_heads; ++h) {
      for (std::int64_t r = first; r < first + count; ++r) {
        const auto from = attention.begin() + (r * c.query_heads + h) * c.tokens;
        block.insert(block.end(), from, from + c.tokens);
      }
    }
    const View matrix{block.data(), c.query_heads, count, c.tokens, count * c.tokens, c.tokens};
    // Heads may come in groups.
    const View groups[] = {matrix.head_range(0, 1), matrix.head_range(1, c.query_heads - 1)};
    writer.write_attention(0, first, std::span(groups).first(c.query_heads > 1 ? 2 : 1));
  }
  writer.write_whole(Channel::column_sums, 0, sums);
  writer.write_whole(Channel::query_mean, 0, means);
  writer.write_whole(Channel::query_second_moment, 0, moments);
  writer.write_whole(Channel::hidden_mean, 0, hidden);
  writer.write_whole(Channel::hidden_unit_mean, 0, units);
  writer.write_whole(Channel::hidden_scalars, 0, scalars);
  writer.write_whole(Channel::attention_cosines, 0, cosines);
  writer.write_whole(Channel::repeat_max, 0, repeats);
  EXPECT_THROW(writer.write_whole(Channel::output_projection, 0, hidden), Error) << "isn't a sample's";
  EXPECT_FALSE(std::filesystem::exists(scratch / "x.h5")) << "nothing under the final name before finish()";
  writer.finish(sample);

  const Trace trace = Trace::open(scratch / "x.h5");
  EXPECT_EQ(trace.model(), card);
  const auto at = [](const std::vector<float>& all, std::int64_t index) {
    return all[static_cast<std::size_t>(index)];
  };
  const Tensor read_keys = trace.keys(0);
  const Tensor read_values = trace.values(0);
  for (std::int64_t t = 0; t < c.tokens; ++t)
    for (std::int64_t h = 0; h < c.kv_heads; ++h)
      for (std::int64_t d = 0; d < c.head_dim; ++d) {
        const float expected = at(keys, (t * c.kv_heads + h) * c.head_dim + d);
        ASSERT_EQ(read_keys.row(h, t)[static_cast<std::size_t>(d)], expected);
        ASSERT_EQ(read_values.row(h, t)[static_cast<std::size_t>(d)], expected);
      }
  const auto query_rows = trace.query_rows();
  EXPECT_TRUE(std::ranges::equal(query_rows, recorded_query_rows(c.segments, c.tokens, c.all_queries)));
  const Tensor read_queries = trace.queries(0);
  ASSERT_EQ(read_queries.rows(), static_cast<std::int64_t>(query_rows.size()));
  for (std::size_t r = 0; r < query_rows.size(); ++r)
    for (std::int64_t h = 0; h < c.query_heads; ++h)
      ASSERT_EQ(read_queries.row(h, static_cast<std::int64_t>(r))[0],
                at(queries, (query_rows[r] * c.query_heads + h) * c.head_dim));
  const Tensor all = trace.attention(0, {0, c.tokens});
  const Tensor part = trace.attention(0, {c.tokens / 3, c.tokens});
  for (std::int64_t h = 0; h < c.query_heads; ++h)
    for (std::int64_t r = 0; r < c.tokens; ++r) {
      for (std::int64_t j = 0; j < c.tokens; ++j) {
        const float expected = j <= r ? at(attention, (r * c.query_heads + h) * c.tokens + j) : 0.0F;
        ASSERT_EQ(all.row(h, r)[static_cast<std::size_t>(j)], expected) << h << ' ' << r << ' ' << j;
      }
    }
  for (std::int64_t h = 0; h < c.query_heads; ++h)
    for (std::int64_t r = 0; r < part.rows(); ++r)
      ASSERT_TRUE(std::ranges::equal(part.row(h, r), all.row(h, r + c.tokens / 3)));
  for (const Norm norm : {Norm::l1, Norm::l2}) {
    const Tensor read = trace.value_output_norms(0, norm);
    for (std::int64_t h = 0; h < c.query_heads; ++h)
      for (std::int64_t t = 0; t < c.tokens; ++t)
        ASSERT_EQ(read.row(h, 0)[static_cast<std::size_t>(t)],
                  at(norms, (t * c.query_heads + h) * 2 + static_cast<std::int64_t>(norm)));
  }
  EXPECT_EQ(trace.hidden_mean(0).heads(), 4);
  EXPECT_TRUE(std::ranges::equal(trace.hidden_mean(0).values(), hidden));
  EXPECT_TRUE(std::ranges::equal(trace.hidden_unit_mean(0).values(), units));
  EXPECT_TRUE(std::ranges::equal(trace.hidden_scalars(0).values(), scalars));
  const Tensor read_cosines = trace.attention_cosines(0);
  ASSERT_EQ(read_cosines.columns(), c.segments.prompt_end);
  for (std::int64_t t = 0; t < c.segments.prompt_end; ++t)
    for (const std::int64_t column : {0, 1})
      ASSERT_EQ(read_cosines.row(column, 0)[static_cast<std::size_t>(t)], at(cosines, 2 * t + column));
  for (const Cut cut : {Cut::context, Cut::prompt}) {
    for (const Repeat repeat : kRepeats) {
      const Tensor read = trace.repeat_max(0, repeat, cut);
      ASSERT_EQ(read.columns(), c.segments.at(cut));
      for (std::int64_t h = 0; h < c.query_heads; ++h)
        for (std::int64_t j = 0; j < read.columns(); ++j)
          ASSERT_EQ(read.row(h, 0)[static_cast<std::size_t>(j)],
                    at(repeats, (static_cast<std::int64_t>(repeat) * c.query_heads + h) * c.segments.prompt_end + j));
    }
    // One cut's part of a statistic, `stored` wide per head.
    const auto expect_part = [&](const Tensor& read, const std::vector<float>& written, std::int64_t stored) {
      const std::int64_t width = read.rows() * read.columns();
      for (std::int64_t h = 0; h < c.query_heads; ++h)
        for (std::int64_t i = 0; i < width; ++i)
          ASSERT_EQ(read.values()[static_cast<std::size_t>(h * width + i)],
                    at(written, (static_cast<std::int64_t>(cut) * c.query_heads + h) * stored + i));
    };
    EXPECT_EQ(trace.column_sums(0, cut).columns(), c.segments.at(cut));
    expect_part(trace.column_sums(0, cut), sums, c.segments.prompt_end);
    expect_part(trace.query_mean(0, cut), means, c.head_dim);
    expect_part(trace.query_second_moment(0, cut), moments, c.head_dim * c.head_dim);
  }
}

TEST(TraceFile, SampleReadsBackAsWritten) {
  const ScratchDirectory scratch;
  const Trace trace = Trace::open(write_synthetic_trace(scratch.path(), {}));
  const Sample& sample = trace.sample();
  EXPECT_EQ(sample.prompt_text, "prompt of synthetic: æøå");
  EXPECT_THAT(sample.answers, testing::ElementsAre("one", "two, three"));
  EXPECT_EQ(sample.segments, SyntheticTrace{}.segments);
  EXPECT_EQ(sample.evidence.size(), 2U);
  EXPECT_FALSE(trace.has(Channel::attention, 0));
}

// Tiles above the diagonal take no room: far less than the whole matrix.
TEST(TraceFile, AttentionAboveTheDiagonalIsNotStored) {
  const ScratchDirectory scratch;
  SyntheticTrace options;
  options.layers = 1;
  options.tokens = 1000;
  options.segments = {{0, 900}, 950};
  const auto without = std::filesystem::file_size(write_synthetic_trace(scratch / "a", options));
  options.attention = true;
  const auto with = std::filesystem::file_size(write_synthetic_trace(scratch / "b", options));
  const std::uintmax_t tile = 128 * 128 * 2;
  EXPECT_NEAR(static_cast<double>(with - without), 4.0 * 36 * tile, 0.05 * 4 * 36 * tile);  // 8 x 9 / 2 tiles of 8 x 8
}

TEST(TraceWriter, RefusesRowsOutOfOrderAndIncompleteSamples) {
  const ScratchDirectory scratch;
  const SyntheticTrace options;
  const ModelCard card = synthetic_card(options);
  const std::vector<float> row(static_cast<std::size_t>(2 * options.head_dim));
  {
    TraceWriter writer(scratch / "x.h5", card, options.segments, 200, {});
    writer.write_rows(Channel::keys, 0, 0, row);
    EXPECT_THROW(writer.write_rows(Channel::keys, 0, 0, row), Error);
    EXPECT_THROW(writer.write_rows(Channel::keys, 0, 2, row), Error);
    EXPECT_THROW(writer.write_rows(Channel::values, 0, 0, {}), Error);
    EXPECT_THROW(writer.write_rows(Channel::value_output_norms, 0, 0, row), Error) << "isn't recorded";
    EXPECT_THROW(writer.write_whole(Channel::column_sums, 0, row), Error);
    Sample sample;
    sample.segments = options.segments;
    EXPECT_THROW(writer.finish(sample), Error);
    sample.tokens.resize(180);
    EXPECT_THROW(writer.finish(sample), Error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path())) << "an abandoned writer leaves nothing behind";
}

TEST(TraceSet, ListsFinishedSamplesOnly) {
  const ScratchDirectory scratch;
  EXPECT_THROW(open_trace_set(scratch.path()), InputError);
  SyntheticTrace options;
  for (const char* id : {"b", "a"}) {
    options.id = id;
    write_synthetic_trace(scratch.path(), options);
  }
  write_trace_index(scratch.path());
  write_text(scratch / ".c.h5.partial-1", "half");
  write_text(scratch / "plan.json", "{}");
  const TraceSet set = open_trace_set(scratch.path());
  ASSERT_EQ(set.files.size(), 2U);
  EXPECT_EQ(set.files[0].filename(), "a.h5");
  EXPECT_EQ(trace_file_name("../a b/c"), "_._a_b_c.h5");
  EXPECT_EQ(trace_file_name("index"), "_index.h5");
  EXPECT_EQ(trace_file_name("weights"), "_weights.h5");
  EXPECT_EQ(trace_file_name(""), "_.h5");
}

TEST(TraceWeights, ReadBackAsWrittenAndAreNoSample) {
  const ScratchDirectory scratch;
  const SyntheticTrace options;
  write_synthetic_trace(scratch.path(), options);
  EXPECT_THROW(TraceWeights::open(scratch.path()), InputError);
  write_synthetic_weights(scratch.path(), options);
  EXPECT_EQ(open_trace_set(scratch.path()).files.size(), 1U);
  EXPECT_THROW(open_trace_set(scratch / "weights.h5"), InputError);
  const TraceWeights weights = TraceWeights::open(scratch.path());
  EXPECT_EQ(weights.model(), synthetic_card(options));
  for (int layer = 0; layer < options.layers; ++layer) {
    const Tensor found = weights.output_projection(layer);
    const Tensor expected = synthetic_projection(options, layer);
    EXPECT_EQ(found.heads(), options.query_heads);
    EXPECT_EQ(found.rows(), options.head_dim);
    EXPECT_TRUE(std::ranges::equal(found.values(), expected.values()));
  }
}

TEST(TraceWeights, AreWrittenOnceUnlessTheyAreDamagedOrAnotherModels) {
  const ScratchDirectory scratch;
  SyntheticTrace options;
  write_synthetic_weights(scratch.path(), options);
  const auto never = [](int) -> Tensor { throw std::logic_error("asked for weights that are there"); };
  write_trace_weights(scratch.path(), synthetic_card(options), never);
  const std::string whole = read_text(scratch / "weights.h5");
  std::string damaged = whole;
  damaged[damaged.size() - 100] ^= 1;
  write_text(scratch / "weights.h5", damaged);
  EXPECT_THROW(write_trace_weights(scratch.path(), synthetic_card(options), never), std::logic_error);
  write_synthetic_weights(scratch.path(), options);
  EXPECT_EQ(read_text(scratch / "weights.h5"), whole) << "the same bytes";
  ModelCard other = synthetic_card(options);
  other.fingerprint = "fedcba9876543210";
  EXPECT_THROW(write_trace_weights(scratch.path(), other, never), std::logic_error);
  EXPECT_THROW(write_trace_weights(scratch.path(), other, [](int) { return Tensor(1, 2, 3); }), Error);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch.path()), {}), 1) << "nothing left behind";
}

TEST(Half, VectorConversionsAreThePlainOnes) {
  std::vector<std::uint16_t> bits(1 << 16);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  std::vector<float> values(bits.size());
  from_half(bits, values);
  std::vector<std::uint16_t> again(bits.size());
  to_half(values, again);
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const float expected = from_half(bits[i]);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(values[i]));
      EXPECT_TRUE(std::isnan(from_half(again[i])));
      continue;
    }
    ASSERT_EQ(std::bit_cast<std::uint32_t>(values[i]), std::bit_cast<std::uint32_t>(expected)) << i;
    ASSERT_EQ(again[i], bits[i]);
  }
}

RC_GTEST_PROP(HalfProperty, RoundsToNearestEvenLikeThePlainOne, ()) {
  const auto bits = *rc::gen::container<std::vector<std::uint32_t>>(64, rc::gen::arbitrary<std::uint32_t>());
  std::vector<float> values;
  // Around the range of halves, where rounding, overflow and denormals happen, and anywhere.
  for (const std::uint32_t b : bits)
    values.push_back(std::bit_cast<float>(b % 2 == 0 ? b : (b & 0x8fffffffU) | 0x30000000U));
  std::vector<std::uint16_t> fast(values.size());
  to_half(values, fast);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) {
      RC_ASSERT(std::isnan(from_half(fast[i])));
    } else {
      RC_ASSERT(fast[i] == to_half(values[i]));
    }
  }
}

}  // namespace
}  // namespace depthkv
