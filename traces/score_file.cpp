// SPDX-License-Identifier: Apache-2.0
#include "depthkv/score_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "depthkv/error.h"
#include "traces/checksum.h"
#include "traces/layout.h"
#include "traces/partial.h"

namespace depthkv {
namespace {

constexpr const char* kFormatName = "depthkv-scores";
constexpr std::string_view kLayer = "layer_";

std::string layer_name(int layer) { return fmt::format("{}{}", kLayer, layer); }

std::string checksum_of(std::span<const std::byte> bytes) {
  Checksum checksum;
  checksum.add(bytes);
  return checksum.text();
}

void write_matrix(const h5::Object& group, int layer, h5::Type type, const h5::Extent& extent, const auto& values) {
  const h5::Object dataset = h5::create_dataset(group, layer_name(layer), type, extent);
  h5::write(dataset, type, {{0, 0}, extent}, values.data());
  h5::write_attribute(dataset, layout::kChecksum, checksum_of(std::as_bytes(std::span(values))));
}

}  // namespace

std::string score_group_name(std::string_view label) {
  if (label == ".") return "%2E";  // HDF5 takes that for the group itself
  std::string name;
  for (const char c : label) name += c == '/' ? std::string("%2F") : std::string(1, c);
  return name;
}

struct ScoreFileWriter::Impl {
  PartialFile aside;
  h5::Object file;
  std::string sample;                           // that groups are of
  std::map<std::string, h5::Object> of_sample;  // open groups by path

  Impl(const std::filesystem::path& name, const ModelCard& model, Cut cut) : aside(name, PartialFile::IfBusy::fail) {
    const auto held = h5::lock();
    try {
      file = h5::create_file(aside.path());
      h5::write_attribute(file, "format", std::string(kFormatName));
      h5::write_attribute(file, "version", layout::kVersion);
      h5::write_attribute(file, "model", model.name);
      h5::write_attribute(file, "model_fingerprint", model.fingerprint);
      h5::write_attribute(file, "cut", std::string(to_string(cut)));
    } catch (...) {
      file = {};
      throw;
    }
  }

  ~Impl() {
    const auto held = h5::lock();
    of_sample.clear();
    file = {};
  }

  // The group of a source, made when it is first asked for.
  const h5::Object& group_of(const std::string& id, const ScoreSource& source) {
    if (of_sample.empty() || id != sample) {
      of_sample.clear();
      sample = id;
      const h5::Object& group = of_sample[""] = h5::create_group(file, score_group_name(id));
      h5::write_attribute(group, "id", id);
    }
    const std::string name = score_group_name(source.label);
    if (const auto found = of_sample.find(name); found != of_sample.end()) return found->second;
    const h5::Object& group = of_sample[name] = h5::create_group(of_sample[""], name);
    h5::write_attribute(group, "label", source.label);
    for (const auto& [key, value] : source.attributes) h5::write_attribute(group, key, value);
    return group;
  }

  const h5::Object& group_of(const std::string& id, const ScoreSource& source, double keep) {
    const h5::Object& parent = group_of(id, source);
    const std::string name = fmt::format("keep_{}", keep);
    const std::string path = score_group_name(source.label) + "/" + name;
    if (const auto found = of_sample.find(path); found != of_sample.end()) return found->second;
    return of_sample[path] = h5::create_group(parent, name);
  }
};

ScoreFileWriter::ScoreFileWriter(const std::filesystem::path& file, const ModelCard& model, Cut cut)
    : impl_(std::make_unique<Impl>(file, model, cut)) {}
ScoreFileWriter::ScoreFileWriter(ScoreFileWriter&&) noexcept = default;
ScoreFileWriter::~ScoreFileWriter() = default;

void ScoreFileWriter::add_scores(const std::string& sample, const ScoreSource& scorer, int layer, const View& scores) {
  std::vector<float> values;
  for (std::int64_t g = 0; g < scores.heads; ++g) {
    const auto row = scores.row(g, 0);
    values.insert(values.end(), row.begin(), row.end());
  }
  const auto held = h5::lock();
  write_matrix(impl_->group_of(sample, scorer), layer, h5::Type::f32,
               {static_cast<hsize_t>(scores.heads), static_cast<hsize_t>(scores.columns)}, values);
}

void ScoreFileWriter::add_kept(const std::string& sample, const ScoreSource& policy, double keep, int layer,
                               const std::vector<std::vector<std::uint32_t>>& kept) {
  std::size_t most = 0;
  for (const auto& head : kept) most = std::max(most, head.size());
  std::vector<std::int32_t> values(kept.size() * most, -1);
  for (std::size_t g = 0; g < kept.size(); ++g)
    std::ranges::copy(kept[g], values.begin() + static_cast<std::ptrdiff_t>(g * most));
  const auto held = h5::lock();
  write_matrix(impl_->group_of(sample, policy, keep), layer, h5::Type::i32, {kept.size(), most}, values);
}

void ScoreFileWriter::finish() {
  {
    const auto held = h5::lock();
    impl_->of_sample.clear();
    h5::flush(impl_->file);
    impl_->file = {};
  }
  impl_->aside.publish();
}

struct ScoreFile::Impl {
  std::filesystem::path path;
  h5::Object file;

  // All reading goes through here: under the lock, and with a word on what the file should be.
  template <class Work>
  auto reading(Work work) const {
    const auto held = h5::lock();
    try {
      return work();
    } catch (const Error& error) {
      throw Error(fmt::format("{} (expected scores as `depthkv replay --dump-scores` writes them)", error.what()));
    }
  }

  std::vector<std::string> scorers(const std::string& sample) const {
    std::vector<std::string> found;
    if (!h5::has(file, score_group_name(sample))) return found;
    const h5::Object group = h5::open_group(file, score_group_name(sample));
    for (const std::string& name : h5::names(group)) {
      const auto inside = h5::names(h5::open_group(group, name));
      // Beside scorers, a policy's kept positions may be there.
      if (std::ranges::any_of(inside, [](const std::string& x) { return x.starts_with(kLayer); }))
        found.push_back(name);
    }
    return found;
  }

  h5::Object scorer_group(const std::string& sample, const std::string& scorer) const {
    const std::string id = score_group_name(sample);
    if (!h5::has(file, id))
      throw Error(fmt::format("{}: holds no scores of sample \"{}\"; it holds {}", path.string(), sample,
                              listed(h5::names(file))));
    const std::vector<std::string> there = scorers(sample);
    if (scorer.empty() && there.size() != 1)
      throw Error(fmt::format("{}: holds the scores of {} scorers for sample \"{}\", so one has to be named: {}",
                              path.string(), there.size(), sample, listed(there)));
    const std::string name = scorer.empty() ? there.front() : score_group_name(scorer);
    if (std::ranges::find(there, name) == there.end())
      throw Error(fmt::format("{}: holds no scorer \"{}\" for sample \"{}\"{}; it holds {}", path.string(), scorer,
                              sample, suggestion(name, there), listed(there)));
    return h5::open_group(h5::open_group(file, id), name);
  }

  Tensor scores(const std::string& sample, int layer, const std::string& scorer) const {
    const h5::Object group = scorer_group(sample, scorer);
    if (!h5::has(group, layer_name(layer)))
      throw Error(fmt::format("{}: no {}; it holds {}", group.name, layer_name(layer), listed(h5::names(group))));
    const h5::Object dataset = h5::open_dataset(group, layer_name(layer));
    const h5::Extent extent = h5::check_dataset(dataset, h5::Type::f32, 2);
    Tensor scores(static_cast<std::int64_t>(extent[0]), 1, static_cast<std::int64_t>(extent[1]));
    h5::read(dataset, h5::Type::f32, {{0, 0}, extent}, scores.values().data());
    if (h5::has_attribute(dataset, layout::kChecksum) &&
        h5::text_attribute(dataset, layout::kChecksum) != checksum_of(std::as_bytes(scores.values())))
      throw Error(
          fmt::format("{}: the values don't have the checksum that the attribute says; the file is damaged, or "
                      "was changed: then remove the attribute",
                      dataset.name));
    return scores;
  }

  static std::string listed(const std::vector<std::string>& names) {
    constexpr std::size_t kMost = 8;
    if (names.empty()) return "nothing";
    std::string text;
    for (std::size_t i = 0; i < std::min(kMost, names.size()); ++i) text += (i > 0 ? ", " : "") + names[i];
    return names.size() > kMost ? fmt::format("{} and {} more", text, names.size() - kMost) : text;
  }
};

ScoreFile::ScoreFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ScoreFile::ScoreFile(ScoreFile&&) noexcept = default;
ScoreFile::~ScoreFile() {
  const auto held = h5::lock();
  impl_.reset();
}

ScoreFile ScoreFile::open(const std::filesystem::path& file) {
  auto impl = std::make_unique<Impl>();
  impl->path = file;
  impl->file = impl->reading([&] { return h5::open_file(file); });
  return ScoreFile(std::move(impl));
}

std::vector<std::string> ScoreFile::scorers(const std::string& sample) const {
  return impl_->reading([&] { return impl_->scorers(sample); });
}

bool ScoreFile::has(const std::string& sample, int layer, const std::string& scorer) const {
  return impl_->reading([&] {
    const std::vector<std::string> there = impl_->scorers(sample);
    const bool known =
        scorer.empty() ? there.size() == 1 : std::ranges::find(there, score_group_name(scorer)) != there.end();
    return known && h5::has(impl_->scorer_group(sample, scorer), layer_name(layer));
  });
}

Tensor ScoreFile::scores(const std::string& sample, int layer, const std::string& scorer) const {
  return impl_->reading([&] { return impl_->scores(sample, layer, scorer); });
}

std::string ScoreFile::content_hash() const { return file_checksum(impl_->path); }

}  // namespace depthkv
