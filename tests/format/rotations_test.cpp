// SPDX-License-Identifier: Apache-2.0
// Rotations in the model card: written, read, refused where they can't be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cmath>
#include <complex>
#include <cstdlib>
#include <limits>

#include "depthkv/error.h"
#include "depthkv/progress.h"
#include "depthkv/registry.h"
#include "depthkv/replay.h"
#include "replay/features.h"
#include "support/command.h"
#include "support/scratch.h"
#include "support/source.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

// All of a head, a part of it with a magnitude, nothing.
SyntheticTrace rotated_trace() {
  SyntheticTrace options;
  options.rotary_layout = "half_split";
  options.rotations = {{{1, 0.1, 0.01, 0.0001234567890123}, 1}, {{0.5, 0}, 1.25}, {}};
  options.moments = true;
  options.all_queries = true;
  return options;
}

// Moments follow from the rotation, which must be one for that.
SyntheticTrace without_moments() {
  SyntheticTrace options = rotated_trace();
  options.moments = false;
  return options;
}

class Rotations : public testing::Test {
 protected:
  std::string complaint(const SyntheticTrace& options) {
    return complaint(write_synthetic_trace(scratch_.path(), options));
  }
  std::string complaint(const std::filesystem::path& file) {
    try {
      Trace::open(file);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("synthetic.h5"));
      return error.what();
    }
    return "";
  }
  // Of the file with a dataset of other values, or without it.
  std::string complaint_with(const char* name, hid_t type, const std::vector<hsize_t>& extent) {
    const std::filesystem::path path = write_synthetic_trace(scratch_.path(), rotated_trace());
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    EXPECT_GE(H5Ldelete(file, name, H5P_DEFAULT), 0);
    if (!extent.empty()) {
      const hid_t space = H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr);
      const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      EXPECT_GE(dataset, 0);
      H5Dclose(dataset);
      H5Sclose(space);
    }
    H5Fclose(file);
    return complaint(path);
  }

  ScratchDirectory scratch_;
};

TEST_F(Rotations, ReadBackAsWritten) {
  const SyntheticTrace options = rotated_trace();
  const Trace trace = Trace::open(write_synthetic_trace(scratch_.path(), options));
  EXPECT_EQ(trace.model(), synthetic_card(options));
  EXPECT_EQ(trace.model().rotations, options.rotations);
  write_trace_index(scratch_.path());
  EXPECT_THAT(validate_trace_set(scratch_.path(), kQuiet), testing::IsEmpty());
}

TEST_F(Rotations, AreReadByH5py) {
  const char* python = std::getenv("DEPTHKV_PYTHON");
  ASSERT_NE(python, nullptr) << "DEPTHKV_PYTHON names a Python with h5py; scripts/env.sh sets it";
  write_synthetic_trace(scratch_.path(), rotated_trace());
  write_trace_index(scratch_.path());
  const std::string script = kSource / "tests/format/read_with_h5py.py";
  const CommandResult result = run_command({python, script, scratch_.path().string()});
  EXPECT_EQ(result.exit_code, 0) << result.errors;
}

TEST_F(Rotations, ReachThePolicies) {
  const SyntheticTrace options = rotated_trace();
  const Trace trace = Trace::open(write_synthetic_trace(scratch_.path(), options));
  LoadRequest request;
  request.needs = needs({Feature::unrotated_keys});
  for (int layer = 0; layer < 3; ++layer) {
    const LayerData data = load_layer(trace, layer, request, ops_for(Device::cpu));
    const LayerRotation& rotation = options.rotations[static_cast<std::size_t>(layer)];
    EXPECT_EQ(data.features.rotary.frequencies, rotation.frequencies);
    EXPECT_EQ(data.features.rotary.magnitude, rotation.magnitude);
    const View& keys = data.features.keys;
    const auto pairs = rotation.frequencies.size();
    for (std::int64_t j = 0; j < keys.rows; ++j)
      for (std::size_t c = 0; c < pairs; ++c) {
        const std::complex<double> turned(double{keys.row(1, j)[c]}, double{keys.row(1, j)[c + pairs]});
        const std::complex<double> back =
            turned / std::polar(rotation.magnitude, static_cast<double>(j) * rotation.frequencies[c]);
        ASSERT_NEAR(data.features.unrotated_keys.row(1, j)[c], back.real(), 1e-5) << layer << ", " << j;
        ASSERT_NEAR(data.features.unrotated_keys.row(1, j)[c + pairs], back.imag(), 1e-5) << layer << ", " << j;
      }
    for (std::int64_t j = 0; j < keys.rows; ++j)
      for (std::size_t c = 2 * pairs; c < 8; ++c)
        ASSERT_EQ(data.features.unrotated_keys.row(1, j)[c], keys.row(1, j)[c]);
  }
}

// Sets recorded before and after rotations were, or beyond Phi-3's short context.
TEST_F(Rotations, MayDifferWithinASet) {
  SyntheticTrace options = rotated_trace();
  write_synthetic_trace(scratch_.path(), options);
  options.id = "base";
  options.rotations = {};
  write_synthetic_trace(scratch_.path(), options);
  write_synthetic_weights(scratch_.path(), options);
  write_trace_index(scratch_.path());
  EXPECT_THAT(validate_trace_set(scratch_.path(), kQuiet), testing::IsEmpty());
  ReplayPlan plan;
  plan.scorers = {{"expected_attention", {}, ""}, {"leverage", {}, ""}};
  EXPECT_EQ(replay(open_trace_set(scratch_.path()), plan, builtin_policies(), kQuiet).samples.size(), 2U);
  options.rotary_layout = "interleaved";
  options.id = "other";
  write_synthetic_trace(scratch_.path(), options);
  EXPECT_THROW(replay(open_trace_set(scratch_.path()), plan, builtin_policies(), kQuiet), InputError);
}

TEST_F(Rotations, ThatCannotBeAreErrors) {
  const double values[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -0.5};
  for (const double x : values) {
    SyntheticTrace options = without_moments();
    options.rotations[0].frequencies[2] = x;
    EXPECT_THAT(complaint(options), HasSubstr("rotary_frequencies: expected finite numbers, 0 or more")) << x;
    options = without_moments();
    options.rotations[2].magnitude = x;
    EXPECT_THAT(complaint(options), HasSubstr("rotary_magnitudes: expected finite numbers above 0")) << x;
  }
  SyntheticTrace options = without_moments();
  options.rotations[1].magnitude = 0;
  EXPECT_THAT(complaint(options), HasSubstr("rotary_magnitudes"));
  options = without_moments();
  options.rotations.pop_back();
  EXPECT_THAT(complaint(options), HasSubstr("rotary_dimensions: 2 of them for 3 layers"));
  options = without_moments();
  options.rotations[0].frequencies.resize(5);
  EXPECT_THAT(complaint(options), HasSubstr("rotary_dimensions: 10 in layer 0, expected an even number up to 8"));
  options = without_moments();
  options.rotary_layout = "spiral";
  EXPECT_THAT(complaint(options), HasSubstr("rotary_layout: \"spiral\""));
}

TEST_F(Rotations, OfAnotherShapeAreErrors) {
  const hid_t reals = H5T_IEEE_F64LE;
  EXPECT_THAT(complaint_with("model/rotary_frequencies", reals, {3, 5}),
              HasSubstr("has the shape 3 x 5, expected 3 x 4"));
  EXPECT_THAT(complaint_with("model/rotary_frequencies", reals, {2, 4}), HasSubstr("has the shape 2 x 4"));
  EXPECT_THAT(complaint_with("model/rotary_frequencies", reals, {12}),
              HasSubstr("rotary_frequencies: has 1 dimensions"));
  EXPECT_THAT(complaint_with("model/rotary_frequencies", H5T_IEEE_F32LE, {3, 4}), HasSubstr("expected values of type"));
  EXPECT_THAT(complaint_with("model/rotary_magnitudes", reals, {4}), HasSubstr("rotary_magnitudes: has the shape 4"));
  EXPECT_THAT(complaint_with("model/rotary_magnitudes", reals, {}), HasSubstr("rotary_magnitudes"));
  EXPECT_THAT(complaint_with("model/rotary_dimensions", reals, {3}), HasSubstr("expected whole numbers"));
  EXPECT_THAT(complaint_with("model/rotary_dimensions", H5T_STD_I64LE, {4}), HasSubstr("4 of them for 3 layers"));
}

TEST_F(Rotations, ThatNobodyCanUndoSkipWhatUndoesThem) {
  SyntheticTrace options = rotated_trace();
  options.rotary_layout = "other";
  options.rotations = {};
  write_synthetic_trace(scratch_.path(), options);
  ReplayPlan plan;
  plan.scorers = {{"leverage", {}, ""}, {"expected_attention", {}, ""}, {"knorm", {}, ""}};
  const ResultTable table = replay(open_trace_set(scratch_.path()), plan, builtin_policies(), kQuiet);
  const std::vector<std::string>& skipped = table.samples[0].ranker_skipped;
  EXPECT_THAT(skipped[0], HasSubstr("rotary_layout: other"));
  EXPECT_THAT(skipped[1], HasSubstr("rotary_layout: other"));
  EXPECT_EQ(skipped[2], "");
}

}  // namespace
}  // namespace depthkv
