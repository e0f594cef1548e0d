// SPDX-License-Identifier: Apache-2.0
#include "support/synthetic_trace.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/half.h"
#include "kernels/rotary.h"

namespace depthkv {
namespace {

// Values that half precision holds exactly, so that what is read back is what was written.
std::vector<float> random_rows(std::mt19937_64& random, std::int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<std::size_t>(count));
  for (float& x : rows) x = from_half(to_half(normal(random)));
  return rows;
}

// What real caches have and noise lacks: rows [token, head, dimension] get a mean per head before they are rotated,
// lengths that differ, outliers, and a first row that stands out.
void make_uneven(std::mt19937_64& random, std::vector<float>& rows, std::int64_t heads, const SyntheticTrace& o,
                 const Rotary& rotary) {
  std::normal_distribution<float> normal;
  const std::vector<float> means = random_rows(random, heads * o.head_dim);
  for (std::int64_t i = 0; i < o.tokens; ++i) {
    const float outlier = i == 0 ? 3.0F : i % 37 == 5 ? 1.75F : 1.0F;
    for (std::int64_t h = 0; h < heads; ++h) {
      const float length = outlier * std::exp(0.25F * normal(random));
      const std::span row(rows.data() + (i * heads + h) * o.head_dim, static_cast<std::size_t>(o.head_dim));
      for (std::size_t c = 0; c < row.size(); ++c)
        row[c] = length * (row[c] + means[static_cast<std::size_t>(h) * row.size() + c]);
      rotate(row, static_cast<double>(i), rotary);
      for (float& x : row) x = from_half(to_half(x));
    }
  }
}

// Causal softmax of every row: [query head, row, token].
std::vector<float> attention_of(const SyntheticTrace& o, const std::vector<float>& queries,
                                const std::vector<float>& keys, double scale) {
  const std::int64_t group = o.query_heads / o.kv_heads;
  std::vector<float> rows(static_cast<std::size_t>(o.query_heads * o.tokens * o.tokens));
  std::vector<double> weights(static_cast<std::size_t>(o.tokens));
  for (std::int64_t h = 0; h < o.query_heads; ++h) {
    for (std::int64_t i = 0; i < o.tokens; ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j <= i; ++j) {
        double dot = 0;
        for (std::int64_t c = 0; c < o.head_dim; ++c) {
          dot += static_cast<double>(queries[static_cast<std::size_t>((i * o.query_heads + h) * o.head_dim + c)]) *
                 static_cast<double>(keys[static_cast<std::size_t>((j * o.kv_heads + h / group) * o.head_dim + c)]);
        }
        sum += weights[static_cast<std::size_t>(j)] = std::exp(scale * dot);
      }
      for (std::int64_t j = 0; j <= i; ++j) {
        rows[static_cast<std::size_t>((h * o.tokens + i) * o.tokens + j)] =
            static_cast<float>(weights[static_cast<std::size_t>(j)] / sum);
      }
    }
  }
  return rows;
}

// [2, query head, prompt_end], 0 from the cut on.
std::vector<float> column_sums_of(const SyntheticTrace& o, const std::vector<float>& attention) {
  const std::int64_t columns = o.segments.prompt_end;
  std::vector<float> sums(static_cast<std::size_t>(2 * o.query_heads * columns));
  for (const Cut cut : {Cut::context, Cut::prompt}) {
    for (std::int64_t h = 0; h < o.query_heads; ++h) {
      for (std::int64_t j = 0; j < o.segments.at(cut); ++j) {
        double sum = 0;
        for (std::int64_t i = j; i < o.segments.at(cut); ++i)
          sum += static_cast<double>(attention[static_cast<std::size_t>((h * o.tokens + i) * o.tokens + j)]);
        sums[static_cast<std::size_t>((static_cast<std::int64_t>(cut) * o.query_heads + h) * columns + j)] =
            static_cast<float>(sum);
      }
    }
  }
  return sums;
}

void write_hidden(TraceWriter& writer, const SyntheticTrace& o, std::int64_t width, int layer) {
  std::mt19937_64 random(o.seed + 100 + static_cast<std::uint64_t>(layer));
  const auto stages = static_cast<std::int64_t>(kStages.size());
  writer.write_whole(Channel::hidden_mean, layer, random_rows(random, stages * width));
  std::vector<float> unit = random_rows(random, stages * width);
  for (float& x : unit) x /= 64;
  writer.write_whole(Channel::hidden_unit_mean, layer, unit);
  std::vector<float> scalars;
  for (const Stage stage : kStages) {
    const auto entropy = 0.5F + 0.25F * static_cast<float>(stage);
    scalars.insert(scalars.end(), {1.5F, 1.25F, entropy, std::exp(entropy)});
  }
  writer.write_whole(Channel::hidden_scalars, layer, scalars);
  std::vector<float> cosines = random_rows(random, o.segments.prompt_end * 2);
  for (float& x : cosines) x = std::sin(x);
  writer.write_whole(Channel::attention_cosines, layer, cosines);
}

void write_repeats(TraceWriter& writer, const SyntheticTrace& o, int layer) {
  std::mt19937_64 random(o.seed + 300 + static_cast<std::uint64_t>(layer));
  std::uniform_real_distribution<float> share(0.0F, 1.0F);
  std::vector<float> maxima;
  for (const Repeat repeat : kRepeats) {
    for (std::int64_t i = 0; i < o.query_heads * o.segments.prompt_end; ++i) {
      const std::int64_t j = i % o.segments.prompt_end;
      const bool known = j < o.segments.context.end && (repeat == Repeat::cache || j >= o.segments.context.begin);
      maxima.push_back(known ? share(random) : 0.0F);
    }
  }
  writer.write_whole(Channel::repeat_max, layer, maxima);
}

// Mean and mean outer product of the queries before rotation, over the rows below each cut.
void write_moments(TraceWriter& writer, const SyntheticTrace& o, const std::vector<float>& queries, int layer) {
  const auto width = static_cast<std::size_t>(o.head_dim);
  const Rotary rotary = rotary_of(synthetic_card(o), layer);
  std::vector<float> means;
  std::vector<float> squares;
  for (const Cut cut : {Cut::context, Cut::prompt}) {
    const auto rows = o.segments.at(cut);
    for (std::int64_t h = 0; h < o.query_heads; ++h) {
      std::vector<double> mean(width);
      std::vector<double> square(width * width);
      for (std::int64_t i = 0; i < rows; ++i) {
        const auto at = queries.begin() + (i * o.query_heads + h) * o.head_dim;
        std::vector<float> q(at, at + o.head_dim);
        unrotate(q, static_cast<double>(i), rotary);
        for (std::size_t a = 0; a < width; ++a) {
          mean[a] += static_cast<double>(q[a]) / static_cast<double>(rows);
          for (std::size_t b = 0; b < width; ++b)
            square[a * width + b] += static_cast<double>(q[a]) * static_cast<double>(q[b]) / static_cast<double>(rows);
        }
      }
      means.insert(means.end(), mean.begin(), mean.end());
      squares.insert(squares.end(), square.begin(), square.end());
    }
  }
  writer.write_whole(Channel::query_mean, layer, means);
  writer.write_whole(Channel::query_second_moment, layer, squares);
}

void write_output_norms(TraceWriter& writer, const SyntheticTrace& o, const std::vector<float>& values, int layer) {
  const Tensor projection = synthetic_projection(o, layer);
  const std::int64_t group = o.query_heads / o.kv_heads;
  std::vector<float> norms;
  for (std::int64_t j = 0; j < o.tokens; ++j) {
    for (std::int64_t h = 0; h < o.query_heads; ++h) {
      double l1 = 0;
      double l2 = 0;
      for (std::size_t c = 0; c < static_cast<std::size_t>(projection.columns()); ++c) {
        double out = 0;
        for (std::int64_t a = 0; a < o.head_dim; ++a) {
          out += static_cast<double>(values[static_cast<std::size_t>((j * o.kv_heads + h / group) * o.head_dim + a)]) *
                 static_cast<double>(projection.row(h, a)[c]);
        }
        l1 += std::abs(out);
        l2 += out * out;
      }
      norms.push_back(static_cast<float>(l1));
      norms.push_back(static_cast<float>(std::sqrt(l2)));
    }
  }
  writer.write_rows(Channel::value_output_norms, layer, 0, norms);
}

Sample sample_of(const SyntheticTrace& o) {
  Sample sample;
  sample.id = o.id;
  sample.task = "synthetic";
  sample.metric = "f1";
  sample.source = "tests";
  sample.license = "CC0";
  sample.prompt_text = "prompt of " + o.id + ": æøå";
  sample.answer_text = "answer";
  sample.answer_source = "generated";
  sample.answers = o.answers;
  sample.segments = o.segments;
  sample.truncated = o.truncated;
  sample.answer_limit = o.answer_limit;
  for (std::int64_t t = 0; t < o.tokens; ++t) sample.tokens.push_back(static_cast<Token>(t % 50));
  for (std::int64_t t = 0; t < o.segments.prompt_end; ++t)
    sample.text_offsets.push_back(
        static_cast<std::int32_t>(std::min<std::int64_t>(t / 10, std::ssize(sample.prompt_text))));
  if (o.evidence)
    sample.evidence = {{o.segments.context.begin, o.segments.context.begin + 1},
                       {o.segments.context.end / 2, o.segments.context.end}};
  return sample;
}

}  // namespace

Tensor synthetic_projection(const SyntheticTrace& o, int layer) {
  std::mt19937_64 random(o.seed + 200 + static_cast<std::uint64_t>(layer));
  Tensor projection(o.query_heads, o.head_dim, synthetic_card(o).embedding);
  std::ranges::copy(random_rows(random, static_cast<std::int64_t>(projection.values().size())),
                    projection.values().begin());
  return projection;
}

void write_synthetic_weights(const std::filesystem::path& directory, const SyntheticTrace& o) {
  std::filesystem::create_directories(directory);
  write_trace_weights(directory, synthetic_card(o), [&](int layer) { return synthetic_projection(o, layer); });
}

ModelCard synthetic_card(const SyntheticTrace& o) {
  ModelCard card;
  card.name = "synthetic";
  card.architecture = "none";
  card.fingerprint = "0123456789abcdef";
  card.engine = "tests";
  card.device = "cpu";
  card.context_length = 4096;
  card.vocabulary = 50;
  card.embedding = o.query_heads * o.head_dim;
  card.rotary_layout = o.rotary_layout;
  card.rotary_base = o.rotary_layout == "none" ? 0 : 10000;
  card.rotations = o.rotations;
  card.attention_scale = 1.0 / std::sqrt(static_cast<double>(o.head_dim));
  card.layers.assign(static_cast<std::size_t>(o.layers), {o.query_heads, o.kv_heads, o.head_dim});
  for (std::size_t l = 0; l < o.windows.size(); ++l) card.layers[l].window = o.windows[l];
  return card;
}

std::filesystem::path write_synthetic_trace(const std::filesystem::path& directory, const SyntheticTrace& o) {
  std::filesystem::create_directories(directory);
  const std::filesystem::path file = directory / trace_file_name(o.id);
  const ModelCard card = synthetic_card(o);
  RecordOptions record{.attention = std::vector<bool>(static_cast<std::size_t>(o.layers), o.attention),
                       .all_queries = o.all_queries,
                       .engine_softmax = true,
                       .codec = o.codec};
  if (o.output_norms) record.channels.insert(Channel::value_output_norms);
  TraceWriter writer(file, card, o.segments, o.tokens + 7, record);  // more than is needed, so that files are shrunk
  std::mt19937_64 random(o.seed);
  for (int layer = 0; layer < o.layers; ++layer) {
    std::vector<float> keys = random_rows(random, o.tokens * o.kv_heads * o.head_dim);
    std::vector<float> values = random_rows(random, o.tokens * o.kv_heads * o.head_dim);
    std::vector<float> queries = random_rows(random, o.tokens * o.query_heads * o.head_dim);
    if (o.uneven) {
      make_uneven(random, keys, o.kv_heads, o, rotary_of(card, layer));
      make_uneven(random, values, o.kv_heads, o, {});
      make_uneven(random, queries, o.query_heads, o, rotary_of(card, layer));
    }
    writer.write_rows(Channel::keys, layer, 0, keys);
    writer.write_rows(Channel::values, layer, 0, values);
    writer.write_rows(Channel::queries, layer, 0, queries);
    const std::vector<float> attention = attention_of(o, queries, keys, card.attention_scale);
    const View rows{attention.data(), o.query_heads, o.tokens, o.tokens, o.tokens * o.tokens, o.tokens};
    if (o.attention) writer.write_attention(layer, 0, {&rows, 1});
    if (o.column_sums) writer.write_whole(Channel::column_sums, layer, column_sums_of(o, attention));
    if (o.moments) write_moments(writer, o, queries, layer);
    if (o.output_norms) write_output_norms(writer, o, values, layer);
    if (o.hidden) write_hidden(writer, o, card.embedding, layer);
    if (o.repeats) write_repeats(writer, o, layer);
  }
  writer.finish(sample_of(o));
  return file;
}

}  // namespace depthkv
