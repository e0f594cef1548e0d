// SPDX-License-Identifier: Apache-2.0
// What ablation says of layers, per sample.
#pragma once
#include <map>
#include <string>

#include "depthkv/layer_tests.h"
#include "depthkv/tasks.h"
#include "replay/layer_test.h"

namespace depthkv {

// By task, [sample][layer], means over budgets. Samples of which the drop wasn't measured are left out, tasks without
// any, too.
std::map<std::string, LayerDrops> drops_by_task(const std::vector<AblationRow>& rows, Drop drop);

// All of them.
LayerDrops pooled(const std::map<std::string, LayerDrops>& tasks);

std::vector<double> mean_drops(const LayerDrops& drops);  // [layer]

}  // namespace depthkv
