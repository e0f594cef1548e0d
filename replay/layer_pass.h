// SPDX-License-Identifier: Apache-2.0
// The expensive half of replay: a sample's layers read once, ranked and priced for every ranker at once.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "replay/curve_file.h"
#include "replay/features.h"

namespace depthkv {

// A sample under a plan's policies: what can run, and the curves of what does, from the cache or made by run().
class SampleCurves {
 public:
  SampleCurves(const Trace& trace, const ReplayPlan& plan, const Policies& policies);
  ~SampleCurves();

  // Why a policy's part can't be had, or empty.
  std::vector<std::string> ranker_skipped;
  std::vector<std::string> layer_skipped;
  std::vector<std::string> head_skipped;

  // Makes what isn't there yet for these rankers and all allocators.
  void run(const std::vector<bool>& rankers);

  // What run() made; made again where a file of the cache turns out damaged.
  RankedSample load(Variant variant);
  const Measured& measured_by_layers(std::size_t layer_allocator) const { return by_layers_[layer_allocator]; }
  const Measured& measured_by_heads(std::size_t head_allocator) const { return by_heads_[head_allocator]; }

 private:
  class Pass;
  struct Scratch;

  std::string key_of(Variant variant) const;
  std::string key_of(const char* kind, const std::string& name, const std::string& params) const;
  std::filesystem::path file_of(const std::string& key) const;
  void open_folder();
  template <class Allocator>
  void find_measured(const std::vector<Allocator>& allocators, const std::vector<std::string>& skipped,
                     const char* kind, std::vector<Measured>& found, std::vector<std::size_t>& wanted) const;

  const Trace& trace_;
  const ReplayPlan& plan_;
  const Policies& policies_;
  std::string trace_key_;
  std::filesystem::path folder_;
  std::unique_ptr<Scratch> scratch_;  // where there is no cache
  std::size_t layers_ = 0;
  std::vector<Measured> by_layers_;
  std::vector<Measured> by_heads_;
};

// Throws InputError unless what was summed over a layer's judged rows are numbers: others would look like no loss.
void expect_numbers(const Trace& trace, int layer, bool are);

// Attention of the observed rows that allocators measure curves on. They see nothing at or after the cut, so those
// columns are cut off.
View observed_window(const LayerData& data, std::int64_t rows);

// A layer's data for all that a set of policies needs.
LoadRequest load_request(const ReplayPlan& plan, const Needs& needs);

}  // namespace depthkv
