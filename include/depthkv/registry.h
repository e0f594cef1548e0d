// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "depthkv/policy.h"

namespace depthkv {

// One line of a table: how a policy is called, what it is, where it comes from, how to make it, what it costs beyond
// loading a layer's data: per layer and head for scorers and structures, per split for allocators.
template <class Policy>
struct Entry {
  std::string name;
  std::string summary;
  std::string paper;
  std::function<Policy(Params&)> make;
  std::string cost = "O(n)";  // n positions, d dimensions, L layers, H KV heads
};

// The policies that plans may name: the built-ins, plus whatever the caller adds. An ordinary value, no globals.
class Registry {
 public:
  // Throws Error when the name is taken.
  void add(Entry<Scorer> entry);
  void add(Entry<Structure> entry);
  void add(Entry<LayerAllocator> entry);
  void add(Entry<HeadAllocator> entry);

  // Throws InputError on an unknown name or parameter, or a value out of range; the message names spec.where.
  Scorer make_scorer(const PolicySpec& spec) const;
  Structure make_structure(const PolicySpec& spec) const;
  LayerAllocator make_layer_allocator(const PolicySpec& spec) const;
  HeadAllocator make_head_allocator(const PolicySpec& spec) const;

  const std::vector<Entry<Scorer>>& scorers() const { return scorers_; }
  const std::vector<Entry<Structure>>& structures() const { return structures_; }
  const std::vector<Entry<LayerAllocator>>& layer_allocators() const { return layer_allocators_; }
  const std::vector<Entry<HeadAllocator>>& head_allocators() const { return head_allocators_; }

 private:
  std::vector<Entry<Scorer>> scorers_;
  std::vector<Entry<Structure>> structures_;
  std::vector<Entry<LayerAllocator>> layer_allocators_;
  std::vector<Entry<HeadAllocator>> head_allocators_;
};

Registry builtin_policies();

}  // namespace depthkv
