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
#include "support/source.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

// Reads all there is to read; the message of the Error that stopped it, or nothing if every part was fine.
std::string complaint(const std::filesystem::path& file) {
  try {
    const Trace trace = Trace::open(file);
    for (int layer = 0; layer < static_cast<int>(trace.model().layers.size()); ++layer) {
      if (trace.has(Channel::keys, layer)) trace.keys(layer);
      if (trace.has(Channel::values, layer)) trace.values(layer);
      if (trace.has(Channel::queries, layer)) trace.queries(layer);
      if (trace.has(Channel::column_sums, layer)) trace.column_sums(layer, Cut::context);
      if (trace.has(Channel::repeat_max, layer)) trace.repeat_max(layer, Repeat::cache, Cut::prompt);
      if (trace.has(Channel::attention, layer)) trace.attention(layer, {0, trace.sample().size()});
    }
    return "";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(file.filename().string()));
    return error.what();
  }
}

bool reads(const std::filesystem::path& file) { return complaint(file).empty(); }

class Damage : public testing::Test {
 protected:
  Damage() {
    SyntheticTrace options;
    options.layers = 1;
    options.segments = {{2, 30}, 40};
    options.tokens = 45;
    options.attention = options.repeats = true;
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
  std::string complaint_after(Edit edit) {
    const std::filesystem::path file = write_text(scratch_ / "hostile.h5", bytes_);
    const hid_t id = H5Fopen(file.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    edit(id);
    H5Fclose(id);
    return complaint(file);
  }
  template <class Edit>
  bool reads_after(Edit edit) {
    return complaint_after(edit).empty();
  }
  static void set_integer(hid_t file, const char* object, const char* name, std::int64_t value) {
    const hid_t owner = H5Oopen(file, object, H5P_DEFAULT);
    const hid_t attribute = H5Aopen(owner, name, H5P_DEFAULT);
    EXPECT_GE(H5Awrite(attribute, H5T_NATIVE_INT64, &value), 0) << name;
    H5Oclose(owner);
    H5Aclose(attribute);
  }
  static void replace(hid_t file, const char* name, hid_t type, std::vector<hsize_t> extent,
                      hid_t creation = H5P_DEFAULT) {
    H5Ldelete(file, name, H5P_DEFAULT);
    const hid_t space = H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr);
    H5Dclose(H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT));
    H5Sclose(space);
  }
  static hid_t half() {
    const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    return type;
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

TEST_F(Hostile, NumbersThatNothingMayBeReadWith) {
  const auto write = [](hid_t file, const char* name, std::size_t at, std::int32_t value) {
    const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    const hid_t space = H5Dget_space(dataset);
    std::vector<std::int32_t> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    H5Dread(dataset, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    values.at(at) = value;
    H5Dwrite(dataset, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    H5Sclose(space);
    H5Dclose(dataset);
  };
  const auto after = [&](const char* name, std::size_t at, std::int32_t value) {
    return complaint_after([&](hid_t f) { write(f, name, at, value); });
  };
  EXPECT_THAT(after("sample/tokens", 44, 0x7fffffff), testing::HasSubstr("expected 0 to 49"));
  EXPECT_THAT(after("sample/tokens", 7, -5), testing::HasSubstr("expected 0 to 49"));
  EXPECT_THAT(after("sample/text_offsets", 0, -1), testing::HasSubstr("rising positions inside prompt_text"));
  EXPECT_THAT(after("sample/text_offsets", 39, 1 << 30), testing::HasSubstr("rising positions inside prompt_text"));
  EXPECT_THAT(after("query_rows", 44, 43), testing::HasSubstr("query_rows has 45 rows, expected all 45"));
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

// What a sample may not be made of; each of these once led libhdf5 out of the file, or around in circles.
TEST_F(Hostile, CyclicLinksEndAtTheFirstStep) {
  EXPECT_THAT(complaint_after([](hid_t f) {
                H5Ldelete(f, "layers/0", H5P_DEFAULT);
                H5Lcreate_hard(f, "/", f, "layers/0", H5P_DEFAULT, H5P_DEFAULT);  // a group, but without channels
                H5Ldelete(f, "sample/tokens", H5P_DEFAULT);
                H5Lcreate_hard(f, "sample", f, "sample/tokens", H5P_DEFAULT, H5P_DEFAULT);
              }),
              testing::HasSubstr("sample/tokens: isn't a dataset"));
  EXPECT_THAT(complaint_after([](hid_t f) {
                H5Ldelete(f, "sample/id", H5P_DEFAULT);
                H5Lcreate_soft("/sample/id", f, "sample/id", H5P_DEFAULT, H5P_DEFAULT);
              }),
              testing::HasSubstr("sample/id: is a soft link"));
}

TEST_F(Hostile, ExternalLinksAreNotFollowed) {
  EXPECT_THAT(complaint_after([](hid_t f) {
                H5Ldelete(f, "model", H5P_DEFAULT);
                H5Lcreate_external("good.h5", "/model", f, "model", H5P_DEFAULT, H5P_DEFAULT);
              }),
              testing::HasSubstr("model: is an external"));
  const std::string other = good_.string();  // one that could be followed, in the middle of a path
  EXPECT_THAT(complaint_after([&](hid_t f) {
                H5Ldelete(f, "layers", H5P_DEFAULT);
                H5Lcreate_external(other.c_str(), "/layers", f, "layers", H5P_DEFAULT, H5P_DEFAULT);
              }),
              testing::HasSubstr("layers: is an external"));
}

TEST_F(Hostile, VirtualDatasetsAndExternalStorageAreNotRead) {
  const hid_t type = half();
  EXPECT_THAT(complaint_after([&](hid_t f) {
                const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
                const hsize_t extent[] = {45, 2, 8};
                const hid_t space = H5Screate_simple(3, extent, nullptr);
                H5Pset_virtual(creation, space, "/etc/passwd", "/x", space);
                replace(f, "layers/0/keys", type, {45, 2, 8}, creation);
                H5Sclose(space);
                H5Pclose(creation);
              }),
              testing::HasSubstr("layers/0/keys: a virtual dataset"));
  EXPECT_THAT(complaint_after([&](hid_t f) {
                const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
                H5Pset_external(creation, "/etc/passwd", 0, H5F_UNLIMITED);
                replace(f, "layers/0/keys", type, {45, 2, 8}, creation);
                H5Pclose(creation);
              }),
              testing::HasSubstr("layers/0/keys: its values lie in another file"));
  H5Tclose(type);
}

TEST_F(Hostile, VariableLengthTextIsReadAndNeedNotBeThere) {
  const hid_t text = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, H5T_VARIABLE);
  EXPECT_TRUE(reads_after([&](hid_t f) {
    replace(f, "sample/answers", text, {2});
    const char* values[] = {"", "a text that is longer than a reference"};
    const hid_t dataset = H5Dopen2(f, "sample/answers", H5P_DEFAULT);
    H5Dwrite(dataset, text, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    H5Dclose(dataset);
  }));
  EXPECT_TRUE(reads_after([&](hid_t f) { replace(f, "sample/answers", text, {3}); })) << "never written: empty texts";
  EXPECT_THAT(complaint_after([&](hid_t f) { replace(f, "sample/answers", text, {hsize_t{1} << 40}); }),
              testing::HasSubstr("answers: claims 1099511627776 values"));
  H5Tclose(text);
}

// The heap's own numbers, changed under a reference.
TEST_F(Hostile, VariableLengthTextWithAHeapThatLies) {
  const hid_t text = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, H5T_VARIABLE);
  const std::string value(9000, 'x');
  EXPECT_TRUE(reads_after([&](hid_t f) {
    replace(f, "sample/answers", text, {1});
    const char* values[] = {value.c_str()};
    const hid_t dataset = H5Dopen2(f, "sample/answers", H5P_DEFAULT);
    H5Dwrite(dataset, text, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    H5Dclose(dataset);
  }));
  H5Tclose(text);
  const std::string written = read_text(scratch_ / "hostile.h5");
  const std::size_t heap = written.find("GCOL");
  ASSERT_NE(heap, std::string::npos);
  for (const std::size_t at : {heap + 8, heap + 16 + 8}) {  // size of the collection, size of its first object
    for (const char high : {'\x00', '\x7f'}) {
      std::string lying = written;
      lying[at] = '\x01';
      lying[at + 1] = '\x00';
      lying[at + 6] = high;
      EXPECT_FALSE(reads(write_text(scratch_ / "lying.h5", lying))) << at - heap;
    }
  }
}

TEST_F(Hostile, ChunksLongerThanTheirLayoutSays) {
  const std::filesystem::path corpus = kSource / "tests/fuzz/corpus/trace";
  EXPECT_THAT(
      complaint(corpus / "found_chunk_length.h5"),
      testing::ContainsRegex("layers/0/values: the length of a chunk in its B-tree is [0-9]+, expected [0-9]+"));
}

TEST_F(Hostile, HugeExtentsInTinyFiles) {
  const hid_t type = half();
  const hsize_t huge = hsize_t{1} << 23;
  EXPECT_THAT(complaint_after([&](hid_t f) { replace(f, "sample/tokens", H5T_STD_I32LE, {8 * huge}); }),
              testing::HasSubstr("tokens: claims 67108864 values of 4 bytes"));
  EXPECT_THAT(complaint_after([&](hid_t f) {  // chunked, and no chunk is there
                const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
                const hsize_t chunk[] = {64, 2, 8};
                H5Pset_chunk(creation, 3, chunk);
                replace(f, "layers/0/keys", type, {hsize_t{1} << 40, 2, 8}, creation);
                H5Pclose(creation);
              }),
              testing::HasSubstr("keys: claims"));
  EXPECT_THAT(complaint_after([&](hid_t f) {  // of the right shape, in one chunk that would take 2 GiB
                const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
                const hsize_t chunk[] = {huge, 2, 64};
                const hsize_t extent[] = {45, 2, 8};
                const hsize_t most[] = {H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED};
                H5Pset_chunk(creation, 3, chunk);
                H5Ldelete(f, "layers/0/keys", H5P_DEFAULT);
                const hid_t space = H5Screate_simple(3, extent, most);
                H5Dclose(H5Dcreate2(f, "layers/0/keys", type, space, H5P_DEFAULT, creation, H5P_DEFAULT));
                H5Sclose(space);
                H5Pclose(creation);
              }),
              testing::HasSubstr("keys: claims 1073741824 values of 2 bytes"));
  H5Tclose(type);
}

// Filters that yield less than a chunk: libhdf5 1.10 would read on behind it.
TEST_F(Hostile, ChunksThatAreShorterThanTheyClaim) {
  const std::vector<unsigned char> deflated{0x78, 0x9c, 0x63, 0x60, 0x00, 0x00, 0x00, 0x02, 0x00, 0x01};  // two zeros
  const hsize_t start[] = {0, 0, 0};
  for (const unsigned skipped : {0U, 1U, 3U}) {  // bits of the filters that the chunk says it left out
    EXPECT_THAT(complaint_after([&](hid_t f) {
                  const hid_t keys = H5Dopen2(f, "layers/0/keys", H5P_DEFAULT);
                  EXPECT_GE(H5Dwrite_chunk(keys, H5P_DEFAULT, skipped, start, deflated.size(), deflated.data()), 0);
                  H5Dclose(keys);
                }),
                testing::HasSubstr("keys: a chunk "));
  }
}

TEST_F(Hostile, WrongTypesAreNamed) {
  EXPECT_THAT(complaint_after([](hid_t f) {
                const hid_t committed = H5Tcopy(H5T_STD_I32LE);
                H5Tcommit2(f, "a_type", committed, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
                replace(f, "sample/tokens", committed, {45});
                H5Tclose(committed);
              }),
              testing::HasSubstr("sample/tokens: "));
  EXPECT_THAT(complaint_after([](hid_t f) { replace(f, "sample/answers", H5T_STD_I32LE, {2}); }),
              testing::HasSubstr("answers: expected text"));
  EXPECT_THAT(complaint_after([](hid_t f) { replace(f, "sample/tokens", H5T_STD_REF_OBJ, {45}); }),
              testing::HasSubstr("tokens: expected whole numbers"));
  const hid_t odd = H5Tcopy(H5T_STD_I32LE);
  H5Tset_precision(odd, 3);
  EXPECT_THAT(complaint_after([&](hid_t f) { replace(f, "sample/tokens", odd, {45}); }),
              testing::HasSubstr("tokens: expected whole numbers"));
  H5Tclose(odd);
  EXPECT_TRUE(reads_after([](hid_t f) { replace(f, "sample/tokens", H5T_STD_I64BE, {45}); })) << "any width will do";
}

TEST_F(Hostile, GroupsWhereDatasetsBelongAndTheOtherWayRound) {
  const auto make_group = [](hid_t f, const char* name) {
    H5Ldelete(f, name, H5P_DEFAULT);
    H5Gclose(H5Gcreate2(f, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  };
  for (const char* name : {"layers/0/keys", "sample/tokens", "sample/id", "model/layers", "query_rows"}) {
    EXPECT_THAT(complaint_after([&](hid_t f) { make_group(f, name); }), testing::HasSubstr("isn't a dataset")) << name;
  }
  for (const char* name : {"sample", "model", "layers", "layers/0"}) {
    EXPECT_THAT(complaint_after([&](hid_t f) { replace(f, name, H5T_STD_I32LE, {1}); }),
                testing::HasSubstr("isn't a group"))
        << name;
  }
}

TEST_F(Hostile, EveryMissingAttributeIsNamed) {
  const std::pair<const char*, std::vector<const char*>> all[] = {
      {".", {"format", "version"}},
      {"model",
       {"name", "architecture", "fingerprint", "engine", "device", "context_length", "vocabulary", "embedding",
        "rotary_layout", "rotary_base", "attention_scale", "logit_softcap"}},
      {"sample", {"context_begin", "context_end", "prompt_end"}}};
  for (const auto& [object, names] : all) {
    for (const char* name : names) {
      EXPECT_THAT(complaint_after([&](hid_t f) { H5Adelete_by_name(f, object, name, H5P_DEFAULT); }),
                  testing::HasSubstr(std::string("attribute ") + name + " is missing"));
    }
  }
}

TEST_F(Hostile, FilesOfOtherKindsAreRefusedBeforeTheyAreOpened) {
  std::string split = bytes_;  // superblock version 2: the address of its extension
  split[20] = 0x60;
  for (std::size_t i = 21; i < 28; ++i) split[i] = 0;
  EXPECT_FALSE(reads_as(split));
  std::string newer = bytes_;
  newer[8] = 9;
  EXPECT_FALSE(reads_as(newer));
  EXPECT_FALSE(reads_as(std::string(512, '\0') + bytes_)) << "a user block";
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
