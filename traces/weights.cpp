// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "depthkv/error.h"
#include "depthkv/trace.h"
#include "kernels/half.h"
#include "traces/checks.h"
#include "traces/checksum.h"
#include "traces/describe.h"
#include "traces/layout.h"
#include "traces/partial.h"

namespace depthkv {
namespace {

constexpr Channel kProjection = Channel::output_projection;

h5::Extent extent_of_projection(const ModelCard& model, int layer) {
  return layout::extent(kProjection, model, layer, 0, {});
}

// Hold h5::lock() as long as one lives.
struct WeightsFile {
  std::filesystem::path path;
  h5::Object file;
  ModelCard model;

  explicit WeightsFile(const std::filesystem::path& name) : path(name) {
    file = h5::open_file(path);
    if (const std::string format = h5::text_attribute(file, "format"); format != layout::kWeightsFormat)
      throw Error(fmt::format("{}: format is \"{}\", expected \"{}\"", path.string(), format, layout::kWeightsFormat));
    if (const std::int64_t version = h5::integer_attribute(file, "version"); version != layout::kVersion)
      throw Error(fmt::format("{}: format version {}, this build reads {}; use a matching depthkv, or record again",
                              path.string(), version, layout::kVersion));
    model = read_card(file);
    for (int layer = 0; layer < static_cast<int>(model.layers.size()); ++layer) {
      const h5::Object projection = dataset(layer);
      const h5::Extent expected = extent_of_projection(model, layer);
      h5::expect_extent(projection, h5::check_dataset(projection, layout::type_of(kProjection), 2), expected);
    }
  }

  h5::Object dataset(int layer) const {
    const h5::Object layers = h5::open_group(file, "layers");
    return h5::open_dataset(h5::open_group(layers, std::to_string(layer)), std::string(to_string(kProjection)));
  }

  std::vector<std::uint16_t> halves(int layer) const {
    const h5::Extent extent = extent_of_projection(model, layer);
    std::vector<std::uint16_t> values(extent[0] * extent[1]);
    h5::read(dataset(layer), layout::type_of(kProjection), {{0, 0}, extent}, values.data());
    return values;
  }

  // A dataset's checksum as it says and as it is.
  bool checksum_fits(int layer) const {
    const std::vector<std::uint16_t> values = halves(layer);
    Checksum checksum;
    checksum.add(std::as_bytes(std::span(values)));
    const h5::Object projection = dataset(layer);
    return h5::has_attribute(projection, layout::kChecksum) &&
           h5::text_attribute(projection, layout::kChecksum) == checksum.text();
  }
};

bool has_weights_of(const std::filesystem::path& file, const ModelCard& model) {
  if (!std::filesystem::exists(file)) return false;
  const auto held = h5::lock();
  try {
    const WeightsFile found(file);
    if (!same_model(found.model, model)) return false;
    for (int layer = 0; layer < static_cast<int>(model.layers.size()); ++layer)
      if (!found.checksum_fits(layer)) return false;
    return true;
  } catch (const Error&) {
    return false;
  }
}

void write_projection(const h5::Object& layers, const ModelCard& model, int layer, const Tensor& weights) {
  const h5::Extent extent = extent_of_projection(model, layer);
  if (weights.values().size() != extent[0] * extent[1])
    throw Error(fmt::format("the output projection of layer {} has {} weights, expected {} x {}", layer,
                            weights.values().size(), extent[0], extent[1]));
  std::vector<std::uint16_t> halves(weights.values().size());
  to_half(weights.values(), halves);
  Checksum checksum;
  checksum.add(std::as_bytes(std::span(halves)));
  const h5::Object group = h5::create_group(layers, std::to_string(layer));
  const h5::Object dataset =
      h5::create_dataset(group, std::string(to_string(kProjection)), layout::type_of(kProjection), extent);
  h5::write(dataset, layout::type_of(kProjection), {{0, 0}, extent}, halves.data());
  h5::write_attribute(dataset, layout::kChecksum, checksum.text());
}

}  // namespace

struct TraceWeights::Impl : WeightsFile {
  using WeightsFile::WeightsFile;
};

TraceWeights::TraceWeights(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TraceWeights::TraceWeights(TraceWeights&&) noexcept = default;
TraceWeights& TraceWeights::operator=(TraceWeights&& other) noexcept {
  const auto held = h5::lock();
  impl_ = std::move(other.impl_);
  return *this;
}
TraceWeights::~TraceWeights() {
  const auto held = h5::lock();
  impl_.reset();
}

bool TraceWeights::in(const std::filesystem::path& directory) {
  return std::filesystem::exists(directory / layout::kWeightsFile);
}

TraceWeights TraceWeights::open(const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / layout::kWeightsFile;
  if (!in(directory))
    throw InputError(fmt::format("{}: holds no {}; record it with the channel {}", directory.string(),
                                 layout::kWeightsFile, to_string(kProjection)));
  const auto held = h5::lock();
  return TraceWeights(std::make_unique<Impl>(file));
}

const ModelCard& TraceWeights::model() const { return impl_->model; }

Tensor TraceWeights::output_projection(int layer) const {
  const LayerShape& shape = impl_->model.layers.at(static_cast<std::size_t>(layer));
  const auto held = h5::lock();
  Tensor projection(shape.query_heads, shape.head_dim, impl_->model.embedding);
  from_half(impl_->halves(layer), projection.values());
  return projection;
}

void write_trace_weights(const std::filesystem::path& directory, const ModelCard& model,
                         const std::function<Tensor(int layer)>& output_projection) {
  const std::filesystem::path target = directory / layout::kWeightsFile;
  if (has_weights_of(target, model)) return;
  PartialFile aside(target, PartialFile::IfBusy::wait);
  if (has_weights_of(target, model)) return;  // another process has made it meanwhile
  const auto held = h5::lock();
  {
    const h5::Object file = h5::create_file(aside.path());
    h5::write_attribute(file, "format", std::string(layout::kWeightsFormat));
    h5::write_attribute(file, "version", layout::kVersion);
    write_card(file, model);
    const h5::Object layers = h5::create_group(file, "layers");
    for (int layer = 0; layer < static_cast<int>(model.layers.size()); ++layer)
      write_projection(layers, model, layer, output_projection(layer));
    h5::flush(file);
  }
  aside.publish();
}

void check_weights(const std::filesystem::path& directory, const ModelCard& model, std::vector<std::string>& problems) {
  const std::filesystem::path file = directory / layout::kWeightsFile;
  if (!std::filesystem::exists(file)) return;
  const auto held = h5::lock();
  try {
    const WeightsFile weights(file);
    if (!same_model(weights.model, model))
      problems.push_back(
          fmt::format("{}: model: not that of the samples, expected one for the whole set", file.string()));
    for (int layer = 0; layer < static_cast<int>(weights.model.layers.size()); ++layer) {
      const std::string name =
          fmt::format("{}: {}/{}", file.string(), layout::layer_group(layer), to_string(kProjection));
      if (!weights.checksum_fits(layer))
        problems.push_back(fmt::format("{}: the values don't have the checksum that the attribute says", name));
      std::vector<std::uint16_t> halves = weights.halves(layer);
      const auto broken = std::ranges::count_if(halves, [](std::uint16_t x) { return !std::isfinite(from_half(x)); });
      if (broken > 0)
        problems.push_back(fmt::format("{}: {} values are infinite or not numbers, expected none", name, broken));
    }
  } catch (const Error& error) {
    problems.emplace_back(error.what());
  }
}

}  // namespace depthkv
