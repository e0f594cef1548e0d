// SPDX-License-Identifier: Apache-2.0
#include "support/checksums.h"

#include <hdf5.h>

namespace depthkv {
namespace {

herr_t add_checksum(hid_t file, const char* name, const H5O_info_t* info, void* list) {
  if (info->type != H5O_TYPE_DATASET) return 0;
  std::string text = "none";
  if (H5Aexists_by_name(file, name, "checksum", H5P_DEFAULT) > 0) {
    const hid_t attribute = H5Aopen_by_name(file, name, "checksum", H5P_DEFAULT, H5P_DEFAULT);
    const hid_t type = H5Aget_type(attribute);
    text.assign(H5Tget_size(type), '\0');
    H5Aread(attribute, type, text.data());
    H5Tclose(type);
    H5Aclose(attribute);
  }
  (*static_cast<std::map<std::string, std::string>*>(list))[name] = text;
  return 0;
}

}  // namespace

std::map<std::string, std::string> stored_checksums(const std::filesystem::path& file) {
  std::map<std::string, std::string> checksums;
  const hid_t id = H5Fopen(file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  H5Ovisit(id, H5_INDEX_NAME, H5_ITER_INC, add_checksum, &checksums);
  H5Fclose(id);
  return checksums;
}

}  // namespace depthkv
