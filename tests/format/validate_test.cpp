// SPDX-License-Identifier: Apache-2.0
// validate_trace_set() is silent on what we write and names what is wrong with anything else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cmath>

#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Validate : public testing::Test {
 protected:
  Validate() {
    options_.layers = 2;
    options_.attention = true;
    options_.hidden = options_.repeats = true;
    options_.codec = Codec::none;  // so that HDF5 itself can edit the chunks
    file_ = write_synthetic_trace(scratch_.path(), options_);
    write_synthetic_weights(scratch_.path(), options_);
    write_trace_index(scratch_.path());
  }

  std::vector<std::string> problems() const {
    return validate_trace_set(scratch_.path(), [](auto&&...) {});
  }

  // Replaces one value of a dataset of the sample, or of another file.
  void set_value(const char* dataset, std::vector<hsize_t> at, double value) const {
    set_value(file_, dataset, std::move(at), value);
  }
  static void set_value(const std::filesystem::path& path, const char* dataset, std::vector<hsize_t> at, double value) {
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t id = H5Dopen2(file, dataset, H5P_DEFAULT);
    const hid_t space = H5Dget_space(id);
    const std::vector<hsize_t> one(at.size(), 1);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, at.data(), nullptr, one.data(), nullptr);
    const hid_t memory = H5Screate_simple(static_cast<int>(one.size()), one.data(), nullptr);
    EXPECT_GE(H5Dwrite(id, H5T_NATIVE_DOUBLE, memory, space, H5P_DEFAULT, &value), 0);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(id);
    H5Fclose(file);
  }

  ScratchDirectory scratch_;
  SyntheticTrace options_;
  std::filesystem::path file_;
};

TEST_F(Validate, IsSilentOnWhatWeWrite) {
  for (const Codec codec : kCodecs) {
    options_.id = to_string(codec);
    options_.codec = codec;
    options_.all_queries = codec == Codec::zstd;
    write_synthetic_trace(scratch_.path(), options_);
  }
  write_trace_index(scratch_.path());
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(Validate, NamesAChangedValue) {
  set_value("layers/1/keys", {3, 0, 0}, 0.5);
  EXPECT_THAT(problems(), Contains(AllOf(HasSubstr("synthetic.h5: layers/1/keys"), HasSubstr("checksum"))));
}

TEST_F(Validate, NamesAnAnswerLongerThanItCouldBe) {
  options_.answer_limit = 10;
  write_synthetic_trace(scratch_.path(), options_);
  EXPECT_THAT(problems(), IsEmpty());
  options_.answer_limit = 9;
  write_synthetic_trace(scratch_.path(), options_);
  EXPECT_THAT(problems(), ElementsAre(HasSubstr("10 tokens of answer, answer_limit is 9")));
}

TEST_F(Validate, NamesWhatIsNotANumber) {
  set_value("layers/0/values", {7, 1, 2}, std::nan(""));
  EXPECT_THAT(problems(), Contains(AllOf(HasSubstr("layers/0/values"), HasSubstr("1 values are infinite"))));
}

TEST_F(Validate, NamesAttentionThatIsNone) {
  set_value("layers/0/attention", {2, 175, 40}, 0.5);  // a recorded query row
  const auto found = problems();
  EXPECT_THAT(found, Contains(AllOf(HasSubstr("layers/0/attention"), HasSubstr("row 175 of head 2 adds up to"))));
  set_value("layers/1/attention", {0, 10, 11}, 0.5);
  EXPECT_THAT(problems(), Contains(AllOf(HasSubstr("layers/1/attention"), HasSubstr("above the diagonal"))));
  set_value("layers/1/attention", {1, 22, 5}, 0.9);
  EXPECT_THAT(problems(), Contains(AllOf(HasSubstr("layers/1/attention"), HasSubstr("the softmax of queries"))));
}

TEST_F(Validate, NamesColumnSumsThatDoNotFit) {
  set_value("layers/1/column_sums", {1, 3, 20}, 9);
  const auto found = problems();
  EXPECT_THAT(found, Contains(AllOf(HasSubstr("layers/1/column_sums"), HasSubstr("the recorded attention"))));
  EXPECT_THAT(found, Contains(AllOf(HasSubstr("layers/1/column_sums"), HasSubstr("expected its 170 rows"))));
}

TEST_F(Validate, NamesWhatHiddenStatesCannotBe) {
  set_value("layers/0/hidden_scalars", {2, 3}, 999);
  set_value("layers/0/hidden_scalars", {1, 0}, -0.5);
  set_value("layers/1/attention_cosines", {7, 1}, 1.5);
  set_value("layers/1/hidden_unit_mean", {3, 5}, 2);
  const auto found = problems();
  EXPECT_THAT(found,
              Contains(HasSubstr("layers/0/hidden_scalars: effective_rank of stage res is 999, expected 0 to 32")));
  EXPECT_THAT(found,
              Contains(HasSubstr("layers/0/hidden_scalars: curvature of stage att is -0.5, expected 0 to 3.14")));
  EXPECT_THAT(found, Contains(HasSubstr("layers/1/attention_cosines: 1 values aren't cosines")));
  EXPECT_THAT(found, Contains(HasSubstr("layers/1/hidden_unit_mean: stage mlp has the norm")));
}

TEST_F(Validate, NamesWhatMaximaCannotBe) {
  set_value("layers/0/repeat_max", {0, 1, 40}, 1.5);
  set_value("layers/0/repeat_max", {0, 2, 1}, 0.25);  // before the context
  set_value("layers/1/repeat_max", {1, 0, 7}, 12);    // a quotient, which has no bound
  set_value("layers/1/repeat_max", {1, 0, 8}, -1);
  set_value("layers/1/repeat_max", {2, 3, 150}, 0.5);  // the question
  const auto found = problems();
  EXPECT_THAT(found, Contains(HasSubstr("layers/0/repeat_max: 1 values of row chunk are no shares of attention")));
  EXPECT_THAT(found,
              Contains(HasSubstr("layers/0/repeat_max: 1 values of row chunk outside of positions 3 to 150 aren't 0")));
  EXPECT_THAT(found, Contains(HasSubstr("layers/1/repeat_max: 1 values of row chunk_per_input are no finite numbers")));
  EXPECT_THAT(found,
              Contains(HasSubstr("layers/1/repeat_max: 1 values of row cache outside of positions 0 to 150 aren't 0")));
}

TEST_F(Validate, NamesDamagedWeightsAndThoseOfAnotherModel) {
  set_value(scratch_ / "weights.h5", "layers/1/output_projection", {3, 0}, std::nan(""));
  EXPECT_THAT(problems(), ElementsAre(AllOf(HasSubstr("weights.h5: layers/1/output_projection"), HasSubstr("checksum")),
                                      AllOf(HasSubstr("weights.h5: layers/1/output_projection"),
                                            HasSubstr("1 values are infinite"))));
  std::filesystem::remove(scratch_ / "weights.h5");
  SyntheticTrace other = options_;
  other.head_dim = 4;
  write_synthetic_weights(scratch_.path(), other);
  EXPECT_THAT(problems(), ElementsAre(HasSubstr("weights.h5: model: not that of the samples")));
  write_text(scratch_ / "weights.h5", "no HDF5");
  EXPECT_THAT(problems(), ElementsAre(HasSubstr("weights.h5: not an HDF5 file")));
}

TEST_F(Validate, NamesWhatTheIndexLacksAndWhatWasLeftBehind) {
  options_.id = "late";
  write_synthetic_trace(scratch_.path(), options_);
  write_text(scratch_ / ".gone.h5.partial", "half");
  EXPECT_THAT(problems(), ElementsAre(HasSubstr("count is 1"), HasSubstr("samples/late: missing"),
                                      HasSubstr(".gone.h5.partial: left behind")));
  std::filesystem::remove(scratch_ / "index.h5");
  EXPECT_THAT(problems(), Contains(HasSubstr("index.h5: missing")));
}

TEST_F(Validate, GoesOnAfterADamagedFile) {
  write_text(scratch_ / "a.h5", "not HDF5");
  set_value("layers/1/keys", {3, 0, 0}, 0.5);
  const auto found = problems();
  EXPECT_THAT(found, Contains(HasSubstr("a.h5: not an HDF5 file")));
  EXPECT_THAT(found, Contains(HasSubstr("layers/1/keys")));
}

TEST_F(Validate, IsACommand) {
  const CommandResult good = run_depthkv({"inspect", scratch_.path().string(), "--check"});
  EXPECT_EQ(good.exit_code, 0) << good.output << good.errors;
  set_value("layers/1/keys", {3, 0, 0}, 0.5);
  const CommandResult bad = run_depthkv({"inspect", scratch_.path().string(), "--check"});
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_THAT(bad.output, HasSubstr("layers/1/keys"));
}

}  // namespace
}  // namespace depthkv
