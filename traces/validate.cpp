// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>

#include "depthkv/error.h"
#include "depthkv/ops.h"
#include "depthkv/trace.h"
#include "kernels/half.h"
#include "traces/checks.h"
#include "traces/checksum.h"
#include "traces/chunk_io.h"
#include "traces/layout.h"
#include "traces/partial.h"

namespace depthkv {
namespace {

// Halves of one row add up to 1 within their rounding; queries and keys give the engine's row back as FORMAT.md says.
constexpr double kRowSumTolerance = 2e-3;
constexpr double kRecomputedTolerance = 2e-3;
constexpr double kColumnSumTolerance = 2e-3;  // of the sum, and of one row's worth
constexpr std::size_t kRecomputedRows = 3;

constexpr Cut kCuts[] = {Cut::context, Cut::prompt};

template <class Bits>
bool is_finite(Bits bits) {
  constexpr Bits kExponent = sizeof(Bits) == 2 ? Bits{0x7c00} : static_cast<Bits>(0x7f800000);
  return (bits & kExponent) != kExponent;
}

template <class Bits>
std::int64_t count_not_finite(std::span<const std::byte> bytes) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i + sizeof(Bits) <= bytes.size(); i += sizeof(Bits)) {
    Bits bits{};
    std::memcpy(&bits, bytes.data() + i, sizeof(Bits));
    count += is_finite(bits) ? 0 : 1;
  }
  return count;
}

class FileCheck {
 public:
  FileCheck(const std::filesystem::path& file, std::vector<std::string>& problems)
      : path_(file), problems_(problems), trace_(Trace::open(file)) {
    const auto held = h5::lock();
    file_ = h5::open_file(file);
  }
  ~FileCheck() {
    const auto held = h5::lock();
    file_ = {};
  }
  FileCheck(const FileCheck&) = delete;
  FileCheck& operator=(const FileCheck&) = delete;

  const Trace& trace() const { return trace_; }

  void run() {
    check_sample();
    for (const char* name : {"model/layers", "query_rows", "sample/id", "sample/task", "sample/metric", "sample/source",
                             "sample/license", "sample/prompt_text", "sample/answer_text", "sample/answer_source",
                             "sample/answers", "sample/tokens", "sample/text_offsets", "sample/evidence"}) {
      guarded([&] { check_values(name, h5::Type::i32); });
    }
    for (const char* name : {"windows", "rotary_dimensions", "rotary_magnitudes", "rotary_frequencies"}) {
      guarded([&] {
        if (model_has(name)) check_values(fmt::format("model/{}", name), h5::Type::i32);
      });
    }
    for (int layer = 0; layer < static_cast<int>(trace_.model().layers.size()); ++layer) {
      for (const Channel channel : kChannels) {
        if (!trace_.has(channel, layer)) continue;
        guarded([&] {
          if (channel == Channel::attention) {
            check_attention(layer);
          } else {
            check_values(dataset_name(layer, channel), layout::type_of(channel));
          }
        });
      }
      if (trace_.has(Channel::column_sums, layer)) guarded([&] { check_column_totals(layer); });
      for (const auto check : {check_hidden, check_repeats})
        guarded([&] { check(trace_, layer, std::bind_front(&FileCheck::add, this)); });
    }
  }

 private:
  static std::string dataset_name(int layer, Channel channel) {
    return fmt::format("{}/{}", layout::layer_group(layer), to_string(channel));
  }

  void add(const std::string& dataset, const std::string& what) {
    problems_.push_back(fmt::format("{}: {}: {}", path_.string(), dataset, what));
  }

  bool model_has(const char* name) const {
    const auto held = h5::lock();
    return h5::has(h5::open_group(file_, "model"), name);
  }

  // What can't be read is a problem like any other.
  template <class Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (const Error& error) {
      problems_.push_back(error.what());
    }
  }

  void check_sample() {
    const Sample& sample = trace_.sample();
    if (const std::string name = trace_file_name(sample.id); path_.filename() != name)
      add("sample/id", fmt::format("\"{}\", whose file is called {}", sample.id, name));
    const auto offsets = static_cast<std::int64_t>(sample.text_offsets.size());
    if (offsets != sample.segments.prompt_end)
      add("sample/text_offsets",
          fmt::format("{} offsets, expected one for each of {} prompt tokens", offsets, sample.segments.prompt_end));
    const std::int64_t answer = sample.size() - sample.segments.prompt_end;
    if (sample.answer_limit < 0 || (sample.answer_limit > 0 && answer > sample.answer_limit))
      add("sample/tokens", fmt::format("{} tokens of answer, answer_limit is {}", answer, sample.answer_limit));
  }

  h5::Object open(const std::string& name) const {
    const std::size_t slash = name.find_last_of('/');
    if (slash == std::string::npos) return h5::open_dataset(file_, name);
    return h5::open_dataset(h5::open_group(file_, name.substr(0, slash)), name.substr(slash + 1));
  }

  void expect_checksum(const h5::Object& dataset, const std::string& name, const Checksum& checksum) {
    if (!h5::has_attribute(dataset, layout::kChecksum)) return add(name, "no checksum, expected one");
    const std::string found = h5::text_attribute(dataset, layout::kChecksum);
    if (found != checksum.text())
      add(name, fmt::format("the values have the checksum {}, expected {}", checksum.text(), found));
  }

  void check_values(const std::string& name, h5::Type type) {
    const auto held = h5::lock();
    const h5::Object dataset = open(name);
    const std::vector<std::byte> bytes = h5::read_bytes(dataset);
    Checksum checksum;
    checksum.add(bytes);
    expect_checksum(dataset, name, checksum);
    std::int64_t broken = 0;
    if (type == h5::Type::f16) broken = count_not_finite<std::uint16_t>(bytes);
    if (type == h5::Type::f32) broken = count_not_finite<std::uint32_t>(bytes);
    if (broken > 0) add(name, fmt::format("{} values are infinite or not numbers, expected none", broken));
  }

  // Every row below the cut spreads 1 over the columns.
  void check_column_totals(int layer) {
    for (const Cut cut : kCuts) {
      const Tensor sums = trace_.column_sums(layer, cut);
      const auto rows = static_cast<double>(trace_.sample().segments.at(cut));
      Tally wrong;
      for (std::int64_t head = 0; head < sums.heads(); ++head) {
        double total = 0;
        for (const float sum : sums.row(head, 0)) total += static_cast<double>(sum);
        if (std::abs(total - rows) <= kRowSumTolerance * rows) continue;
        wrong.note([&] {
          return fmt::format("head {} adds up to {:.6g} at the cut {}, expected its {} rows", head, total,
                             to_string(cut), rows);
        });
      }
      if (wrong.any()) add(dataset_name(layer, Channel::column_sums), wrong.text());
    }
  }

  struct AttentionCheck {
    std::vector<std::int32_t> rows;                  // that were recomputed
    Tensor recomputed;                               // [head, row, token]
    std::array<std::vector<double>, 2> column_sums;  // [cut]: [head][column]
    Tally row_sums, above, difference;
  };

  void check_attention(int layer);
  void check_row(AttentionCheck& check, std::int64_t head, std::int64_t row, std::span<const float> values) const;
  void recompute_rows(AttentionCheck& check, int layer) const;
  void check_column_sums(const AttentionCheck& check, int layer);

  std::filesystem::path path_;
  std::vector<std::string>& problems_;
  Trace trace_;
  h5::Object file_;
};

// First, middle and last recorded row, from queries and keys.
void FileCheck::recompute_rows(AttentionCheck& check, int layer) const {
  const auto all = trace_.query_rows();
  if (!trace_.has(Channel::queries, layer) || !trace_.has(Channel::keys, layer) || all.empty()) return;
  const Tensor queries = trace_.queries(layer);
  const Tensor keys = trace_.keys(layer);
  Tensor chosen(queries.heads(), kRecomputedRows, queries.columns());
  for (std::size_t i = 0; i < kRecomputedRows; ++i) {
    const std::size_t r = i * (all.size() - 1) / (kRecomputedRows - 1);
    check.rows.push_back(all[r]);
    for (std::int64_t head = 0; head < queries.heads(); ++head)
      std::ranges::copy(queries.row(head, static_cast<std::int64_t>(r)),
                        chosen.row(head, static_cast<std::int64_t>(i)).begin());
  }
  check.recomputed =
      ops_for(Device::cpu).attention_rows(chosen.view(), keys.view(), check.rows, softmax_of(trace_.model(), layer));
}

void FileCheck::check_row(AttentionCheck& check, std::int64_t head, std::int64_t row,
                          std::span<const float> values) const {
  const auto columns = static_cast<std::size_t>(row + 1);
  double sum = 0;
  for (const float value : values.first(columns)) sum += static_cast<double>(value);
  if (!(std::abs(sum - 1) <= kRowSumTolerance))
    check.row_sums.note([&] { return fmt::format("row {} of head {} adds up to {:.6g}, expected 1", row, head, sum); });
  if (!std::ranges::all_of(values.subspan(columns), [](float value) { return value == 0; }))
    check.above.note([&] { return fmt::format("row {} of head {} isn't 0 above the diagonal", row, head); });
  for (const Cut cut : kCuts) {
    const std::int64_t end = trace_.sample().segments.at(cut);
    if (row >= end) continue;
    double* sums = check.column_sums[static_cast<std::size_t>(cut)].data() + head * end;
    for (std::size_t j = 0; j < columns; ++j) sums[j] += static_cast<double>(values[j]);
  }
  for (std::size_t i = 0; i < check.rows.size(); ++i) {
    if (check.rows[i] != row) continue;
    double most = 0;
    const auto recomputed = check.recomputed.row(head, static_cast<std::int64_t>(i));
    for (std::size_t j = 0; j < columns; ++j)
      most = std::max(most, std::abs(static_cast<double>(values[j]) - static_cast<double>(recomputed[j])));
    if (most <= kRecomputedTolerance) continue;
    check.difference.note([&] {
      return fmt::format(
          "row {} of head {} differs by {:.2g} from the softmax of queries and keys, expected at most {}", row, head,
          most, kRecomputedTolerance);
    });
  }
}

void FileCheck::check_column_sums(const AttentionCheck& check, int layer) {
  if (!trace_.has(Channel::column_sums, layer)) return;
  for (const Cut cut : kCuts) {
    const Tensor recorded = trace_.column_sums(layer, cut);
    Tally wrong;
    for (std::int64_t head = 0; head < recorded.heads(); ++head) {
      for (std::int64_t j = 0; j < recorded.columns(); ++j) {
        const double sum =
            check.column_sums[static_cast<std::size_t>(cut)][static_cast<std::size_t>(head * recorded.columns() + j)];
        const double found = recorded.row(head, 0)[static_cast<std::size_t>(j)];
        if (std::abs(found - sum) <= kColumnSumTolerance * (1 + sum)) continue;
        wrong.note([&] {
          return fmt::format("column {} of head {} is {:.6g} at the cut {}, the recorded attention adds up to {:.6g}",
                             j, head, found, to_string(cut), sum);
        });
      }
    }
    if (wrong.any()) add(dataset_name(layer, Channel::column_sums), wrong.text());
  }
}

void FileCheck::check_attention(int layer) {
  const std::string name = dataset_name(layer, Channel::attention);
  const std::int64_t tokens = trace_.sample().size();
  const std::int64_t heads = trace_.model().layers[static_cast<std::size_t>(layer)].query_heads;
  AttentionCheck check;
  recompute_rows(check, layer);
  for (const Cut cut : kCuts)
    check.column_sums[static_cast<std::size_t>(cut)].resize(
        static_cast<std::size_t>(heads * trace_.sample().segments.at(cut)));

  const auto held = h5::lock();
  const h5::Object dataset = open(name);
  const std::optional<h5::Chunks> chunks = h5::chunks_of(dataset);
  if (!chunks || chunks->extent[0] != 1 || chunks->extent[1] != chunks->extent[2])
    return add(name, "not stored in square tiles of one head");
  const auto tile = static_cast<std::int64_t>(chunks->extent[1]);
  Checksum checksum;
  std::vector<std::uint16_t> halves;
  std::vector<float> values;
  for (std::int64_t first = 0; first < tokens; first += tile) {
    const std::int64_t rows = std::min(tile, tokens - first);
    const std::int64_t columns = first + rows;
    halves.resize(static_cast<std::size_t>(heads * rows * columns));
    values.resize(halves.size());
    h5::read(dataset, h5::Type::f16,
             {{0, static_cast<hsize_t>(first), 0},
              {static_cast<hsize_t>(heads), static_cast<hsize_t>(rows), static_cast<hsize_t>(columns)}},
             halves.data());
    from_half(halves, values);
    for (std::int64_t head = 0; head < heads; ++head) {
      const auto row_at = [&](const auto& all, std::int64_t r) {
        return std::span(all).subspan(static_cast<std::size_t>((head * rows + r) * columns),
                                      static_cast<std::size_t>(columns));
      };
      for (std::int64_t column = 0; column < columns; column += tile) {
        const auto width = static_cast<std::size_t>(std::min(tile, columns - column));
        for (std::int64_t r = 0; r < rows; ++r)
          checksum.add(std::as_bytes(row_at(halves, r).subspan(static_cast<std::size_t>(column), width)));
      }
      for (std::int64_t r = 0; r < rows; ++r) check_row(check, head, first + r, row_at(values, r));
    }
  }
  expect_checksum(dataset, name, checksum);
  for (const Tally* tally : {&check.row_sums, &check.above, &check.difference}) {
    if (tally->any()) add(name, tally->text());
  }
  check_column_sums(check, layer);
}

}  // namespace

std::vector<std::string> validate_trace_set(const std::filesystem::path& directory, const Progress& progress) {
  const TraceSet set = open_trace_set(directory);
  std::vector<std::string> problems;
  const auto total = static_cast<std::int64_t>(set.files.size());
  std::optional<ModelCard> model;
  for (std::int64_t i = 0; i < total; ++i) {
    const std::filesystem::path& file = set.files[static_cast<std::size_t>(i)];
    progress("check", i, total, file.filename().string());
    try {
      FileCheck check(file, problems);
      check.run();
      if (!model) model = check.trace().model();
      if (!same_model(*model, check.trace().model()))
        problems.push_back(fmt::format("{}: model: not that of {}, expected one for the whole set", file.string(),
                                       set.files.front().string()));
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  }
  progress("check", total, total, "");
  if (!std::filesystem::is_directory(directory)) return problems;
  try {
    check_index(set, problems);
  } catch (const Error& error) {
    problems.emplace_back(error.what());
  }
  if (model) check_weights(directory, *model, problems);
  for_each_stale_partial(directory, [&](const std::filesystem::path& file) {
    problems.push_back(fmt::format("{}: left behind by a killed process; `depthkv trace` removes it", file.string()));
  });
  return problems;
}

}  // namespace depthkv
