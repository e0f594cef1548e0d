// SPDX-License-Identifier: Apache-2.0
// nearest_kept, merge_rows: a dropped entry goes into the kept one that is most like it, instead of away.   D2O (Wan et
// al. 2024), arXiv:2406.13035; MergingPress of kvpress; neighbours as in KVMerger, arXiv:2407.08454
//
// nearest_kept: keys [1, T, d] of a KV head; kept [K] and dropped [D] positions below T, kept ones rising. For each
// dropped entry the index into `kept` whose key has the largest cosine with its own, equal ones to the lower position,
// and that cosine. A key of length 0 has cosine 0 with all. NaN counts as more alike than anything, so that it isn't
// swallowed. K = 0: index 0 and cosine -1 for all, and nothing may be merged. The CPU multiplies in float, in the order
// of dimensions, then by one over the kept key's norm; it chooses, and multiplies by one over the other's norm. CUDA
// gives the same bits, so the same neighbours. The reference, in double, may choose another of two kept entries whose
// cosines differ by 1e-6.
//
// merge_rows: of rows [1, T, d], for each kept row x_t, with e over the dropped entries that go into it, by rising
// place in `dropped`, those with weight 0 left out:
//   (x_t + sum of weights[e] * x_e) / (1 + sum of shares[e])
// in double, rounded to float once: the same bits on every back end. Rows without any stay as they are. Returns
// [1, K, d].
#pragma once
#include "depthkv/ops.h"

namespace depthkv {

namespace reference {
Nearest nearest_kept(const View& keys, std::span<const std::uint32_t> kept, std::span<const std::uint32_t> dropped);
Tensor merge_rows(const MergeInput& input);
}  // namespace reference
namespace cpu {
Nearest nearest_kept(const View& keys, std::span<const std::uint32_t> kept, std::span<const std::uint32_t> dropped);
Tensor merge_rows(const MergeInput& input);
}  // namespace cpu
namespace cuda {
Nearest nearest_kept(const View& keys, std::span<const std::uint32_t> kept, std::span<const std::uint32_t> dropped);
Tensor merge_rows(const MergeInput& input);
}  // namespace cuda

// How much of each dropped entry goes into its neighbour, where their cosine is at least `threshold`; else nothing.
struct MergeWeights {
  std::vector<float> weights;
  std::vector<float> shares;
};
// D2O's code: an entry counts with its cosine, and in the divisor as one; for keys and values alike. Its threshold is
// an average over heads and time, which is the caller's to keep.
MergeWeights d2o_weights(const Nearest& nearest, float threshold);
// MergingPress: max(cosine, 0) times the dropped value's share of both norms, |v_e| / (|v_e| + |v_t| + 1e-6), in the
// divisor as well; for values only, of which these are [1, T, d].
MergeWeights merging_press_weights(const Nearest& nearest, const View& values, std::span<const std::uint32_t> kept,
                                   std::span<const std::uint32_t> dropped, float threshold);

// What the back ends share: 1 / |row|, 0 for a row of zeros, and rows at positions, one after the other.
std::vector<float> inverse_norms(const View& rows);
Tensor gather_rows(const View& rows, std::span<const std::uint32_t> positions);
// The dropped entries that go into each kept one: members[begins[t]] .. members[begins[t + 1] - 1], rising.
struct MergeLists {
  std::vector<std::uint32_t> begins;   // [K + 1]
  std::vector<std::uint32_t> members;  // indices into `dropped`
};
MergeLists lists_of(const MergeInput& input);

}  // namespace depthkv
