// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/branches.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "depthkv/error.h"
#include "tracer/llama/text.h"

namespace depthkv {
namespace {

constexpr std::int64_t kLogitBytes = std::int64_t{64} << 20;  // the engine's logits of one batch stay below this

constexpr int kAlone = 1;  // the slot of branches that are fed one by one

int slot(std::size_t index) { return static_cast<int>(index) + 1; }

// Rows of one branch per decode.
std::int64_t rows_per_batch(const ModelCard& card, int batch) {
  const std::int64_t fitting = kLogitBytes / (std::max<std::int64_t>(card.vocabulary, 1) * 4);
  return std::max<std::int64_t>(1, std::min<std::int64_t>(batch, fitting));
}

BranchRoom checked_room(const ModelCard& card, std::int64_t prefix, std::size_t branches, std::int64_t capacity,
                        std::int64_t memory) {
  if (branches == 0) throw Error("no mask was given to branch from; an empty mask prunes nothing");
  if (prefix == 0) throw InputError("the prefix of the branches is empty; prune after at least one token");
  if (capacity < 0 || prefix + capacity > card.context_length)
    throw InputError(
        fmt::format("a prefix of {} tokens and {} more do not fit the context of {}, {} tokens; shorten the prompt",
                    prefix, capacity, card.name, card.context_length));
  return branch_room(card, prefix, branches, capacity, memory);
}

SessionOptions session_options(const ModelCard& card, std::int64_t prefix, const BranchRoom& room,
                               const LlamaBranches::Options& options) {
  const std::int64_t rows = std::max(rows_per_batch(card, options.batch), room.together);
  return {.cells = room.cells,
          .batch = std::max(std::min<std::int64_t>(options.batch, prefix), rows),
          .outputs = rows,
          .sequences = static_cast<int>(room.together) + 1,
          .threads = options.threads,
          .offload = options.offload,
          .single_cache = options.single_cache};
}

std::map<std::size_t, KeepMask> changing_of(std::span<const KeepMask> masks) {
  std::map<std::size_t, KeepMask> changing;
  for (std::size_t b = 0; b < masks.size(); ++b)
    if (masks[b].hidden_at) changing.emplace(b, masks[b]);
  return changing;
}

}  // namespace

// Puts every slot back at the prefix, whatever happened.
class LlamaBranches::Rewind {
 public:
  explicit Rewind(LlamaBranches& self) : self_(self) {}
  Rewind(const Rewind&) = delete;
  Rewind& operator=(const Rewind&) = delete;
  ~Rewind() {
    for (std::size_t i = 0; i < static_cast<std::size_t>(self_.room_.together); ++i) try {
        self_.session_.rewind(slot(i), self_.prefix_);
      } catch (const Error&) {  // the next decode fails on its positions, with a message of its own
      }
  }

 private:
  LlamaBranches& self_;
};

LlamaBranches::LlamaBranches(llama_model* model, const ModelCard& card, std::span<const Token> prefix,
                             std::span<const KeepMask> masks, std::int64_t capacity, Options options)
    : vocab_(llama_model_get_vocab(model)),
      card_(card),
      options_(std::move(options)),
      branches_(masks.size()),
      prefix_(static_cast<std::int64_t>(prefix.size())),
      capacity_(capacity),
      room_(checked_room(card_, prefix_, branches_, capacity, options_.memory)),
      mask_(card_, masks, prefix_),
      changing_(changing_of(masks)),
      cells_(card_),
      workers_(options_.threads),
      session_(model, session_options(card_, prefix_, room_, options_)) {
  prefill(prefix);
  for (std::size_t i = 0; i < static_cast<std::size_t>(room_.together); ++i) session_.copy_sequence(0, slot(i));
  if (options_.observer)
    observer_.emplace(
        card_, options_.observer, workers_,
        Capture::Wanted{.entries = false, .queries = false, .attention = std::vector<bool>(card_.layers.size(), true)});
}

// One branch at a time fills the cells right after the prefix; branches that decode together can't all.
void LlamaBranches::watch(bool one_branch) {
  std::vector<Watcher*> watchers{&mask_};
  if (one_branch) watchers.push_back(&cells_);
  if (observer_) watchers.push_back(&*observer_);
  session_.watch(watchers);
}

void LlamaBranches::prefill(std::span<const Token> prefix) {
  session_.watch({&cells_});
  for (std::int64_t first = 0; first < prefix_; first += session_.batch()) {
    const std::int64_t count = std::min(session_.batch(), prefix_ - first);
    const std::vector<BatchRow> rows =
        rows_from(prefix.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)), first);
    cells_.expect(first, static_cast<std::int64_t>(rows.size()));
    session_.decode(rows);
    const auto logits = session_.logits(rows.size() - 1);
    prefix_logits_.assign(logits.begin(), logits.end());
  }
}

void LlamaBranches::check_room(std::size_t tokens) const {
  if (static_cast<std::int64_t>(tokens) > capacity_)
    throw Error(fmt::format("{} tokens were given to branches made for {}", tokens, capacity_));
}

// A set for each row of a branch.
HiddenSets LlamaBranches::hidden_from(std::span<const BatchRow> rows, const KeepMask& mask) const {
  HiddenSets sets(card_, rows.size(), prefix_ + capacity_);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    sets.add(i, mask.pruned, prefix_);
    sets.add(i, mask.hidden_at(rows[i].position), rows[i].position);
  }
  return sets;
}

void LlamaBranches::decode(std::span<const BatchRow> rows, const std::vector<std::uint32_t>& branches) {
  const auto changing = changing_.find(branches.front());
  if (changing == changing_.end()) {
    mask_.expect(branches);
  } else {
    mask_.expect(hidden_from(rows, changing->second));
  }
  cells_.expect(rows.front().position, static_cast<std::int64_t>(rows.size()));
  // The engine's cache is never narrower than what the prefix fills.
  if (observer_) observer_->expect(rows.front().position, static_cast<std::int64_t>(rows.size()), prefix_);
  session_.decode(rows);
}

void LlamaBranches::feed(std::size_t branch, int sequence, std::span<const Token> tokens, std::int64_t first_visited,
                         const Visit& visit) {
  const auto steps = static_cast<std::size_t>(rows_per_batch(card_, options_.batch));
  for (std::size_t begin = 0; begin < tokens.size(); begin += steps) {
    std::vector<BatchRow> rows;
    for (std::size_t step = begin; step < std::min(tokens.size(), begin + steps); ++step)
      rows.push_back({tokens[step], prefix_ + static_cast<std::int64_t>(step), sequence,
                      static_cast<std::int64_t>(step) >= first_visited});
    decode(rows, std::vector<std::uint32_t>(rows.size(), static_cast<std::uint32_t>(branch)));
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (rows[i].logits) visit(branch, static_cast<std::int64_t>(begin + i), session_.logits(i));
  }
}

void LlamaBranches::score(std::span<const Token> tokens, std::int64_t first_visited, const Visit& visit) {
  check_room(tokens.size());
  const Rewind rewind(*this);
  watch(true);
  for (std::size_t b = 0; b < branches_; ++b) {
    feed(b, kAlone, tokens, first_visited, visit);
    session_.rewind(kAlone, prefix_);
  }
}

std::vector<std::vector<Token>> LlamaBranches::generate(std::span<const Token> lead, std::int64_t max_tokens,
                                                        std::size_t count) {
  count = std::min(count, branches_);
  std::vector<std::vector<Token>> answers(count);
  if (max_tokens <= 0) return answers;
  check_room(lead.size() + static_cast<std::size_t>(max_tokens) - 1);  // the last token is never fed
  for (std::size_t first = 0; first < count;) {
    const std::size_t together = together_from(first, count);
    watch(changing_.contains(first));
    const Rewind rewind(*this);
    decode_greedily(first, together, lead, max_tokens, answers);
    first += together;
  }
  return answers;
}

std::size_t LlamaBranches::together_from(std::size_t first, std::size_t count) const {
  const auto changing = changing_.lower_bound(first);
  if (changing != changing_.end() && changing->first == first) return 1;
  const std::size_t end = changing == changing_.end() ? count : std::min(count, changing->first);
  return std::min(static_cast<std::size_t>(room_.together), end - first);
}

void LlamaBranches::decode_greedily(std::size_t first, std::size_t count, std::span<const Token> lead,
                                    std::int64_t max_tokens, std::vector<std::vector<Token>>& answers) {
  std::vector<std::size_t> open;  // slots that go on
  std::vector<Token> next(count, greedy(prefix_logits_));
  for (std::size_t i = 0; i < count; ++i) {
    open.push_back(i);
    feed(first + i, slot(i), lead, static_cast<std::int64_t>(lead.size()) - 1,
         [&](std::size_t, std::int64_t, std::span<const float> logits) { next[i] = greedy(logits); });
  }
  for (std::int64_t step = 0;; ++step) {
    std::erase_if(open, [&](std::size_t i) { return llama_vocab_is_eog(vocab_, next[i]); });
    for (const std::size_t i : open) answers[first + i].push_back(next[i]);
    if (open.empty() || step + 1 >= max_tokens) return;
    std::vector<BatchRow> rows;
    std::vector<std::uint32_t> branches;
    for (const std::size_t i : open) {
      rows.push_back({next[i], prefix_ + static_cast<std::int64_t>(lead.size()) + step, slot(i), true});
      branches.push_back(static_cast<std::uint32_t>(first + i));
    }
    decode(rows, branches);
    for (std::size_t row = 0; row < open.size(); ++row) next[open[row]] = greedy(session_.logits(row));
  }
}

}  // namespace depthkv
