// SPDX-License-Identifier: Apache-2.0
#include "support/tiny_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <random>
#include <utility>

#include "kernels/half.h"

namespace depthkv {
namespace {

constexpr Token kBegin = 256;
constexpr Token kEnd = 257;
constexpr int kVocabulary = 258;

using Vector = std::vector<float>;

struct Matrix {
  int rows = 0;
  int columns = 0;
  Vector values;

  Matrix(std::mt19937_64& random, int r, int c, double spread)
      : rows(r), columns(c), values(static_cast<std::size_t>(r * c)) {
    std::normal_distribution<double> normal(0, spread / std::sqrt(c));
    for (float& x : values) x = static_cast<float>(normal(random));
  }
  Vector times(const Vector& x) const {
    Vector y(static_cast<std::size_t>(rows));
    for (int r = 0; r < rows; ++r) {
      double sum = 0;
      for (int c = 0; c < columns; ++c)
        sum += static_cast<double>(values[static_cast<std::size_t>(r * columns + c)]) *
               static_cast<double>(x[static_cast<std::size_t>(c)]);
      y[static_cast<std::size_t>(r)] = static_cast<float>(sum);
    }
    return y;
  }
};

struct LayerWeights {
  Matrix q, k, v, o, up, down;
};

Vector normalised(const Vector& x) {
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(value) * static_cast<double>(value);
  const auto scale = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(x.size()) + 1e-6));
  Vector y = x;
  for (float& value : y) value *= scale;
  return y;
}

// Rotates pairs (i, i + d/2) of each head, then rounds to half precision.
void finish_rows(Vector& x, int head_dim, std::int64_t position, bool rotate) {
  const auto half = static_cast<std::size_t>(head_dim / 2);
  for (std::size_t head = 0; rotate && head < x.size(); head += static_cast<std::size_t>(head_dim)) {
    for (std::size_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
      const double a = x[head + i];
      const double b = x[head + i + half];
      x[head + i] = static_cast<float>(a * std::cos(angle) - b * std::sin(angle));
      x[head + i + half] = static_cast<float>(a * std::sin(angle) + b * std::cos(angle));
    }
  }
  for (float& value : x) value = from_half(to_half(value));
}

Token argmax(const Vector& logits) {
  return static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

struct TinyModel::Weights {
  ModelCard card;
  Matrix embedding;
  std::vector<LayerWeights> layers;

  static Weights make(const TinyModelOptions& o) {
    std::mt19937_64 random(o.seed);
    const int d = o.query_heads * o.head_dim;
    Weights w{{}, Matrix(random, kVocabulary, d, std::sqrt(d)), {}};
    for (int l = 0; l < o.layers; ++l) {
      const double gain = o.attention_gain.empty() ? 1 : o.attention_gain[static_cast<std::size_t>(l)];
      w.layers.push_back({Matrix(random, d, d, 3), Matrix(random, o.kv_heads * o.head_dim, d, 1),
                          Matrix(random, o.kv_heads * o.head_dim, d, 1), Matrix(random, d, d, gain),
                          Matrix(random, 2 * d, d, 1), Matrix(random, d, 2 * d, 1)});
    }
    w.card = {"tiny",  "tiny", fmt::format("{:016x}", o.seed), "tests", "cpu", 2048, kVocabulary, d, "half_split",
              10000.0, {},     1.0 / std::sqrt(o.head_dim),    0,       {}};
    w.card.layers.assign(static_cast<std::size_t>(o.layers), {o.query_heads, o.kv_heads, o.head_dim});
    return w;
  }
};

// A cache and what has been computed into it. Copying one forks it.
struct TinyModel::State {
  std::vector<std::vector<Vector>> keys, values;  // [layer][position]: all KV heads
  std::int64_t length = 0;
};

namespace {

using State = TinyModel::State;

struct Step {
  std::vector<Vector> queries;                 // [layer]
  std::vector<Vector> unrotated;               // [layer]: queries before rotation
  std::vector<std::vector<Vector>> attention;  // [layer][head]
  Vector embedded;                             // what the first layer reads
  std::vector<std::array<Vector, 4>> states;   // [layer][Stage]
  Vector logits;
};

Vector attend(const LayerShape& shape, double scale, const Vector& query, int head, const std::vector<Vector>& keys,
              const std::vector<std::uint32_t>& hidden) {
  Vector row(keys.size());
  const int g = head / shape.group();
  double top = -INFINITY;
  std::vector<double> logits(keys.size(), -INFINITY);
  for (std::size_t j = 0; j < keys.size(); ++j) {
    if (std::binary_search(hidden.begin(), hidden.end(), static_cast<std::uint32_t>(j))) continue;
    double dot = 0;
    for (int c = 0; c < shape.head_dim; ++c) {
      dot += static_cast<double>(query[static_cast<std::size_t>(head * shape.head_dim + c)]) *
             static_cast<double>(keys[j][static_cast<std::size_t>(g * shape.head_dim + c)]);
    }
    logits[j] = scale * dot;
    top = std::max(top, logits[j]);
  }
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - top);
  for (std::size_t j = 0; j < keys.size(); ++j) row[j] = static_cast<float>(std::exp(logits[j] - top) / sum);
  return row;
}

// Appends one token.
Step advance(const TinyModel::Weights& w, State& state, Token token, const EntrySets* unseen) {
  Step step;
  static const std::vector<std::uint32_t> kNothing;
  const auto d = static_cast<std::size_t>(w.embedding.columns);
  const auto at = w.embedding.values.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(token) * d);
  Vector x(at, at + static_cast<std::ptrdiff_t>(d));
  step.embedded = x;
  state.keys.resize(w.layers.size());
  state.values.resize(w.layers.size());
  for (std::size_t l = 0; l < w.layers.size(); ++l) {
    const LayerWeights& layer = w.layers[l];
    const LayerShape& shape = w.card.layers[l];
    const Vector in = normalised(x);
    Vector q = layer.q.times(in);
    Vector k = layer.k.times(in);
    Vector v = layer.v.times(in);
    step.unrotated.push_back(q);
    finish_rows(q, shape.head_dim, state.length, true);
    finish_rows(k, shape.head_dim, state.length, true);
    finish_rows(v, shape.head_dim, state.length, false);
    state.keys[l].push_back(std::move(k));
    state.values[l].push_back(std::move(v));
    Vector heads(d);
    step.attention.emplace_back();
    for (int h = 0; h < shape.query_heads; ++h) {
      const auto g = static_cast<std::size_t>(h / shape.group());
      step.attention[l].push_back(
          attend(shape, w.card.attention_scale, q, h, state.keys[l], unseen ? (*unseen)[l][g] : kNothing));
      for (int c = 0; c < shape.head_dim; ++c) {
        double sum = 0;
        for (std::size_t j = 0; j < state.values[l].size(); ++j) {
          sum += static_cast<double>(step.attention[l].back()[j]) *
                 static_cast<double>(
                     state.values[l][j][g * static_cast<std::size_t>(shape.head_dim) + static_cast<std::size_t>(c)]);
        }
        heads[static_cast<std::size_t>(h * shape.head_dim + c)] = static_cast<float>(sum);
      }
    }
    step.queries.push_back(std::move(q));
    const Vector attended = layer.o.times(heads);
    for (std::size_t c = 0; c < d; ++c) x[c] += attended[c];
    step.states.push_back({in, attended, x, {}});
    Vector hidden = layer.up.times(normalised(x));
    for (float& value : hidden) value = std::max(value, 0.0F);
    const Vector mixed = layer.down.times(hidden);
    for (std::size_t c = 0; c < d; ++c) x[c] += mixed[c];
    step.states.back().back() = x;
  }
  ++state.length;
  step.logits = w.embedding.times(normalised(x));
  for (float& logit : step.logits) logit *= 0.3F;
  step.logits[kEnd] = step.logits[kBegin] = -30.0F;  // generations run to their bound
  return step;
}

std::vector<std::uint16_t> halves(const std::vector<Vector>& positions) {
  std::vector<std::uint16_t> all;
  for (const Vector& position : positions)
    for (const float value : position) all.push_back(to_half(value));
  return all;
}

// The queries of a passage's rows.
void deliver_passage(const TinyModel::Weights& w, const State& state, const std::vector<Step>& steps,
                     std::int64_t first, const LayerSink& sink) {
  for (std::size_t l = 0; l < w.layers.size(); ++l) {
    Vector queries, norms;
    for (const Step& step : steps) {
      queries.insert(queries.end(), step.queries[l].begin(), step.queries[l].end());
      double square = 0;
      for (const float x : step.states[l][0]) square += static_cast<double>(x) * static_cast<double>(x);
      norms.push_back(static_cast<float>(std::sqrt(square)));
    }
    const std::vector<std::uint16_t> cache = halves(state.keys[l]);
    const LayerShape& shape = w.card.layers[l];
    sink({.channel = Channel::queries,
          .layer = static_cast<int>(l),
          .first = first,
          .rows = static_cast<std::int64_t>(steps.size()),
          .data = queries,
          .cached_keys = {cache.data(), shape.kv_heads, state.length, shape.head_dim,
                          std::int64_t{shape.kv_heads} * shape.head_dim},
          .input_norms = norms});
  }
}

// Hands a batch of steps to the sink, channel by channel.
void deliver(const TinyModel::Weights& w, const State& state, const std::vector<Step>& steps, std::int64_t first,
             const Model::RecordRequest& request, const LayerSink& sink) {
  const auto rows = static_cast<std::int64_t>(steps.size());
  for (std::size_t l = 0; l < w.layers.size(); ++l) {
    Vector keys, values, queries, unrotated, matrix;
    const std::int64_t width = first + rows;
    for (std::size_t r = 0; r < steps.size(); ++r) {
      const std::size_t position = static_cast<std::size_t>(first) + r;
      keys.insert(keys.end(), state.keys[l][position].begin(), state.keys[l][position].end());
      values.insert(values.end(), state.values[l][position].begin(), state.values[l][position].end());
      queries.insert(queries.end(), steps[r].queries[l].begin(), steps[r].queries[l].end());
      if (request.unrotated_queries)
        unrotated.insert(unrotated.end(), steps[r].unrotated[l].begin(), steps[r].unrotated[l].end());
    }
    const int layer = static_cast<int>(l);
    const std::vector<std::uint16_t> cache = request.cached_keys ? halves(state.keys[l]) : std::vector<std::uint16_t>();
    const LayerShape& shape = w.card.layers[l];
    sink({.channel = Channel::keys, .layer = layer, .first = first, .rows = rows, .data = keys});
    sink({.channel = Channel::values, .layer = layer, .first = first, .rows = rows, .data = values});
    sink({.channel = Channel::queries,
          .layer = layer,
          .first = first,
          .rows = rows,
          .data = queries,
          .unrotated = unrotated,
          .cached_keys = {request.cached_keys ? cache.data() : nullptr, shape.kv_heads, width, shape.head_dim,
                          std::int64_t{shape.kv_heads} * shape.head_dim}});
    if (request.attention.empty() || !request.attention[l]) continue;
    for (std::size_t h = 0; h < static_cast<std::size_t>(w.card.layers[l].query_heads); ++h) {
      for (const Step& step : steps) {
        matrix.insert(matrix.end(), step.attention[l][h].begin(), step.attention[l][h].end());
        matrix.resize(matrix.size() + static_cast<std::size_t>(width) - step.attention[l][h].size());
      }
    }
    sink({.channel = Channel::attention, .layer = layer, .first = first, .rows = rows, .width = width, .data = matrix});
  }
}

// Stage by stage, what the first layer reads first.
void deliver_states(const std::vector<Step>& steps, std::int64_t first, const StateSink& sink) {
  const auto send = [&](Stage stage, int layer) {
    Vector rows;
    for (const Step& step : steps) {
      const Vector& row =
          layer < 0 ? step.embedded : step.states[static_cast<std::size_t>(layer)][static_cast<std::size_t>(stage)];
      rows.insert(rows.end(), row.begin(), row.end());
    }
    sink({stage, layer, first, static_cast<std::int64_t>(steps.size()), rows});
  };
  send(Stage::mlp, -1);
  for (int layer = 0; layer < static_cast<int>(steps.front().states.size()); ++layer)
    for (const Stage stage : kStages) send(stage, layer);
}

class TinyBranches : public Branches {
 public:
  TinyBranches(std::shared_ptr<const TinyModel::Weights> weights, State prefix, std::vector<KeepMask> masks)
      : weights_(std::move(weights)), prefix_(std::move(prefix)), masks_(std::move(masks)) {}

  void score(std::span<const Token> tokens, std::int64_t first_visited, const Visit& visit) override {
    for (std::size_t b = 0; b < masks_.size(); ++b) {
      State state = prefix_;
      for (std::int64_t s = 0; s < static_cast<std::int64_t>(tokens.size()); ++s) {
        const Step step = next(state, tokens[static_cast<std::size_t>(s)], masks_[b]);
        if (s >= first_visited) visit(b, s, step.logits);
      }
    }
  }

  std::vector<std::vector<Token>> generate(std::span<const Token> lead, std::int64_t max_tokens,
                                           std::size_t count) override {
    std::vector<std::vector<Token>> all;
    for (const KeepMask& mask : std::span(masks_).first(std::min(count, masks_.size()))) {
      State state = prefix_;
      Step step;
      for (const Token token : lead) step = next(state, token, mask);
      std::vector<Token> generated;
      while (static_cast<std::int64_t>(generated.size()) < max_tokens) {
        const Token token = argmax(step.logits);
        if (token == kEnd) break;
        generated.push_back(token);
        step = next(state, token, mask);
      }
      all.push_back(std::move(generated));
    }
    return all;
  }

 private:
  Step next(State& state, Token token, const KeepMask& mask) const {
    if (!mask.hidden_at) return advance(*weights_, state, token, &mask.pruned);
    EntrySets hidden = mask.hidden_at(state.length);
    for (std::size_t l = 0; l < hidden.size(); ++l) {
      for (std::size_t g = 0; g < hidden[l].size(); ++g) {
        const std::vector<std::uint32_t> more = std::exchange(hidden[l][g], {});
        std::ranges::set_union(mask.pruned[l][g], more, std::back_inserter(hidden[l][g]));
      }
    }
    return advance(*weights_, state, token, &hidden);
  }

  std::shared_ptr<const TinyModel::Weights> weights_;
  State prefix_;
  std::vector<KeepMask> masks_;
};

}  // namespace

TinyModel::TinyModel(const TinyModelOptions& options)
    : options_(options), weights_(std::make_shared<const Weights>(Weights::make(options))) {}
TinyModel::~TinyModel() = default;

const ModelCard& TinyModel::card() const { return weights_->card; }

std::vector<Token> TinyModel::tokenize(std::string_view text, bool with_bos, bool) const {
  std::vector<Token> tokens;
  if (with_bos) tokens.push_back(kBegin);
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::string TinyModel::detokenize(std::span<const Token> tokens) const {
  std::string text;
  for (const Token token : tokens) {
    if (token < 256) text += static_cast<char>(token);
  }
  return text;
}

std::string TinyModel::chat(std::span<const Message> messages) const {
  std::string text;
  for (const Message& message : messages) text += fmt::format("<{0}>{1}</{0}>", message.role, message.content);
  return text;
}

std::vector<Token> TinyModel::record(const RecordRequest& request, const LayerSink& sink) {
  State state;
  std::vector<Step> batch;
  std::int64_t first = 0;
  Vector logits;
  const auto flush = [&] {
    if (!batch.empty()) deliver(*weights_, state, batch, first, request, sink);
    if (!batch.empty() && request.states && first < static_cast<std::int64_t>(request.prompt.size()))
      deliver_states(batch, first, request.states);
    batch.clear();
    first = state.length;
  };
  const auto feed = [&](Token token) {
    batch.push_back(advance(*weights_, state, token, nullptr));
    logits = batch.back().logits;
    if (static_cast<int>(batch.size()) == options_.batch) flush();
  };
  for (const Token token : request.prompt) feed(token);
  flush();
  std::vector<Token> answer(request.answer.begin(), request.answer.end());
  for (const Token token : request.answer) feed(token);
  while (request.answer.empty() && static_cast<std::int64_t>(answer.size()) < request.max_new &&
         (answer.empty() || answer.back() != kEnd)) {
    answer.push_back(argmax(logits));
    feed(answer.back());
  }
  flush();
  for (std::size_t p = 0; p < request.passages.size(); ++p)
    feed_passage(state, request.passages[p], [&](const LayerBlock& block) { request.passage_sink(p, block); });
  return answer;
}

// Behind the state's first positions; the rest is forgotten.
void TinyModel::feed_passage(State& state, const Passage& passage, const LayerSink& sink) const {
  state.length = passage.behind;
  for (auto* cache : {&state.keys, &state.values})
    for (auto& layer : *cache) layer.resize(static_cast<std::size_t>(passage.behind));
  std::vector<Step> batch;
  std::int64_t first = passage.behind;
  for (const Token token : passage.tokens) {
    batch.push_back(advance(*weights_, state, token, nullptr));
    const bool last = state.length == passage.behind + static_cast<std::int64_t>(passage.tokens.size());
    if (static_cast<int>(batch.size()) < options_.batch && !last) continue;
    deliver_passage(*weights_, state, batch, first, sink);
    batch.clear();
    first = state.length;
  }
}

Tensor TinyModel::output_projection(int layer) const {
  const Matrix& o = weights_->layers.at(static_cast<std::size_t>(layer)).o;
  const LayerShape& shape = weights_->card.layers[static_cast<std::size_t>(layer)];
  Tensor projection(shape.query_heads, shape.head_dim, o.rows);
  for (int j = 0; j < o.rows; ++j)
    for (int i = 0; i < o.columns; ++i)
      projection.row(i / shape.head_dim, i % shape.head_dim)[static_cast<std::size_t>(j)] =
          o.values[static_cast<std::size_t>(j * o.columns + i)];
  return projection;
}

std::unique_ptr<Branches> TinyModel::branch(std::span<const Token> prefix, std::span<const KeepMask> masks,
                                            std::int64_t) {
  State state;
  for (const Token token : prefix) advance(*weights_, state, token, nullptr);
  return std::make_unique<TinyBranches>(weights_, std::move(state), std::vector<KeepMask>(masks.begin(), masks.end()));
}

}  // namespace depthkv
