// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "depthkv/error.h"
#include "llama/recorded.h"
#include "llama/tiny_gguf.h"
#include "support/scratch.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

// The message of the InputError that opening throws, "" if it throws none.
std::string refusal(const std::filesystem::path& file) {
  try {
    open_llama_model({.model = file, .threads = 1});
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

class LlamaErrors : public testing::Test {
 protected:
  std::unique_ptr<Model> open_tiny() {
    write_tiny_gguf(tiny_llama(), folder_ / "m.gguf");
    return open_llama_model({.model = folder_ / "m.gguf", .threads = 1});
  }
  ScratchDirectory folder_;
};

TEST_F(LlamaErrors, MissingFileAndFolder) {
  EXPECT_THAT(refusal(folder_ / "none.gguf"), HasSubstr("none.gguf: no such file"));
  EXPECT_THAT(refusal(folder_ / ""), HasSubstr("no such file"));
}

TEST_F(LlamaErrors, TextFileAndEmptyFile) {
  std::ofstream(folder_ / "notes.gguf") << "these are notes, not a model\n";
  EXPECT_THAT(refusal(folder_ / "notes.gguf"), HasSubstr("not a GGUF model"));
  std::ofstream(folder_ / "empty.gguf").flush();
  EXPECT_THAT(refusal(folder_ / "empty.gguf"), HasSubstr("not a GGUF model"));
}

TEST_F(LlamaErrors, TruncatedAtAnyLength) {
  write_tiny_gguf(tiny_llama(), folder_ / "whole.gguf");
  const auto size = std::filesystem::file_size(folder_ / "whole.gguf");
  for (const std::uintmax_t length :
       {std::uintmax_t{4}, std::uintmax_t{5}, std::uintmax_t{24}, std::uintmax_t{100}, std::uintmax_t{700},
        std::uintmax_t{2000}, size / 4, size / 2, size - 4096, size - 1}) {
    std::filesystem::copy_file(folder_ / "whole.gguf", folder_ / "cut.gguf",
                               std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(folder_ / "cut.gguf", length);
    EXPECT_THAT(refusal(folder_ / "cut.gguf"), HasSubstr("cut.gguf")) << length;
  }
}

TEST_F(LlamaErrors, PromptsThatDoNotFit) {
  const auto model = open_tiny();
  const LayerSink ignore = [](const LayerBlock&) {};
  const auto full = random_tokens(512, model->card(), 1);
  const auto more = random_tokens(513, model->card(), 1);
  EXPECT_THROW(model->record({more, {}, 0, {}}, ignore), InputError);
  EXPECT_THROW(model->record({full, {}, 1, {}}, ignore), InputError);
  EXPECT_THROW(model->record({{}, {}, 1, {}}, ignore), InputError);
  EXPECT_NO_THROW(model->record({full, {}, 0, {}}, ignore));
  const std::vector<KeepMask> masks{KeepMask::everything(model->card())};
  EXPECT_THROW(model->branch(full, masks, 1), InputError);
  EXPECT_THROW(model->branch({}, masks, 1), InputError);
}

TEST_F(LlamaErrors, TokensOutsideTheVocabulary) {
  const auto model = open_tiny();
  for (const Token bad : {Token{-1}, Token{96}})
    EXPECT_THROW(model->record({std::vector<Token>{1, bad}, {}, 0, {}}, [](const LayerBlock&) {}), InputError);
}

TEST_F(LlamaErrors, MasksThatDoNotFit) {
  const auto model = open_tiny();
  const auto prefix = random_tokens(10, model->card(), 1);
  const auto refuse = [&](const KeepMask& mask) { EXPECT_THROW(model->branch(prefix, {&mask, 1}, 4), Error); };
  KeepMask mask = KeepMask::everything(model->card());
  mask.pruned[0][0] = {10};
  refuse(mask);
  mask.pruned[0][0] = {3, 2};
  refuse(mask);
  mask.pruned[0][0] = {3, 3};
  refuse(mask);
  mask.pruned.pop_back();
  refuse(mask);
  EXPECT_THROW(model->branch(prefix, {}, 4), Error);
}

TEST_F(LlamaErrors, MoreTokensThanTheCapacity) {
  const auto model = open_tiny();
  const auto prefix = random_tokens(10, model->card(), 1);
  const std::vector<KeepMask> masks{KeepMask::everything(model->card())};
  const auto branches = model->branch(prefix, masks, 4);
  EXPECT_THROW(branches->score(random_tokens(5, model->card(), 2), 0, [](auto...) {}), Error);
  EXPECT_THROW(branches->generate(random_tokens(3, model->card(), 2), 3), Error);
  EXPECT_NO_THROW(branches->generate(random_tokens(3, model->card(), 2), 2));
}

TEST_F(LlamaErrors, NoTokenizer) {
  const auto model = open_tiny();
  EXPECT_THROW(model->tokenize("hello", true, true), Error);
  EXPECT_THROW(model->detokenize(std::vector<Token>{1}), Error);
  EXPECT_EQ(ask(*model, "hello"), "hello");
  const Message talk[] = {{"user", "hello"}, {"assistant", "hi"}};
  EXPECT_EQ(model->chat(talk), "hello\n\nhi");
}

}  // namespace
}  // namespace depthkv
