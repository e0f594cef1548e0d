// SPDX-License-Identifier: Apache-2.0
// Foreign headers stop at a wall: each may be included in its own folder only.
#include <gtest/gtest.h>

#include <regex>

#include "support/files.h"
#include "support/source.h"

namespace depthkv {
namespace {

struct Wall {
  const char* headers;  // regular expression over the included name
  const char* inside;   // regular expression over the file's path
};

// Tests write broken files with the raw libraries, so they may look over the walls.
const Wall kWalls[] = {{"(hdf5|H5[A-Za-z]*)\\.h", "(traces|tests)/.*"},
                       {"(zstd|zlib|xxhash)\\.h", "(traces|tests)/.*"},
                       {"yaml-cpp/.*", "cli/.*"},
                       {"(llama|ggml[a-z-]*|gguf)\\.h", "(tracer/llama|tests/llama)/.*"},
                       {"(cuda|cub|thrust).*", ".*\\.cuh?"},
                       {"boost/context/.*", "kernels/simt/.*"},
                       {"Eigen/.*", "(tracer/spectrum|replay/view_metrics)\\.cpp"},
                       {"CLI/.*", "cli/.*"},
                       {"cblas.h", "bench/limits\\.cpp"},
                       {"(hwy|boost/sort)/.*", "bench/sorts\\.cpp"}};

TEST(Walls, ForeignHeadersStayInTheirFolders) {
  const std::regex include("#include [<\"]([^>\"]+)[>\"]");
  int files = 0;
  for (const char* folder : {"include", "traces", "tracer", "kernels", "policies", "replay", "cli", "tests", "bench"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(kSource / folder)) {
      const std::string path = std::filesystem::relative(entry.path(), kSource).string();
      if (!std::regex_match(path, std::regex(".*\\.(h|cpp|cu|cuh)"))) continue;
      ++files;
      const std::string text = read_text(entry.path());
      for (std::sregex_iterator it(text.begin(), text.end(), include), end; it != end; ++it) {
        for (const Wall& wall : kWalls) {
          if (!std::regex_match((*it)[1].str(), std::regex(wall.headers))) continue;
          EXPECT_TRUE(std::regex_match(path, std::regex(wall.inside))) << path << " includes " << (*it)[1];
        }
      }
    }
  }
  EXPECT_GT(files, 50);
}

// They are installed, the others aren't.
TEST(Walls, PublicHeadersIncludeNoPrivateOnes) {
  const std::regex own("#include \"(?!depthkv/)([^\"]+)\"");
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kSource / "include/depthkv")) {
    ++files;
    std::smatch found;
    const std::string text = read_text(entry.path());
    EXPECT_FALSE(std::regex_search(text, found, own)) << entry.path() << " includes " << found[1];
  }
  EXPECT_GT(files, 15);
}

}  // namespace
}  // namespace depthkv
