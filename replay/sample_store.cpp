// SPDX-License-Identifier: Apache-2.0
// A file: "DKVROWS1", XXH64 of the rest as text, then MessagePack of [key, what was put].
#include "replay/sample_store.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <variant>
#include <vector>

#include "depthkv/version.h"
#include "replay/csv.h"
#include "traces/checksum.h"

namespace depthkv {
namespace {

constexpr std::string_view kMagic = "DKVROWS1";
constexpr std::string_view kEnding = ".rows";
constexpr std::size_t kChecksum = 16;

std::string checksum_of(std::string_view bytes) {
  Checksum sum;
  sum.add(std::as_bytes(std::span(bytes)));
  return sum.text();
}

template <class Policy>
std::string text_of(const char* kind, const Policy& policy) {
  std::string text = fmt::format("\n{} {} {}", kind, policy.name, policy.params);
  for (const auto& [name, value] : policy.param_values) {
    const std::string* file = name == "file" ? std::get_if<std::string>(&value) : nullptr;
    if (file != nullptr && !file->empty()) text += " holding " + file_checksum(*file);
  }
  return text;
}

}  // namespace

std::string sample_key(const ModelCard& model, const Trace& trace, const ReplayPlan& plan) {
  return fmt::format("model {} engine {} device {}\ntrace {} cut {} observed {} replayed on {} build {}",
                     model.fingerprint, model.engine, model.device, trace.content_hash(), to_string(plan.cut),
                     plan.observed_rows, to_string(plan.device), kSourcesHash);
}

std::string choice_key(const Policies& policies, const PolicyChoice& choice) {
  const Ranker& ranker = policies.rankers[choice.policy.ranker];
  return text_of("scorer", ranker.scorer) + ranker.scorer.source + text_of("structure", ranker.structure) +
         fmt::format("\nprotect {}+{}", ranker.protect.first, ranker.protect.last) +
         text_of("layers", policies.layer_allocators[choice.policy.layer_allocator]) +
         text_of("heads", policies.head_allocators[choice.policy.head_allocator]) +
         fmt::format("\nkeep {}", choice.keep);
}

std::filesystem::path SampleStore::file_of(const std::string& sample) const {
  return folder_ / (sample + std::string(kEnding));
}

std::optional<nlohmann::json> SampleStore::take(const std::string& sample, const std::string& key) const {
  if (folder_.empty()) return std::nullopt;
  std::ifstream stream(file_of(sample), std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  const std::size_t start = kMagic.size() + kChecksum;
  if (text.size() < start || !text.starts_with(kMagic)) return std::nullopt;
  const std::string_view rest = std::string_view(text).substr(start);
  if (checksum_of(rest) != text.substr(kMagic.size(), kChecksum)) return std::nullopt;
  nlohmann::json kept = nlohmann::json::from_msgpack(rest, true, false);  // discarded if it isn't that
  if (!kept.is_array() || kept.size() != 2 || kept[0] != key) return std::nullopt;
  return std::move(kept[1]);
}

void SampleStore::put(const std::string& sample, const std::string& key, const nlohmann::json& found) const {
  if (folder_.empty()) return;
  std::error_code failure;  // writing fails where the folder can't be made
  std::filesystem::create_directories(folder_, failure);
  const std::vector<std::uint8_t> packed = nlohmann::json::to_msgpack(nlohmann::json::array({key, found}));
  const std::string rest(packed.begin(), packed.end());
  write_file(file_of(sample), fmt::format("{}{}{}", kMagic, checksum_of(rest), rest));
}

void SampleStore::clear() const {
  if (folder_.empty()) return;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored))
    if (entry.path().filename().string().find(kEnding) != std::string::npos)
      std::filesystem::remove(entry.path(), ignored);
  std::filesystem::remove(folder_, ignored);  // stays if somebody else has put something there
}

}  // namespace depthkv
