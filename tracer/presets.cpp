// SPDX-License-Identifier: Apache-2.0
#include "depthkv/record.h"
#include "tracer/state_recorder.h"

namespace depthkv {

std::string_view to_string(Preset preset) {
  constexpr std::array<std::string_view, kPresets.size()> kNames{"sweep", "study", "full"};
  return kNames[static_cast<std::size_t>(preset)];
}

std::set<Channel> preset_channels(Preset preset) {
  std::set<Channel> channels(kChannels.begin(), kChannels.end());
  channels.erase(Channel::attention);  // chosen by layer
  if (preset == Preset::sweep) std::erase_if(channels, is_of_states);
  if (preset != Preset::full) channels.erase(Channel::repeat_max);  // a second pass over the context
  if (preset == Preset::full) channels.insert(Channel::output_projection);
  return channels;
}

void apply_preset(Preset preset, TracePlan& plan) {
  plan.channels = preset_channels(preset);
  plan.attention = preset == Preset::full ? "all" : "none";
  plan.queries = preset == Preset::full ? "all" : "rows";
}

}  // namespace depthkv
