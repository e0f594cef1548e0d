// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <map>

#include "traces/checks.h"
#include "traces/layout.h"

namespace depthkv {

void check_index(const TraceSet& set, std::vector<std::string>& problems) {
  const std::filesystem::path path = set.directory / layout::kIndexFile;
  const auto add = [&](const std::string& what) { problems.push_back(fmt::format("{}: {}", path.string(), what)); };
  if (!std::filesystem::exists(path)) return add("missing; `depthkv trace` writes it");
  const auto held = h5::lock();
  const h5::Object file = h5::open_file(path);
  if (const std::string format = h5::text_attribute(file, "format"); format != layout::kIndexFormat)
    add(fmt::format("format is \"{}\", expected \"{}\"", format, layout::kIndexFormat));
  if (const std::int64_t version = h5::integer_attribute(file, "version"); version != layout::kVersion)
    add(fmt::format("version {}, expected {}", version, layout::kVersion));
  std::map<std::string, std::string> expected;
  for (const auto& sample : set.files) expected[sample.stem().string()] = sample.filename().string();
  const auto count = static_cast<std::size_t>(h5::integer_attribute(file, "count"));
  if (count != expected.size()) add(fmt::format("count is {}, the folder holds {} samples", count, expected.size()));
  for (const auto& [name, target] : h5::external_links(h5::open_group(file, "samples"))) {
    const auto it = expected.find(name);
    if (it == expected.end() || it->second != target) {
      add(fmt::format("samples/{}: leads to {}, which isn't a sample of this folder", name, target));
    } else {
      expected.erase(it);
    }
  }
  for (const auto& [name, target] : expected) add(fmt::format("samples/{}: missing, {} is there", name, target));
  bool linked = false;
  for (const auto& [name, target] : h5::external_links(file)) {
    linked = linked || (name == "weights" && target == layout::kWeightsFile);
    if (name == "weights" && target != layout::kWeightsFile)
      add(fmt::format("weights: leads to {}, expected {}", target, layout::kWeightsFile));
  }
  if (linked != TraceWeights::in(set.directory))
    add(fmt::format("weights: {}", linked ? fmt::format("leads to {}, which isn't there", layout::kWeightsFile)
                                          : fmt::format("missing, {} is there", layout::kWeightsFile)));
}

}  // namespace depthkv
