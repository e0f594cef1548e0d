// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"
#include "depthkv/trace.h"
#include "traces/layout.h"
#include "traces/partial.h"

namespace depthkv {
namespace {

bool is_sample(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".h5") && name != layout::kIndexFile && name != layout::kWeightsFile && name.front() != '.' &&
         std::filesystem::is_regular_file(file);
}

std::vector<std::filesystem::path> sample_files(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (is_sample(entry.path())) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::string trace_library_version() {
  const auto held = h5::lock();
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  H5get_libversion(&major, &minor, &release);
  std::string codecs;
  for (const Codec codec : kCodecs) codecs += fmt::format("{}{}", codecs.empty() ? "" : ", ", to_string(codec));
  return fmt::format("{}.{}.{}, codecs {}", major, minor, release, codecs);
}

bool same_model(const ModelCard& a, const ModelCard& b) {
  ModelCard other = b;
  other.rotations = a.rotations;
  return a == other;
}

std::vector<int> prunable_layers(const ModelCard& model) {
  std::vector<int> layers;
  for (std::size_t l = 0; l < model.layers.size(); ++l)
    if (model.layers[l].window == 0) layers.push_back(static_cast<int>(l));
  return layers;
}

Shape prunable_shape(const ModelCard& model, std::int64_t tokens) {
  Shape shape{tokens, {}};
  for (const int layer : prunable_layers(model)) shape.layers.push_back(model.layers[static_cast<std::size_t>(layer)]);
  return shape;
}

TraceSet open_trace_set(const std::filesystem::path& directory) {
  if (is_sample(directory)) return {directory.parent_path(), {directory}};
  if (!std::filesystem::is_directory(directory))
    throw InputError(fmt::format("{}: no such folder; record one with `depthkv trace --out`", directory.string()));
  TraceSet set{directory, sample_files(directory)};
  if (set.files.empty())
    throw InputError(
        fmt::format("{}: holds no finished sample; record some with `depthkv trace --out`", directory.string()));
  return set;
}

std::string trace_file_name(std::string_view sample_id) {
  std::string name;
  for (const char c : sample_id) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                       c == '-' || (c == '.' && !name.empty());
    name += plain ? c : '_';
  }
  return (name.empty() || name == "index" || name == "weights" ? "_" + name : name) + ".h5";
}

void write_trace_index(const std::filesystem::path& directory) {
  // Waits its turn, and lists the samples then, so that of several processes the last one sees all.
  PartialFile aside(directory / layout::kIndexFile, PartialFile::IfBusy::wait);
  const std::vector<std::filesystem::path> files = sample_files(directory);
  {
    const auto held = h5::lock();
    const h5::Object file = h5::create_file(aside.path());
    h5::write_attribute(file, "format", std::string(layout::kIndexFormat));
    h5::write_attribute(file, "version", layout::kVersion);
    h5::write_attribute(file, "count", static_cast<std::int64_t>(files.size()));
    const h5::Object group = h5::create_group(file, "samples");
    for (const auto& sample : files) h5::link_external(group, sample.stem().string(), sample.filename().string(), "/");
    if (std::filesystem::exists(directory / layout::kWeightsFile))
      h5::link_external(file, "weights", layout::kWeightsFile, "/");
    h5::flush(file);
  }
  aside.publish();
}

}  // namespace depthkv
