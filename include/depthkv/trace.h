// SPDX-License-Identifier: Apache-2.0
// Trace sets: what a model did on a set of prompts, one HDF5 file per sample. traces/FORMAT.md specifies the files.
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/error.h"
#include "depthkv/progress.h"
#include "depthkv/shape.h"
#include "depthkv/tensor.h"

namespace depthkv {

using Token = std::int32_t;

// A half-open range of positions, [begin, end).
struct Span {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool operator==(const Span&) const = default;
};

// Where pruning happens: after the context (before the question
// is seen) or after the whole prompt (DepthKV's protocol).
enum class Cut { context, prompt };
std::string_view to_string(Cut cut);

// Positions: [0, context.begin) chat frame, context, [context.end,
// prompt_end) question and chat frame, then the answer.
struct Segments {
  Span context;
  std::int64_t prompt_end = 0;

  std::int64_t at(Cut cut) const { return cut == Cut::context ? context.end : prompt_end; }
  bool operator==(const Segments&) const = default;
};

// Where in a layer a token's hidden state is taken. A layer's input norm reads x; then
//   pre = norm(x), att = attention(pre) W_O (after a norm behind it, where there is one), res = x + att,
//   mlp = res + FFN(norm(res)), which is the next layer's x, and what the output norm reads after the last layer.
enum class Stage { pre, att, res, mlp };
inline constexpr std::array kStages{Stage::pre, Stage::att, Stage::res, Stage::mlp};
std::string_view to_string(Stage stage);

// The columns of the channel hidden_scalars, over the rows of the prompt (Skean et al. 2025, arXiv:2502.02013).
// "Unit rows": the states minus their mean over the rows, each divided by its L2 norm; a zero row stays zero.
enum class HiddenScalar {
  curvature,       // mean angle between successive differences of the states, radians (the paper's text)
  curvature_code,  // mean angle between successive unit rows, radians (the paper's code)
  prompt_entropy,  // -sum p ln p of the unit rows' Gram matrix, p its eigenvalues divided by their sum (alpha = 1)
  effective_rank,  // exp(prompt_entropy)
};
inline constexpr std::array kHiddenScalars{HiddenScalar::curvature, HiddenScalar::curvature_code,
                                           HiddenScalar::prompt_entropy, HiddenScalar::effective_rank};
std::string_view to_string(HiddenScalar scalar);

// The rows of the channel repeat_max: the most attention that a position gets while the model repeats the context,
// which is fed a second time, chunk by chunk (traces/FORMAT.md says how).
enum class Repeat {
  chunk,            // softmax over the first keys, the chunk's and those fed so far alone (KVzip, arXiv:2505.23416)
  chunk_per_input,  // the same divided by the L2 norm of the attention's input at the row, before the maximum (KVzip+)
  cache,            // softmax over all keys, rows that repeat the context only (KVCompose, arXiv:2509.05165)
};
inline constexpr std::array kRepeats{Repeat::chunk, Repeat::chunk_per_input, Repeat::cache};
inline constexpr std::int64_t kRepeatSinks = 4;  // how many first keys, at most, and of those before the chunk
std::string_view to_string(Repeat repeat);

// How a layer rotates queries and keys: of the first 2 * frequencies.size() dimensions, pair c turns by frequencies[c]
// radians per position and grows by `magnitude`; the dimensions beyond stay as they are.
struct LayerRotation {
  std::vector<double> frequencies;
  double magnitude = 1;  // YaRN's is not 1

  bool operator==(const LayerRotation&) const = default;
};

// Facts about the model and engine that made a trace; the same for every sample of a set, but for the rotation of
// models that rotate long prompts in another way.
struct ModelCard {
  std::string name;
  std::string architecture;
  std::string fingerprint;  // hash of the model file's size and of evenly spaced blocks of it
  std::string engine;       // name and version
  std::string device;
  std::int64_t context_length = 0;
  std::int64_t vocabulary = 0;
  std::int64_t embedding = 0;  // D
  // Which of n rotated dimensions turn together: "interleaved" (2i, 2i+1) or "half_split" (i, i + n/2); "none" if no
  // layer rotates; "other": rotated in a way that can't be undone by such pairs.
  std::string rotary_layout;
  double rotary_base = 0;                // as the model file says
  std::vector<LayerRotation> rotations;  // per layer; empty: all d dimensions turn by base^(-2c/d)
  double attention_scale = 0;            // multiplies q . k before the softmax
  double logit_softcap = 0;              // c * tanh(logit / c) after scaling; 0: none
  std::vector<LayerShape> layers;

  bool operator==(const ModelCard&) const = default;
};

// Whether they are equal but for `rotations`.
bool same_model(const ModelCard& a, const ModelCard& b);

// The layers that pruning may touch: those without a sliding window, which already bounds what they keep.
std::vector<int> prunable_layers(const ModelCard& model);
// Their sizes at a cut.
Shape prunable_shape(const ModelCard& model, std::int64_t tokens);

// Everything about one sample but the tensors.
struct Sample {
  std::string id;
  std::string task;
  std::string metric;  // task score, one of metric_names()
  std::string source;
  std::string license;
  std::string prompt_text;  // context and question, framed by the chat template; UTF-8
  std::string answer_text;
  std::string answer_source;               // "generated" (greedy, full cache) or "reference"
  std::vector<std::string> answers;        // references
  std::vector<Token> tokens;               // prompt, then answer
  std::vector<std::int32_t> text_offsets;  // byte offset of each prompt token in prompt_text
  Segments segments;
  std::vector<Span> evidence;  // token spans below context.end that hold what is needed to answer
  std::int64_t truncated = 0;  // tokens that the context lost so that the prompt fits
  // Most tokens that a generated answer could have: one of fewer was ended by the model. 0: unknown.
  std::int64_t answer_limit = 0;

  bool operator==(const Sample&) const = default;
  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
};

// What one layer of a trace may hold. traces/FORMAT.md gives shapes and units.
enum class Channel {
  keys,
  values,
  queries,
  column_sums,
  attention,
  query_mean,           // of pre-rotation queries over observed rows
  query_second_moment,  // mean of q q^T, likewise
  value_output_norms,   // L1 and L2 norm of every value through its query head's part of W_O
  hidden_mean,          // mean of the hidden states over the prompt, per stage
  hidden_unit_mean,     // mean of the unit rows (HiddenScalar), likewise
  hidden_scalars,       // one HiddenScalar per column, likewise
  attention_cosines,    // per prompt token: what attention does to the layer's input
  repeat_max,           // most attention per position while the context is repeated, one Repeat per row
  output_projection,    // W_O; once per set, not in the samples (TraceWeights)
};
// Those of a sample's layers.
inline constexpr std::array kChannels{Channel::keys,
                                      Channel::values,
                                      Channel::queries,
                                      Channel::column_sums,
                                      Channel::attention,
                                      Channel::query_mean,
                                      Channel::query_second_moment,
                                      Channel::value_output_norms,
                                      Channel::hidden_mean,
                                      Channel::hidden_unit_mean,
                                      Channel::hidden_scalars,
                                      Channel::attention_cosines,
                                      Channel::repeat_max};
std::string_view to_string(Channel channel);

// Lossless codecs for the tensors. Any HDF5 build reads none and deflate, and zstd with the plugin of that name.
enum class Codec { none, deflate, zstd };
inline constexpr std::array kCodecs{Codec::none, Codec::deflate, Codec::zstd};
std::string_view to_string(Codec codec);

// Positions whose queries are recorded: the last 128 before each cut and everything from the context's end on, or all.
std::vector<std::int32_t> recorded_query_rows(const Segments& segments, std::int64_t tokens, bool all);
inline constexpr std::int64_t kRecordedWindow = 128;

// What a channel of one layer takes.
struct ChannelStorage {
  std::int64_t bytes = 0;   // of its values
  std::int64_t stored = 0;  // in the file; chunks that hold nothing aren't there
  std::string codec;        // "none", or the filters in order: "shuffle+deflate"
};

// One finished sample, open for reading. Tensors are read on demand, one layer at a time. Throws Error on anything
// that is not a valid trace, naming file and dataset.
class Trace {
 public:
  static Trace open(const std::filesystem::path& file);
  Trace(Trace&&) noexcept;
  Trace& operator=(Trace&&) noexcept;
  ~Trace();

  const std::filesystem::path& path() const;
  const ModelCard& model() const;
  const Sample& sample() const;
  std::span<const std::int32_t> query_rows() const;  // ascending positions
  // XXH64 of the file's bytes, 16 hexadecimal digits: what results made from it may be kept under. Reads the whole
  // file.
  std::string content_hash() const;
  bool engine_softmax() const;  // else attention was recomputed from queries and cached keys
  bool has(Channel channel, int layer) const;
  ChannelStorage storage(Channel channel, int layer) const;  // of a channel that it has

  Tensor keys(int layer) const;                           // [KV head, token, d], post-RoPE
  Tensor values(int layer) const;                         // [KV head, token, d]
  Tensor queries(int layer) const;                        // [query head, recorded row, d], post-RoPE
  Tensor column_sums(int layer, Cut cut) const;           // [query head, 1, cut]: attention summed over rows < cut
  Tensor attention(int layer, Span rows) const;           // [query head, row, token]; 0 above the diagonal
  Tensor query_mean(int layer, Cut cut) const;            // [query head, 1, d], pre-RoPE
  Tensor query_second_moment(int layer, Cut cut) const;   // [query head, d, d], pre-RoPE
  Tensor value_output_norms(int layer, Norm norm) const;  // [query head, 1, token]
  Tensor hidden_mean(int layer) const;                    // [Stage, 1, D]
  Tensor hidden_unit_mean(int layer) const;               // [Stage, 1, D]
  Tensor hidden_scalars(int layer) const;                 // [Stage, 1, HiddenScalar]
  // Of every prompt token: cosine of the layer's input x with the attention's output (head 0), and with their sum
  // x + att (head 1), which is what SqueezeAttention (arXiv:2404.04793) averages. [2, 1, prompt_end]
  Tensor attention_cosines(int layer) const;
  Tensor repeat_max(int layer, Repeat repeat, Cut cut) const;  // [query head, 1, cut]

 private:
  struct Impl;
  explicit Trace(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// How much of a sample to record.
struct RecordOptions {
  std::vector<bool> attention;  // per layer: record the full matrix
  bool all_queries = false;
  bool engine_softmax = false;  // whether attention is the engine's own, or recomputed from queries and cached keys
  Codec codec = Codec::zstd;
  int threads = 0;  // that convert and compress matrices; 0: one per core
  std::set<Channel> channels{Channel::keys, Channel::values, Channel::queries};  // that arrive by rows; attention apart
};

// The file is being recorded by another writer, here or in another process.
class TraceBusy : public Error {
 public:
  using Error::Error;
};

// Writes one sample. The file appears under its final name only when finish() has returned; a writer destroyed before
// leaves nothing behind. Compresses and writes on a thread of its own, within a bounded amount of memory; what fails
// there (a full disk) is thrown by the next call, finish() at the latest. To be used by one thread at a time.
class TraceWriter {
 public:
  // `capacity`: an upper bound of the tokens, prompt and answer together. Throws TraceBusy.
  TraceWriter(const std::filesystem::path& file, const ModelCard& model, const Segments& segments,
              std::int64_t capacity, const RecordOptions& options);
  TraceWriter(TraceWriter&&) noexcept;
  ~TraceWriter();

  // Rows [first, first + n) of a layer, n >= 1, as the channel's dataset has them: [n, KV heads, d] of keys and values,
  // [n, query heads, d] of queries (rows that aren't recorded are ignored), [n, query heads, 2] of value_output_norms.
  // Every position must arrive exactly once per channel, in order.
  void write_rows(Channel channel, int layer, std::int64_t first, std::span<const float> rows);
  // Softmax rows, heads in order: views [heads, n, width], width >= first + n; columns beyond the diagonal are ignored.
  void write_attention(int layer, std::int64_t first, std::span<const View> rows);
  // A statistic of a whole layer, as its dataset has it: column_sums [2, query heads, prompt_end], query_mean
  // [2, query heads, d], query_second_moment [2, query heads, d, d], hidden_mean and hidden_unit_mean [4, D],
  // hidden_scalars [4, 4], attention_cosines [prompt_end, 2], repeat_max [3, query heads, prompt_end].
  void write_whole(Channel channel, int layer, std::span<const float> values);

  // `sample` complete, with tokens.size() <= capacity. Publishes the file.
  void finish(const Sample& sample);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A directory of finished samples, sorted by file name.
struct TraceSet {
  std::filesystem::path directory;
  std::vector<std::filesystem::path> files;
};
TraceSet open_trace_set(const std::filesystem::path& directory);

// What is the same for every sample of a set and recorded once, in weights.h5: the channel output_projection.
class TraceWeights {
 public:
  static bool in(const std::filesystem::path& directory);
  // Throws InputError if the set has none (record it with output_projection), Error if the file is damaged.
  static TraceWeights open(const std::filesystem::path& directory);
  TraceWeights(TraceWeights&&) noexcept;
  TraceWeights& operator=(TraceWeights&&) noexcept;
  ~TraceWeights();

  const ModelCard& model() const;
  Tensor output_projection(int layer) const;  // [query head, d, D]; stored in half precision

 private:
  struct Impl;
  explicit TraceWeights(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Writes weights.h5 unless it is there, of the same model and undamaged; several processes may do so at once.
// `output_projection` gives a layer's weights, [query head, d, D].
void write_trace_weights(const std::filesystem::path& directory, const ModelCard& model,
                         const std::function<Tensor(int layer)>& output_projection);

// Version of the HDF5 library in use and the codecs it offers, for `depthkv doctor`.
std::string trace_library_version();

// Name of a sample's file: the id with everything but letters, digits, '.', '_' and '-' replaced, plus ".h5".
std::string trace_file_name(std::string_view sample_id);

// Removes what killed processes left half-written in a folder; files that a living one is writing stay.
void remove_stale_partials(const std::filesystem::path& directory);

// Checks every file of a set against traces/FORMAT.md: structure, values, checksums, the index, files left behind.
// Returns one line per problem: file, dataset, what was found, what was expected.
std::vector<std::string> validate_trace_set(const std::filesystem::path& directory, const Progress& progress);

// (Re)writes index.h5: group /samples with one external link per finished sample, and a link to the set's weights where
// it has some. Written aside and renamed.
void write_trace_index(const std::filesystem::path& directory);

}  // namespace depthkv
