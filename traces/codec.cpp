// SPDX-License-Identifier: Apache-2.0
#include "traces/codec.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>
#include <array>

#include <algorithm>
#include <new>

#include "depthkv/error.h"

namespace depthkv {
namespace {

constexpr int kDeflate = 1;
constexpr int kShuffle = 2;
constexpr int kFletcher = 3;  // a sum that others may append; `checksum` is ours
constexpr std::size_t kFletcherBytes = 4;
constexpr int kDeflateLevel = 1;
constexpr int kZstdLevel = 1;  // docs/decisions/008 has the measurement

// All first bytes of the values, then all second ones, and so on. The width is a constant so that the loop vectorises.
template <std::size_t width>
void shuffle_fixed(const std::byte* from, std::size_t count, std::byte* to) {
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t b = 0; b < width; ++b) to[b * count + i] = from[i * width + b];
  }
}

template <std::size_t width>
void unshuffle_fixed(const std::byte* from, std::size_t count, std::byte* to) {
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t b = 0; b < width; ++b) to[i * width + b] = from[b * count + i];
  }
}

void shuffle(std::span<const std::byte> from, std::size_t width, std::byte* to) {
  const std::size_t count = from.size() / width;
  if (width == 2) return shuffle_fixed<2>(from.data(), count, to);
  if (width == 4) return shuffle_fixed<4>(from.data(), count, to);
  throw Error(fmt::format("no shuffle for values of {} bytes", width));
}

// Any width: other programs may have written the file. Bytes that make no whole value stay at the end.
void unshuffle(std::span<const std::byte> from, std::size_t width, std::byte* to) {
  const std::size_t count = from.size() / width;
  if (width == 2) {
    unshuffle_fixed<2>(from.data(), count, to);
  } else if (width == 4) {
    unshuffle_fixed<4>(from.data(), count, to);
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t b = 0; b < width; ++b) to[i * width + b] = from[b * count + i];
    }
  }
  std::copy(from.begin() + static_cast<std::ptrdiff_t>(count * width), from.end(), to + count * width);
}

bool inflate_exactly(int filter, std::span<const std::byte> stored, std::span<std::byte> to) {
  if (filter == kZstdFilter) return ZSTD_decompress(to.data(), to.size(), stored.data(), stored.size()) == to.size();
  uLongf size = to.size();
  const int result = uncompress(reinterpret_cast<Bytef*>(to.data()), &size,
                                reinterpret_cast<const Bytef*>(stored.data()), stored.size());
  return result == Z_OK && size == to.size();
}

}  // namespace

std::string_view to_string(Codec codec) {
  constexpr std::array<std::string_view, kCodecs.size()> kNames{"none", "deflate", "zstd"};
  return kNames[static_cast<std::size_t>(codec)];
}

std::vector<Filter> filters_of(Codec codec, std::size_t width) {
  const Filter bytes{kShuffle, {static_cast<unsigned>(width)}};
  switch (codec) {
    case Codec::none:
      break;
    case Codec::deflate:
      return {bytes, {kDeflate, {kDeflateLevel}}};
    case Codec::zstd:
      return {bytes, {kZstdFilter, {kZstdLevel}}};
  }
  return {};
}

struct ChunkEncoder::Impl {
  Codec codec;
  std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context{nullptr, ZSTD_freeCCtx};
  std::vector<std::byte> shuffled;
  std::vector<std::byte> packed;

  std::size_t pack() {
    if (codec == Codec::zstd) {
      packed.resize(std::max(packed.size(), ZSTD_compressBound(shuffled.size())));
      const std::size_t size =
          ZSTD_compressCCtx(context.get(), packed.data(), packed.size(), shuffled.data(), shuffled.size(), kZstdLevel);
      if (ZSTD_isError(size)) throw Error(fmt::format("zstd: {}", ZSTD_getErrorName(size)));
      return size;
    }
    uLongf size = compressBound(shuffled.size());
    packed.resize(std::max<std::size_t>(packed.size(), size));
    if (compress2(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(shuffled.data()),
                  shuffled.size(), kDeflateLevel) != Z_OK)
      throw Error("deflate: out of memory");
    return size;
  }
};

ChunkEncoder::ChunkEncoder(Codec codec) : impl_(std::make_unique<Impl>()) {
  impl_->codec = codec;
  if (codec != Codec::zstd) return;
  impl_->context.reset(ZSTD_createCCtx());
  if (!impl_->context) throw std::bad_alloc();
}
ChunkEncoder::~ChunkEncoder() = default;

std::span<const std::byte> ChunkEncoder::encode(std::span<const std::byte> chunk, std::size_t width) {
  if (impl_->codec == Codec::none) return chunk;
  impl_->shuffled.resize(chunk.size());
  shuffle(chunk, width, impl_->shuffled.data());
  const std::size_t size = impl_->pack();
  return std::span(impl_->packed).first(size);
}

ChunkEncoder& encoder_of_this_thread(Codec codec) {
  thread_local std::array<std::unique_ptr<ChunkEncoder>, kCodecs.size()> encoders;
  auto& encoder = encoders[static_cast<std::size_t>(codec)];
  if (!encoder) encoder = std::make_unique<ChunkEncoder>(codec);
  return *encoder;
}

void decode_chunk(std::span<const Filter> filters, unsigned skipped, std::span<const std::byte> stored,
                  std::span<std::byte> chunk, const std::string& name) {
  const auto fail = [&](const std::string& what) {
    throw Error(fmt::format("{}: {}; the file is not a trace or is damaged", name, what));
  };
  const auto is_active = [&](std::size_t i) { return (skipped >> i & 1U) == 0; };
  // What each filter was given when the chunk was written, up to the one that packs.
  std::vector<std::size_t> given{chunk.size()};
  int packers = 0;
  for (std::size_t i = 0; i < filters.size(); ++i) {
    const int id = filters[i].id;
    packers += id == kDeflate || id == kZstdFilter ? 1 : 0;
    given.push_back(given.back() + (id == kFletcher && is_active(i) ? kFletcherBytes : 0));
  }
  if (packers > 1) fail("stored through two compressors, expected one at most");
  std::vector<std::byte> memory;
  for (std::size_t i = filters.size(); i-- > 0;) {
    if (!is_active(i)) continue;
    const Filter& filter = filters[i];
    std::vector<std::byte> out;
    if (filter.id == kFletcher && stored.size() >= kFletcherBytes) {
      stored = stored.first(stored.size() - kFletcherBytes);
      continue;
    }
    if (filter.id == kDeflate || filter.id == kZstdFilter) {
      out.resize(given[i]);
      if (!inflate_exactly(filter.id, stored, out))
        fail(fmt::format("a chunk doesn't unpack to the {} bytes expected", given[i]));
    } else if (filter.id == kShuffle && !filter.values.empty() && filter.values[0] > 0) {
      out.resize(stored.size());
      unshuffle(stored, filter.values[0], out.data());
    } else {
      fail(fmt::format("stored through filter {}, expected shuffle (2), deflate (1), zstd (32015) or fletcher32 (3)",
                       filter.id));
    }
    memory = std::move(out);
    stored = memory;
  }
  if (stored.size() != chunk.size())
    fail(fmt::format("a chunk has {} bytes, expected {}", stored.size(), chunk.size()));
  std::ranges::copy(stored, chunk.begin());
}

}  // namespace depthkv
