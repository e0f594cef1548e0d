// SPDX-License-Identifier: Apache-2.0
// "DKVCURV2", the key, then blocks: their bytes, XXH64 of that number and the bytes as text, the bytes. A ranked layer
// is a block of sizes and one for each array.
#include "replay/curve_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "depthkv/error.h"
#include "traces/checksum.h"

namespace depthkv {
namespace {

constexpr std::string_view kMagic = "DKVCURV2";

struct Block {
  std::uint64_t bytes = 0;
  std::array<char, 16> checksum{};
};

std::array<char, 16> checksum_of(std::span<const std::byte> bytes) {
  const std::array<std::uint64_t, 1> size{bytes.size()};
  Checksum sum;
  sum.add(std::as_bytes(std::span(size)));
  sum.add(bytes);
  std::array<char, 16> text{};
  std::memcpy(text.data(), sum.text().data(), text.size());
  return text;
}

class Reader {
 public:
  Reader(const std::filesystem::path& file, const std::string& key) : stream_(file, std::ios::binary) {
    std::string magic(kMagic.size(), '\0');
    std::uint64_t length = 0;
    stream_.read(magic.data(), static_cast<std::streamsize>(magic.size()));
    stream_.read(reinterpret_cast<char*>(&length), sizeof length);
    if (!stream_ || magic != kMagic || length != key.size()) return;
    std::string found(key.size(), '\0');
    stream_.read(found.data(), static_cast<std::streamsize>(found.size()));
    good_ = stream_.good() && found == key;
    const auto start = stream_.tellg();
    size_ = good_ ? static_cast<std::uint64_t>(stream_.seekg(0, std::ios::end).tellg()) : 0;
    stream_.seekg(start);
  }
  bool good() const { return good_; }

  // Throws Error on anything unexpected.
  template <class T>
  std::vector<T> take() {
    Block block;
    stream_.read(reinterpret_cast<char*>(&block), sizeof block);
    // No memory for sizes that may be wrong: as much as the file has.
    if (!stream_ || block.bytes > size_ || block.bytes % sizeof(T) != 0) throw Error("damaged curves");
    std::vector<T> values(block.bytes / sizeof(T));
    const auto bytes = std::as_writable_bytes(std::span(values));
    stream_.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!stream_ || checksum_of(bytes) != block.checksum) throw Error("damaged curves");
    return values;
  }

 private:
  std::ifstream stream_;
  bool good_ = false;
  std::uint64_t size_ = 0;
};

std::vector<float> joined(const std::vector<HeadCurves>& heads, std::vector<float> HeadCurves::*part) {
  std::vector<float> all;
  for (const HeadCurves& head : heads) all.insert(all.end(), (head.*part).begin(), (head.*part).end());
  return all;
}

std::vector<HeadCurves> parted(const std::vector<float>& mass, const std::vector<float>& error, std::size_t heads) {
  std::vector<HeadCurves> curves(mass.empty() ? 0 : heads);
  if (mass.size() != error.size() || mass.size() % heads != 0) throw Error("damaged curves");
  const auto each = static_cast<std::ptrdiff_t>(mass.size() / heads);
  for (std::size_t g = 0; g < curves.size(); ++g) {
    const auto at = static_cast<std::ptrdiff_t>(g) * each;
    curves[g].mass.assign(mass.begin() + at, mass.begin() + at + each);
    curves[g].error.assign(error.begin() + at, error.begin() + at + each);
  }
  return curves;
}

RankedLayer take_layer(Reader& reader) {
  const auto sizes = reader.take<std::int64_t>();
  if (sizes.size() != 2 || sizes[0] < 1 || sizes[1] < 0) throw Error("damaged curves");
  RankedLayer layer;
  layer.ranked.scores = Tensor(sizes[0], 1, sizes[1]);
  layer.ranked.ranking = Ranking(sizes[0], sizes[1]);
  const auto scores = reader.take<float>();
  const auto order = reader.take<std::uint32_t>();
  if (scores.size() != layer.ranked.scores.values().size() || order.size() != scores.size())
    throw Error("damaged curves");
  std::ranges::copy(scores, layer.ranked.scores.values().begin());
  for (std::int64_t g = 0; g < sizes[0]; ++g)
    std::copy_n(order.begin() + g * sizes[1], sizes[1], layer.ranked.ranking.head(g).begin());
  layer.ranked.outcome = reader.take<std::int64_t>();
  for (std::vector<HeadCurves>* curves : {&layer.judged, &layer.observed}) {
    const auto mass = reader.take<float>();
    const auto error = reader.take<float>();
    *curves = parted(mass, error, static_cast<std::size_t>(sizes[0]));
  }
  return layer;
}

template <class Item, class Take>
std::optional<std::vector<Item>> take_all(const std::filesystem::path& file, const std::string& key, std::size_t layers,
                                          Take take) {
  Reader reader(file, key);
  if (!reader.good()) return std::nullopt;
  try {
    std::vector<Item> items;
    for (std::size_t l = 0; l < layers; ++l) items.push_back(take(reader));
    return items;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

CurveWriter::CurveWriter(std::filesystem::path file, const std::string& key) : file_(std::move(file)) {
  static std::atomic<int> number = 0;  // several threads may make the same curves at once
  partial_ = file_.parent_path() / fmt::format(".{}.{}.{}.partial", file_.filename().string(), getpid(), ++number);
  stream_.open(partial_, std::ios::binary);
  if (!stream_) {
    partial_.clear();
    throw InputError(fmt::format("{}: no file for curves can be made there; give another folder with --cache, or none",
                                 file_.parent_path().string()));
  }
  const std::uint64_t length = key.size();
  stream_.write(kMagic.data(), static_cast<std::streamsize>(kMagic.size()));
  stream_.write(reinterpret_cast<const char*>(&length), sizeof length);
  stream_.write(key.data(), static_cast<std::streamsize>(key.size()));
}

CurveWriter::~CurveWriter() {
  if (partial_.empty()) return;
  stream_.close();
  std::error_code ignored;
  std::filesystem::remove(partial_, ignored);
}

void CurveWriter::put(std::span<const std::byte> values) {
  const Block block{values.size(), checksum_of(values)};
  stream_.write(reinterpret_cast<const char*>(&block), sizeof block);
  stream_.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size()));
}

void CurveWriter::add(const RankedLayer& layer) {
  const std::array<std::int64_t, 2> sizes{layer.ranked.scores.heads(), layer.ranked.scores.columns()};
  std::vector<std::uint32_t> order;
  for (std::int64_t g = 0; g < sizes[0]; ++g) {
    const auto head = layer.ranked.ranking.head(g);
    order.insert(order.end(), head.begin(), head.end());
  }
  const auto put_all = [&](const auto& values) { put(std::as_bytes(std::span(values))); };
  put_all(sizes);
  put_all(layer.ranked.scores.values());
  put_all(order);
  put_all(layer.ranked.outcome);
  for (const std::vector<HeadCurves>* curves : {&layer.judged, &layer.observed}) {
    put_all(joined(*curves, &HeadCurves::mass));
    put_all(joined(*curves, &HeadCurves::error));
  }
}

void CurveWriter::add(const std::vector<double>& numbers) { put(std::as_bytes(std::span(numbers))); }

void CurveWriter::finish() {
  stream_.close();
  std::error_code failure;
  if (stream_.good()) std::filesystem::rename(partial_, file_, failure);
  if (!stream_.good() || failure) {
    throw Error(fmt::format("{}: curves can't be written; is the disk full? Give another folder with --cache",
                            file_.parent_path().string()));
  }
  partial_.clear();
}

std::optional<std::vector<RankedLayer>> read_curves(const std::filesystem::path& file, const std::string& key,
                                                    std::size_t layers) {
  return take_all<RankedLayer>(file, key, layers, take_layer);
}

std::optional<Measured> read_measured(const std::filesystem::path& file, const std::string& key, std::size_t layers) {
  return take_all<std::vector<double>>(file, key, layers, [](Reader& reader) { return reader.take<double>(); });
}

bool has_curves(const std::filesystem::path& file, const std::string& key) { return Reader(file, key).good(); }

}  // namespace depthkv
