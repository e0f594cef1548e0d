// SPDX-License-Identifier: Apache-2.0
// Chunks come back as they were, and what isn't a chunk is an Error, never a read or write out of bounds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <rapidcheck/gtest.h>
#include <zstd.h>

#include <random>

#include "depthkv/error.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"
#include "traces/codec.h"

namespace depthkv {
namespace {

using Bytes = std::vector<std::byte>;

Bytes random_bytes(std::size_t size, unsigned seed, unsigned variety) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random() % variety);
  return bytes;
}

RC_GTEST_PROP(CodecProperty, ChunksComeBack, ()) {
  const Codec codec = *rc::gen::elementOf(std::vector<Codec>(kCodecs.begin(), kCodecs.end()));
  const std::size_t width = *rc::gen::element<std::size_t>(2, 4);
  const Bytes chunk = random_bytes(width * *rc::gen::inRange<std::size_t>(1, 5000), *rc::gen::arbitrary<unsigned>(),
                                   *rc::gen::element(1U, 5U, 256U));
  ChunkEncoder encoder(codec);
  const auto packed = encoder.encode(chunk, width);
  Bytes again(chunk.size());
  decode_chunk(filters_of(codec, width), 0, packed, again, "x");
  RC_ASSERT(again == chunk);
}

TEST(Codec, WhatIsNotTheChunkIsAnError) {
  const Bytes chunk = random_bytes(4096, 1, 7);
  for (const Codec codec : kCodecs) {
    ChunkEncoder encoder(codec);
    const auto packed = encoder.encode(chunk, 2);
    const Bytes stored(packed.begin(), packed.end());
    const auto filters = filters_of(codec, 2);
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, stored.size() / 2, stored.size() - 1}) {
      Bytes out(chunk.size());
      EXPECT_THROW(decode_chunk(filters, 0, std::span(stored).first(size), out, "x"), Error);
    }
    for (const std::size_t size : {chunk.size() - 2, chunk.size() + 2}) {
      Bytes out(size);
      EXPECT_THROW(decode_chunk(filters, 0, stored, out, "x"), Error) << "a chunk of another size";
    }
    for (unsigned seed = 0; seed < 300; ++seed) {  // may unpack to other values, or not at all
      Bytes flipped = stored;
      flipped[seed * 37 % flipped.size()] ^= std::byte{static_cast<unsigned char>(1U << seed % 8)};
      Bytes out(chunk.size());
      try {
        decode_chunk(filters, 0, flipped, out, "x");
      } catch (const Error&) {
      }
    }
  }
}

TEST(Codec, FiltersThatWereSkippedOrAreUnknown) {
  const Bytes chunk = random_bytes(64, 1, 256);
  Bytes out(chunk.size());
  decode_chunk(filters_of(Codec::zstd, 2), 3, chunk, out, "x");  // both left out: stored as it is
  EXPECT_EQ(out, chunk);
  Bytes summed = chunk;
  summed.resize(chunk.size() + 4);  // as fletcher32 leaves it
  decode_chunk(std::vector<Filter>{{3, {}}}, 0, summed, out, "x");
  EXPECT_EQ(out, chunk);
  for (const std::vector<Filter>& filters :
       {std::vector<Filter>{{3, {}}}, {{4, {}}}, {{2, {}}}, {{2, {0}}}, {{1, {1}}, {32015, {1}}}, {{32015, {1}}}}) {
    EXPECT_THROW(decode_chunk(filters, 0, chunk, out, "x"), Error);
  }
}

// A chunk in a file that unpacks to less than a chunk, which HDF5's own filters would trust.
TEST(Codec, AShortChunkInAFileIsAnError) {
  const ScratchDirectory scratch;
  const auto file = write_synthetic_trace(scratch.path(), {.codec = Codec::zstd});
  const Bytes few(16);
  Bytes packed(ZSTD_compressBound(few.size()));
  packed.resize(ZSTD_compress(packed.data(), packed.size(), few.data(), few.size(), 1));
  const hid_t id = H5Fopen(file.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t keys = H5Dopen2(id, "layers/0/keys", H5P_DEFAULT);
  const hsize_t start[] = {0, 0, 0};
  ASSERT_GE(H5Dwrite_chunk(keys, H5P_DEFAULT, 0, start, packed.size(), packed.data()), 0);
  H5Dclose(keys);
  H5Fclose(id);
  const Trace trace = Trace::open(file);
  try {
    trace.keys(0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("layers/0/keys: a chunk doesn't unpack"));
  }
  EXPECT_FALSE(trace.values(0).empty());
}

}  // namespace
}  // namespace depthkv
