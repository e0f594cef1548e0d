// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "depthkv/error.h"
#include "traces/h5.h"

namespace depthkv::h5 {

std::vector<std::string> names(const Object& group) {
  std::vector<std::string> found;
  const auto add = [](hid_t, const char* name, const H5L_info_t*, void* list) -> herr_t {
    static_cast<std::vector<std::string>*>(list)->emplace_back(name);
    return 0;
  };
  if (H5Literate(group.id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &found) < 0)
    throw Error(fmt::format("{}: links can't be read; the file is damaged", group.name));
  return found;
}

}  // namespace depthkv::h5
