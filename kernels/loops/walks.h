// SPDX-License-Identifier: Apache-2.0
// The loops along a ranking, a row of attention in each lane. For sources that are compiled once per instruction set,
// as wide.h.
#pragma once
#include <utility>

#include "depthkv/curve.h"
#include "kernels/loops/loops.h"
#include "kernels/loops/wide.h"

namespace depthkv {
namespace {

// What stays in registers: sums of dimensions, and entries whose norms, or sums that need no more room, are worked on
// together. Each lane's terms are added in the same order for any.
#ifdef __AVX512F__
constexpr std::size_t kDimensions = 16;
constexpr std::size_t kNormed = 2;
#else
constexpr std::size_t kDimensions = 8;
constexpr std::size_t kNormed = 1;
#endif
constexpr std::size_t kAdded = 4;
constexpr std::size_t kEntriesAhead = 8;  // that memory is asked for
static_assert(kWalkRows == kWide && kWalkWidth % kDimensions == 0);

using RowSums = Wide[kDimensions];

// f(0), f(1), ... written out, as compilers keep only arrays with known indices in registers.
template <class F, std::size_t... kIndices>
[[gnu::always_inline]] inline void each_of(std::index_sequence<kIndices...>, F f) {
  (f(kIndices), ...);
}
template <std::size_t kCount, class F>
[[gnu::always_inline]] inline void each_of(F f) {
  each_of(std::make_index_sequence<kCount>(), f);
}

inline void load_sums(const float* from, RowSums& sums) {
  each_of<kDimensions>([&](std::size_t c) { sums[c] = load(from + c * kWalkRows); });
}
inline void store_sums(const RowSums& sums, float* to) {
  each_of<kDimensions>([&](std::size_t c) { store(to + c * kWalkRows, sums[c]); });
}

// Asks for a row of an entry that comes soon, as no processor foresees a ranking. Inlined early, or GCC takes it for a
// function without any effect.
[[gnu::always_inline]] inline void fetch(const EntryWalk& walk, std::size_t entry, const float* from,
                                         std::size_t stride) {
  if (entry + kEntriesAhead < walk.entries + walk.following)
    __builtin_prefetch(from + walk.order[entry + kEntriesAhead] * stride);
}

// `address` in a register: a product that takes its operand from a base and an index costs an operation more.
[[gnu::always_inline]] inline const float* in_register(const float* address) {
  asm("" : "+r"(address));
  return address;
}

// Squares of the sums before each of some entries join the norms, then the entries join the sums.
template <std::size_t Entries>
[[gnu::always_inline]] inline void add_norms(const EntryWalk& walk, std::size_t first, std::size_t dimension,
                                             bool fresh, RowSums& sums, float* norms) {
  const float* values[Entries];
  Wide weights[Entries];
  Wide found[Entries][2];
  for (std::size_t i = 0; i < Entries; ++i) {
    const std::size_t at = walk.order[first + i];
    values[i] = in_register(walk.values + at * walk.value_stride + dimension);
    weights[i] = load(walk.weights + at * walk.weight_stride);
    for (std::size_t odd = 0; odd < 2; ++odd)
      found[i][odd] = fresh ? all(0) : load(norms + (2 * (first + i) + odd) * kWalkRows);
  }
  each_of<kDimensions>([&](std::size_t c) {
    each_of<Entries>([&](std::size_t i) {
      found[i][c % 2] = fused(sums[c], sums[c], found[i][c % 2]);
      sums[c] = fused(all(values[i][c]), weights[i], sums[c]);
    });
  });
  for (std::size_t i = 0; i < Entries; ++i)
    for (std::size_t odd = 0; odd < 2; ++odd) store(norms + (2 * (first + i) + odd) * kWalkRows, found[i][odd]);
}

void walk_norms(const EntryWalk& walk, bool first, float* to, float* norms) {
  const EntryWalk entries = walk;  // named, since stores to norms might change what `walk` refers to
  for (std::size_t dimension = 0; dimension < kWalkWidth; dimension += kDimensions) {
    const bool fresh = first && dimension == 0;
    RowSums sums;
    load_sums(to + dimension * kWalkRows, sums);
    std::size_t i = 0;
    for (; i + kNormed <= entries.entries; i += kNormed) {
      for (std::size_t ahead = 0; ahead < kNormed; ++ahead)
        fetch(entries, i + ahead, entries.values + dimension, entries.value_stride);
      add_norms<kNormed>(entries, i, dimension, fresh, sums, norms);
    }
    for (; i < entries.entries; ++i) add_norms<1>(entries, i, dimension, fresh, sums, norms);
    store_sums(sums, to + dimension * kWalkRows);
  }
}

template <std::size_t Entries>
[[gnu::always_inline]] inline void add_weighted(const EntryWalk& walk, std::size_t first, std::size_t dimension,
                                                RowSums& sums) {
  const float* values[Entries];
  Wide weights[Entries];
  for (std::size_t i = 0; i < Entries; ++i) {
    const std::size_t at = walk.order[first + i];
    values[i] = in_register(walk.values + at * walk.value_stride + dimension);
    weights[i] = load(walk.weights + at * walk.weight_stride);
  }
  each_of<kDimensions>([&](std::size_t c) {
    each_of<Entries>([&](std::size_t i) { sums[c] = fused(all(values[i][c]), weights[i], sums[c]); });
  });
}

void weighted_sums(const EntryWalk& walk, float* to) {
  const EntryWalk entries = walk;
  for (std::size_t dimension = 0; dimension < kWalkWidth; dimension += kDimensions) {
    RowSums sums;
    load_sums(to + dimension * kWalkRows, sums);
    std::size_t i = 0;
    for (; i + kAdded <= entries.entries; i += kAdded) {
      for (std::size_t ahead = 0; ahead < kAdded; ++ahead)
        fetch(entries, i + ahead, entries.values + dimension, entries.value_stride);
      add_weighted<kAdded>(entries, i, dimension, sums);
    }
    for (; i < entries.entries; ++i) add_weighted<1>(entries, i, dimension, sums);
    store_sums(sums, to + dimension * kWalkRows);
  }
}

template <std::size_t Entries>
[[gnu::always_inline]] inline void add_products(const float* values, std::size_t value_stride, const RowSums& sums,
                                                bool fresh, float* products, std::size_t stride) {
  const float* from[Entries];
  Wide found[Entries];
  for (std::size_t i = 0; i < Entries; ++i) {
    from[i] = in_register(values + i * value_stride);
    found[i] = fresh ? all(0) : load(products + i * stride);
  }
  each_of<kDimensions>([&](std::size_t c) {
    each_of<Entries>([&](std::size_t i) { found[i] = fused(all(from[i][c]), sums[c], found[i]); });
  });
  for (std::size_t i = 0; i < Entries; ++i) store(products + i * stride, found[i]);
}

void row_products(const float* values, std::size_t value_stride, std::size_t entries, const float* from, bool first,
                  float* products, std::size_t stride) {
  for (std::size_t dimension = 0; dimension < kWalkWidth; dimension += kDimensions) {
    const bool fresh = first && dimension == 0;
    RowSums sums;
    load_sums(from + dimension * kWalkRows, sums);
    const float* value = values + dimension;
    std::size_t i = 0;
    for (; i + kAdded <= entries; i += kAdded) {
      for (std::size_t ahead = i + kEntriesAhead; ahead < entries && ahead < i + kEntriesAhead + kAdded; ++ahead) {
        __builtin_prefetch(value + ahead * value_stride);
        if (fresh) __builtin_prefetch(products + ahead * stride, 1);
      }
      add_products<kAdded>(value + i * value_stride, value_stride, sums, fresh, products + i * stride, stride);
    }
    for (; i < entries; ++i)
      add_products<1>(value + i * value_stride, value_stride, sums, fresh, products + i * stride, stride);
  }
}

// Of kDoubles rows.
struct RunningMass {
  Doubles mass;
  Doubles from_all;

  void add(const float* weights, float* to) {
    const Halved share = to_floats(from_all - mass);
    std::memcpy(to, &share, sizeof share);
    mass += to_doubles(load_halved(weights));
  }
};

void walk_masses(const EntryWalk& walk, const float* from_all, double* mass, float* shares) {
  constexpr std::size_t kParts = kWalkRows / kDoubles;
  const EntryWalk entries = walk;  // named, as in walk_norms()
  RunningMass running[kParts];
  for (std::size_t part = 0; part < kParts; ++part) {
    std::memcpy(&running[part].mass, mass + part * kDoubles, sizeof(Doubles));
    running[part].from_all = to_doubles(load_halved(from_all + part * kDoubles));
  }
  for (std::size_t i = 0; i < entries.entries; ++i) {
    fetch(entries, i, entries.weights, entries.weight_stride);
    const float* weights = entries.weights + entries.order[i] * entries.weight_stride;
    for (std::size_t part = 0; part < kParts; ++part)
      running[part].add(weights + part * kDoubles, shares + i * kWalkRows + part * kDoubles);
  }
  for (std::size_t part = 0; part < kParts; ++part)
    std::memcpy(mass + part * kDoubles, &running[part].mass, sizeof(Doubles));
}

void sum_products(const float* one, const float* other, std::size_t dimensions, float* products) {
  Wide sums[kAdded] = {all(0), all(0), all(0), all(0)};
  for (std::size_t c = 0; c < dimensions; c += kAdded)
    for (std::size_t i = 0; i < kAdded; ++i)
      sums[i] = fused(load(one + (c + i) * kWalkRows), load(other + (c + i) * kWalkRows), sums[i]);
  store(products, (sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// o_S - o = (s + q o) / mass with mass = b - q, and |s + q o|^2 = |s|^2 + 2 q s o + q^2 |o|^2.
void walk_losses(const EntryWalk& walk, const LossWalk& from, bool first, float* losses) {
  const EntryWalk entries = walk;  // named, as in walk_norms()
  const LossWalk in = from;
  const Wide from_all = load(in.from_all);
  const Wide energy = load(in.energy);
  Wide product = load(in.product);
  for (std::size_t i = 0; i < entries.entries; ++i) {
    fetch(entries, i, in.products, entries.weight_stride);
    const Wide share = load(in.shares + i * kWalkRows);
    const Wide mass = from_all - share;
    const Wide norm = load(in.norms + 2 * i * kWalkRows) + load(in.norms + (2 * i + 1) * kWalkRows);
    const Wide gap = fused(share, fused(share, energy, product + product), norm);
    const Wide loss = where_more(mass, static_cast<float>(kNoMass), larger(all(0), gap) / (mass * mass), energy);
    store(losses + i * kWalkRows, first ? loss : loss + load(losses + i * kWalkRows));
    const std::size_t at = entries.order[i] * entries.weight_stride;
    product = fused(load(entries.weights + at), load(in.products + at), product);
  }
  store(in.product, product);
}

void add_losses(const float* losses, std::size_t entries, double* errors) {
  const auto eight = [](const float* line) {
    Eight sums = no_eight();
    for (std::size_t c = 0; c < kWalkRows; c += kEight) sums = add_terms(line + c, sums, [](Doubles x) { return x; });
    return sums;
  };
  constexpr std::size_t kTogether = 4;
  std::size_t i = 0;
  for (; i + kTogether <= entries; i += kTogether) {
    Eight sums[kTogether];
    for (std::size_t k = 0; k < kTogether; ++k) sums[k] = eight(losses + (i + k) * kWalkRows);
    const Four four = sums_of(sums);
    for (std::size_t k = 0; k < kTogether; ++k) errors[i + k] += four[k];
  }
  for (; i < entries; ++i) errors[i] += sum_of(eight(losses + i * kWalkRows));
}

}  // namespace
}  // namespace depthkv
