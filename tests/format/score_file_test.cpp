// SPDX-License-Identifier: Apache-2.0
// Files of scores and kept positions, and the scorer that reads them.
#include "depthkv/score_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cstdlib>
#include <limits>

#include <algorithm>
#include <cstring>

#include "depthkv/progress.h"
#include "depthkv/replay.h"
#include "replay/csv.h"
#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ScoreFileTest : public testing::Test {
 protected:
  ScoreFileTest() {
    SyntheticTrace options;
    write_synthetic_trace(traces_, options);
    options.id = "a/b";
    options.seed = 2;
    write_synthetic_trace(traces_, options);
  }

  ScoreFileWriter writer() { return {file_, synthetic_card({}), Cut::prompt}; }
  // A file of two scorers for sample "s" and one for "t", one layer each.
  void write_some() {
    ScoreFileWriter out = writer();
    for (const char* name : {"one", "two"}) out.add_scores("s", {name, {}}, 4, scores_.view());
    out.add_kept("s", {"one, even", {}}, 0.5, 4, {{1, 3}, {2}});
    out.add_scores("t", {"one", {}}, 4, scores_.view());
    out.finish();
  }
  template <class Work>
  std::string error(Work work) {
    try {
      work();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  CommandResult run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"replay", traces_.string()});
    arguments.insert(arguments.end(),
                     {"--cache", "none", "--keep", "0.2,0.5", "--protect", "4+8", "--layers", "uniform"});
    return run_depthkv(arguments);
  }

  ScratchDirectory scratch_;
  std::filesystem::path traces_ = scratch_ / "traces";
  std::filesystem::path file_ = scratch_ / "my scores.h5";
  Tensor scores_ = [] {
    Tensor t(2, 1, 3);
    const float values[] = {1.5F, -2.0F, 3.0e38F, 0.1F, -0.0F, 1e-40F};
    std::ranges::copy(values, t.values().begin());
    return t;
  }();
};

TEST_F(ScoreFileTest, ScoresReadBackBitForBit) {
  write_some();
  const ScoreFile file = ScoreFile::open(file_);
  EXPECT_THAT(file.scorers("s"), ElementsAre("one", "two"));
  EXPECT_THAT(file.scorers("t"), ElementsAre("one"));
  EXPECT_THAT(file.scorers("u"), ElementsAre());
  const Tensor back = file.scores("s", 4, "two");
  EXPECT_EQ(back.heads(), 2);
  EXPECT_EQ(back.columns(), 3);
  EXPECT_EQ(std::memcmp(back.values().data(), scores_.values().data(), 6 * sizeof(float)), 0);
  EXPECT_TRUE(std::ranges::equal(file.scores("t", 4).values(), scores_.values()));
  EXPECT_TRUE(file.has("t", 4));
  EXPECT_TRUE(file.has("s", 4, "one"));
  EXPECT_FALSE(file.has("s", 4));  // which one?
  EXPECT_FALSE(file.has("s", 5, "one"));
  EXPECT_FALSE(file.has("s", 4, "one, even"));
  EXPECT_FALSE(file.has("u", 4));
  EXPECT_EQ(file.content_hash().size(), 16U);
}

TEST_F(ScoreFileTest, NothingIsLeftOfAFileThatWasNotFinished) {
  {
    ScoreFileWriter out = writer();
    out.add_scores("s", {"one", {}}, 0, scores_.view());
    EXPECT_THROW(writer(), TraceBusy);
  }
  EXPECT_FALSE(std::filesystem::exists(file_));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch_.path()), {}), 1);  // the traces
  EXPECT_THROW(ScoreFileWriter(scratch_ / "nowhere/s.h5", synthetic_card({}), Cut::prompt), Error);
}

TEST_F(ScoreFileTest, SaysWhatTheFileHolds) {
  write_some();
  const ScoreFile file = ScoreFile::open(file_);
  EXPECT_THAT(error([&] { file.scores("u", 4); }),
              AllOf(HasSubstr("my scores.h5"), HasSubstr("\"u\""), HasSubstr("s, t")));
  EXPECT_THAT(error([&] { file.scores("s", 4); }),
              HasSubstr("2 scorers for sample \"s\", so one has to be named: one, two"));
  EXPECT_THAT(error([&] { file.scores("s", 4, "ona"); }),
              AllOf(HasSubstr("\"ona\""), HasSubstr("did you mean \"one\"")));
  EXPECT_THAT(error([&] { file.scores("t", 7); }),
              AllOf(HasSubstr("t/one"), HasSubstr("no layer_7; it holds layer_4")));
}

TEST_F(ScoreFileTest, DamagedFilesAreRefused) {
  write_some();
  const std::string whole = read_text(file_);
  const auto open = [&](const std::string& bytes) {
    write_text(file_, bytes);
    return error([&] { ScoreFile::open(file_).scores("t", 4); });
  };
  EXPECT_EQ(open(whole), "no error");
  for (const std::size_t length : {std::size_t{0}, std::size_t{50}, whole.size() / 2, whole.size() - 1})
    EXPECT_THAT(open(whole.substr(0, length)), AllOf(HasSubstr("my scores.h5: "), HasSubstr("--dump-scores")));
  EXPECT_THAT(open("notes"), HasSubstr("not an HDF5 file"));
  // One bit of every place where values may lie: refused, or not of what was asked for.
  std::string bits = whole;
  const std::string_view values(reinterpret_cast<const char*>(scores_.values().data()), 6 * sizeof(float));
  for (std::size_t at = whole.find(values); at != std::string::npos; at = whole.find(values, at + 1)) bits[at] ^= 1;
  EXPECT_THAT(open(bits), AllOf(HasSubstr("t/one/layer_4"), HasSubstr("checksum")));
}

TEST_F(ScoreFileTest, ForeignShapesAndTypesAreRefused) {
  const hid_t file = H5Fcreate(file_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t sample = H5Gcreate2(file, "s", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t group = H5Gcreate2(sample, "mine", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t extent[] = {2, 3, 1};
  const auto add = [&](const char* name, hid_t type, int rank) {
    const hid_t space = H5Screate_simple(rank, extent, nullptr);
    const hid_t dataset = H5Dcreate2(group, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    const float values[6]{};
    H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    H5Dclose(dataset);
    H5Sclose(space);
  };
  add("layer_0", H5T_IEEE_F32LE, 2);
  add("layer_1", H5T_IEEE_F64LE, 2);
  add("layer_2", H5T_IEEE_F32LE, 3);
  for (const hid_t id : {group, sample}) H5Gclose(id);
  H5Fclose(file);
  const ScoreFile scores = ScoreFile::open(file_);
  EXPECT_EQ(scores.scores("s", 0).columns(), 3);  // no attributes are needed
  EXPECT_THAT(error([&] { scores.scores("s", 1); }), HasSubstr("s/mine/layer_1: expected values of type float32"));
  EXPECT_THAT(error([&] { scores.scores("s", 2); }), HasSubstr("has 3 dimensions, expected 2"));
}

TEST_F(ScoreFileTest, H5pyReadsWhatReplayWroteAsTheDocumentationSays) {
  const char* python = std::getenv("DEPTHKV_PYTHON");
  ASSERT_NE(python, nullptr) << "DEPTHKV_PYTHON names a Python with h5py; scripts/env.sh sets it";
  const auto folder = scratch_.path();
  const CommandResult replayed =
      run({"--scorer", "snapkv", "--dump-scores", (folder / "scores.h5").string(), "--dump-kept",
           (folder / "kept.h5").string(), "--out", (folder / "run").string()});
  ASSERT_EQ(replayed.exit_code, 0) << replayed.errors;
  const std::string page = read_text(kSource / "docs/results.md");
  const std::size_t begin = page.find("import h5py");
  ASSERT_NE(begin, std::string::npos);
  const std::string program = "import os, sys; os.chdir(sys.argv[1])\n" +
                              page.substr(begin, page.find("```", begin) - begin) +
                              R"(
with h5py.File("scores.h5") as scores, h5py.File("kept.h5") as kept:
    assert dict(scores.attrs) == dict(kept.attrs) and scores.attrs["cut"] == b"prompt" and scores.attrs["model"] == b"synthetic"
    assert sorted(scores) == ["a%2Fb", "synthetic"] and scores["a%2Fb"].attrs["id"] == b"a/b"
    snapkv = scores["synthetic/snapkv"]
    assert snapkv.attrs["scorer_params"] == b"group=mean kernel=5 order=group_then_pool pool=avg preset=orig window=32"
    assert sorted(snapkv) == ["layer_0", "layer_1", "layer_2"]
    assert all(x.shape == (2, 170) and x.dtype == "float32" for x in snapkv.values())
    policy = kept["synthetic/snapkv, uniform, uniform"]
    assert policy.attrs["head_allocator"] == b"uniform" and sorted(policy) == ["keep_0.2", "keep_0.5"]
    rows = policy["keep_0.2/layer_1"][:]
    assert rows.dtype == "int32" and (rows >= 0).sum(axis=1).tolist() == [34, 34]
    assert all((row[1:] > row[:-1]).all() and row[-1] == 169 and row[3] == 3 for row in rows)
    adakv = kept["synthetic/snapkv, uniform, adakv/keep_0.2/layer_1"][:]
    counts = (adakv >= 0).sum(axis=1)
    assert counts.sum() == 68 and counts.max() == adakv.shape[1]
    # What is kept are the protected ones and the best by score.
    best = snapkv["layer_1"][0].copy()
    best[:4] = float("inf")
    assert set((-best).argsort(kind="stable")[:85]) == set(policy["keep_0.5/layer_1"][0])
)";
  const CommandResult read = run_command({python, write_text(folder / "read.py", program).string(), folder.string()});
  EXPECT_EQ(read.exit_code, 0) << read.errors;
  EXPECT_THAT(read.output, AllOf(HasSubstr("a%2Fb snapkv group=mean kernel=5"), HasSubstr("snapkv, uniform, uniform")));
}

TEST_F(ScoreFileTest, ExplicitReproducesTheScorerThatWasDumpedBitForBit) {
  const std::string dump = (scratch_ / "dumped scores.h5").string();
  const auto values = [&](std::vector<std::string> arguments) {
    const std::string out = (scratch_ / "run").string();
    arguments.insert(arguments.end(), {"--heads", "uniform", "--heads", "adakv", "--structure", "token", "--structure",
                                       "shared", "--out", out});
    const CommandResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    // sample, structure, head allocator, ..., value: of snapkv, or of what stands for it.
    const CsvTable table = CsvTable::read(out + "/results.csv");
    std::vector<std::string> found;
    for (std::size_t row = 0; row < table.rows(); ++row) {
      const std::string& scorer = table.at(row, "scorer");
      if (scorer != "snapkv" && scorer != "explicit") continue;
      std::string line;
      for (const char* column :
           {"sample", "structure", "layer_allocator", "head_allocator", "keep", "kept", "metric", "value"})
        line += table.at(row, column) + ' ';
      found.push_back(line);
    }
    return found;
  };
  const auto original = values({"--scorer", "snapkv", "--dump-scores", dump});
  EXPECT_EQ(original.size(),
            2U * 2U * 2U * 2U * 2U * 4U);  // samples, structures, allocators of both kinds, keeps, metrics
  EXPECT_EQ(values({"--scorer", "explicit:file=" + dump + ",scorer=snapkv token"}), original);
  const CommandResult again =
      run_depthkv({"run", (scratch_ / "run/plan.yaml").string(), "--out", (scratch_ / "again").string()});
  EXPECT_EQ(again.exit_code, 0) << again.errors;
  EXPECT_EQ(read_text(scratch_ / "again/results.csv"), read_text(scratch_ / "run/results.csv"));
}

TEST_F(ScoreFileTest, ExplicitSaysWhatIsWrongWithItsFile) {
  const Registry registry = builtin_policies();
  EXPECT_THAT(registry.make_scorer({"explicit", {}, ""}).unavailable, HasSubstr("set file=FILE.h5"));
  EXPECT_THROW(registry.make_scorer({"explicit", {{"file", "nowhere.h5"}}, ""}), InputError);
  write_some();
  const Scorer scorer = registry.make_scorer({"explicit", {{"file", file_.string()}, {"scorer", "one"}}, ""});
  EXPECT_EQ(scorer.source, ScoreFile::open(file_).content_hash());
  LayerFeatures layer;
  layer.sample = "s";
  layer.layer = 4;
  layer.shape.kv_heads = 2;
  layer.tokens = 3;
  EXPECT_TRUE(std::ranges::equal(scorer.score(layer, ops_for(Device::cpu)).values(), scores_.values()));
  layer.tokens = 4;
  EXPECT_THAT(error([&] { scorer.score(layer, ops_for(Device::cpu)); }), HasSubstr("are [2, 3], expected [2, 4]"));
  layer.layer = 5;
  EXPECT_THAT(error([&] { scorer.score(layer, ops_for(Device::cpu)); }), HasSubstr("no layer_5; it holds layer_4"));
  layer.sample = "u";
  EXPECT_THAT(error([&] { scorer.score(layer, ops_for(Device::cpu)); }), HasSubstr("it holds s, t"));
  scores_.row(0, 0)[1] = std::numeric_limits<float>::quiet_NaN();
  write_some();
  layer = {};
  layer.sample = "t";
  layer.layer = 4;
  layer.shape.kv_heads = 2;
  layer.tokens = 3;
  const Scorer broken = registry.make_scorer({"explicit", {{"file", file_.string()}}, ""});
  EXPECT_NE(broken.source, scorer.source);
  EXPECT_THAT(error([&] { broken.score(layer, ops_for(Device::cpu)); }), HasSubstr("no numbers"));
}

TEST_F(ScoreFileTest, ExplicitIsSkippedWhereItCannotWork) {
  ReplayPlan plan;
  plan.scorers = {{"explicit", {}, ""}, {"knorm", {}, ""}};
  plan.structures = {{"token", {}, ""}, {"block", {}, ""}};
  plan.keep = {0.5};
  ResultTable table = replay(open_trace_set(traces_), plan, builtin_policies(), kQuiet);
  EXPECT_THAT(table.samples[0].ranker_skipped[0], HasSubstr("needs a file of scores"));
  const std::string dump = (scratch_ / "s.h5").string();
  ASSERT_EQ(run({"--scorer", "knorm", "--dump-scores", dump, "--out", (scratch_ / "run").string()}).exit_code, 0);
  plan.scorers[0].params = {{"file", dump}, {"scorer", "knorm"}};
  table = replay(open_trace_set(traces_), plan, builtin_policies(), kQuiet);
  EXPECT_EQ(table.samples[0].ranker_skipped[0], "");
  EXPECT_THAT(table.samples[0].ranker_skipped[1], HasSubstr("scores the cache as a whole"));
}

TEST_F(ScoreFileTest, DumpsKeepAwayFromTheTraces) {
  const std::string out = (scratch_ / "run").string();
  const CommandResult among = run({"--dump-scores", (traces_ / "scores.h5").string(), "--out", out});
  EXPECT_EQ(among.exit_code, 2);
  EXPECT_THAT(among.errors, HasSubstr("among the traces"));
  const std::string both = (scratch_ / "both.h5").string();
  ASSERT_EQ(run({"--scorer", "h2o", "--dump-scores", both, "--dump-kept", both, "--out", out}).exit_code, 0);
  EXPECT_THAT(ScoreFile::open(both).scorers("a/b"), ElementsAre("h2o", "oracle", "random"));
}

}  // namespace
}  // namespace depthkv
