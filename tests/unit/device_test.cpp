// SPDX-License-Identifier: Apache-2.0
// What Device::cuda means where there is CUDA and where there is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/plan.h"
#include "depthkv/error.h"
#include "kernels/cuda_backend.h"
#include "support/files.h"
#include "support/scratch.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

const Ops& other_ops() { return ops_for(Device::reference); }
cuda::Devices two_devices() { return {{"one, 80 GiB", "two, 40 GiB"}, ""}; }
std::optional<int> nowhere(const View&, const HalfRows&) { return std::nullopt; }
cuda::Devices no_device() { return {{}, "the driver is too old"}; }

TEST(Devices, CudaIsTheBackendWhereThereIsADevice) {
  const UseCudaBackend with({other_ops, two_devices, nowhere, nullptr});
  EXPECT_EQ(&ops_for(Device::cuda), &ops_for(Device::reference));
  EXPECT_EQ(fastest_device(), Device::cuda);
  EXPECT_EQ(cuda_summary(), "one, 80 GiB; two, 40 GiB");
  EXPECT_EQ(device_count(Device::cuda), 2);
  EXPECT_EQ(device_count(Device::cpu), 1);
}

TEST(Devices, WhereThereIsNoneTheErrorSaysWhyAndWhatToDo) {
  const UseCudaBackend with({other_ops, no_device, nowhere, nullptr});
  EXPECT_EQ(fastest_device(), Device::cpu);
  EXPECT_EQ(cuda_summary(), "none (the driver is too old)");
  try {
    ops_for(Device::cuda);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("the driver is too old"));
    EXPECT_THAT(error.what(), HasSubstr("device: cpu, or auto"));
  }
}

TEST(Devices, PlansNameOneOrTakeTheFastest) {
  const ScratchDirectory scratch;
  const auto device = [&](const std::string& name) {
    const auto file = write_text(scratch / "plan.yaml", "traces: t\nreplay: {device: " + name + "}\n");
    return load_plan(file, {}, builtin_policies()).replay.device;
  };
  {
    const UseCudaBackend with({other_ops, two_devices, nowhere, nullptr});
    EXPECT_EQ(device("auto"), Device::cuda);
    EXPECT_EQ(device("cuda"), Device::cuda);
    EXPECT_EQ(device("cpu"), Device::cpu);
  }
  const UseCudaBackend without({other_ops, no_device, nowhere, nullptr});
  EXPECT_EQ(device("auto"), Device::cpu);
  EXPECT_EQ(device("cuda"), Device::cuda);  // refused when it is used, so that a finished run can be read anywhere
  EXPECT_EQ(device("reference"), Device::reference);
}

TEST(Devices, HaveTheNamesThatPlansGiveThem) {
  EXPECT_EQ(to_string(Device::cpu), "cpu");
  EXPECT_EQ(to_string(Device::reference), "reference");
  EXPECT_EQ(to_string(Device::cuda), "cuda");
}

}  // namespace
}  // namespace depthkv
