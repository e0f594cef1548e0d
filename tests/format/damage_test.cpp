// SPDX-License-Identifier: Apache-2.0
// Broken files give an Error that names the file: never a crash, never silence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <random>

#include "depthkv/error.h"
#include "depthkv/registry.h"
#include "depthkv/replay.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

// Reads all there is to read; true if every part was fine.
bool reads(const std::filesystem::path& file) {
  try {
    const Trace trace = Trace::open(file);
    for (int layer = 0; layer < static_cast<int>(trace.model().layers.size()); ++layer) {
      if (trace.has(Channel::keys, layer)) trace.keys(layer);
      if (trace.has(Channel::values, layer)) trace.values(layer);
      if (trace.has(Channel::queries, layer)) trace.queries(layer);
      if (trace.has(Channel::column_sums, layer)) trace.column_sums(layer, Cut::context);
      if (trace.has(Channel::attention, layer)) trace.attention(layer, {0, trace.sample().size()});
    }
    return true;
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(file.filename().string()));
    return false;
  }
}

class Damage : public testing::Test {
 protected:
  Damage() {
    SyntheticTrace options;
    options.layers = 1;
    options.segments = {{2, 30}, 40};
    options.tokens = 45;
    options.attention = true;
    options.codec = Codec::deflate;
    good_ = write_synthetic_trace(scratch_.path(), options);
    bytes_ = read_text(good_);
  }
  bool reads_as(const std::string& bytes) { return reads(write_text(scratch_ / "damaged.h5", bytes)); }

  ScratchDirectory scratch_;
  std::filesystem::path good_;
  std::string bytes_;
};

TEST_F(Damage, UntouchedFileReads) { EXPECT_TRUE(reads(good_)); }

TEST_F(Damage, TruncatedFilesAreErrors) {
  for (const std::size_t length : {std::size_t{0}, std::size_t{1}, std::size_t{8}, std::size_t{100}, std::size_t{2000},
                                   bytes_.size() / 4, bytes_.size() / 2, bytes_.size() - 1}) {
    EXPECT_FALSE(reads_as(bytes_.substr(0, length))) << length;
  }
}

TEST_F(Damage, OtherFilesAreErrors) {
  EXPECT_FALSE(reads_as("these are notes, not a trace\n"));
  EXPECT_FALSE(reads(scratch_ / "missing.h5"));
  EXPECT_FALSE(reads(scratch_.path()));
}

// A flipped bit may land in numbers, where nobody can tell, but must never crash. 400 places, the same on every run.
TEST_F(Damage, FlippedBitsNeverCrash) {
  std::mt19937 random(11);
  int errors = 0;
  for (int i = 0; i < 400; ++i) {
    std::string flipped = bytes_;
    // Headers sit early in the file: half of the flips go there.
    const std::size_t range = i % 2 == 0 ? std::min<std::size_t>(flipped.size(), 6000) : flipped.size();
    flipped[random() % range] ^= static_cast<char>(1U << random() % 8);
    errors += reads_as(flipped) ? 0 : 1;
  }
  EXPECT_GT(errors, 20);
}

// Edits a copy of the good file with the raw library.
class Hostile : public Damage {
 protected:
  template <class Edit>
  bool reads_after(Edit edit) {
    const std::filesystem::path file = write_text(scratch_ / "hostile.h5", bytes_);
    const hid_t id = H5Fopen(file.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    edit(id);
    H5Fclose(id);
    return reads(file);
  }
  static void set_integer(hid_t file, const char* object, const char* name, std::int64_t value) {
    const hid_t owner = H5Oopen(file, object, H5P_DEFAULT);
    const hid_t attribute = H5Aopen(owner, name, H5P_DEFAULT);
    EXPECT_GE(H5Awrite(attribute, H5T_NATIVE_INT64, &value), 0) << name;
    H5Oclose(owner);
    H5Aclose(attribute);
  }
  static void replace(hid_t file, const char* name, hid_t type, std::vector<hsize_t> extent) {
    H5Ldelete(file, name, H5P_DEFAULT);
    const hid_t space = H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr);
    H5Dclose(H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
  }
};

TEST_F(Hostile, AttributesThatMakeNoSense) {
  EXPECT_FALSE(reads_after([](hid_t f) { set_integer(f, ".", "version", 99); }));
  EXPECT_FALSE(reads_after([](hid_t f) { set_integer(f, "sample", "context_end", 1'000'000); }));
  EXPECT_FALSE(reads_after([](hid_t f) { set_integer(f, "sample", "context_begin", -5); }));
  EXPECT_FALSE(reads_after([](hid_t f) { set_integer(f, "sample", "prompt_end", 3); }));
  EXPECT_FALSE(reads_after([](hid_t f) { H5Adelete(f, "format"); }));
  EXPECT_FALSE(reads_after([](hid_t f) { H5Ldelete(f, "model", H5P_DEFAULT); }));
  EXPECT_FALSE(reads_after([](hid_t f) { H5Ldelete(f, "layers/0", H5P_DEFAULT); }));
  EXPECT_FALSE(reads_after([](hid_t f) { H5Ldelete(f, "sample/tokens", H5P_DEFAULT); }));
}

TEST_F(Hostile, DatasetsOfTheWrongShapeOrType) {
  EXPECT_FALSE(reads_after([](hid_t f) { replace(f, "sample/tokens", H5T_NATIVE_INT32, {hsize_t{1} << 40}); }));
  EXPECT_FALSE(reads_after([](hid_t f) { replace(f, "sample/tokens", H5T_NATIVE_DOUBLE, {45}); }));
  EXPECT_FALSE(reads_after([](hid_t f) { replace(f, "query_rows", H5T_NATIVE_INT32, {45}); }));  // all zero: not rising
  EXPECT_FALSE(reads_after([](hid_t f) { replace(f, "model/layers", H5T_NATIVE_INT32, {1, 3}); }));  // zero heads
  EXPECT_FALSE(reads_after([](hid_t f) { replace(f, "model/layers", H5T_NATIVE_INT32, {0, 3}); }));
  EXPECT_FALSE(reads_after([](hid_t f) { replace(f, "layers/0/keys", H5T_NATIVE_FLOAT, {45, 2, 8}); }));
  EXPECT_FALSE(reads_after([](hid_t f) { replace(f, "layers/0/column_sums", H5T_NATIVE_FLOAT, {2, 4, 4000}); }));
}

TEST(DamagedSet, ReplayNamesTheFileAndStops) {
  const ScratchDirectory scratch;
  const auto file = write_synthetic_trace(scratch.path(), {});
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
  ReplayPlan plan;
  plan.scorers = {{"h2o", {}, ""}};
  try {
    replay(open_trace_set(scratch.path()), plan, builtin_policies(), [](auto&&...) {});
    FAIL() << "a truncated trace was replayed";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("synthetic.h5"));
  }
}

}  // namespace
}  // namespace depthkv
