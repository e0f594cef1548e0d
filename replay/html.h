// SPDX-License-Identifier: Apache-2.0
// Pages that need nothing but themselves.
#pragma once
#include <string>

#include "replay/svg.h"
#include "replay/tables.h"

namespace depthkv {

std::string html_table(const Table& table);
// `heading` and `under` are text, `body` is HTML.
std::string html_page(const std::string& title, const std::string& heading, const std::string& under,
                      const std::string& body);
std::string html_details(const std::string& summary, const std::string& body, bool open = false);

// Every pair of allocators under the scorer that does best with an even split, against keep.
Plot allocator_plot(const ResultTable& results, Metric metric);

}  // namespace depthkv
