// SPDX-License-Identifier: Apache-2.0
// The parts of a trace file that aren't tensors.
#pragma once
#include "depthkv/trace.h"
#include "traces/h5.h"

namespace depthkv {

void write_card(const h5::Object& file, const ModelCard& card);
void write_sample(const h5::Object& file, const Sample& sample);
void write_query_rows(const h5::Object& file, const std::vector<std::int32_t>& rows);

// Throw Error on what can't be: see traces/FORMAT.md.
ModelCard read_card(const h5::Object& file);
Sample read_sample(const h5::Object& file);
std::vector<std::int32_t> read_query_rows(const h5::Object& file);  // which aren't looked at

}  // namespace depthkv
