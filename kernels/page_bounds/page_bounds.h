// SPDX-License-Identifier: Apache-2.0
// page_bounds, page_scores: what Quest (Tang et al. 2024, arXiv:2406.10774) knows of a page of keys, and how it ranks
// pages for a query.
//
// page_bounds: keys [Hkv, T, d] in pages of `size` tokens, the last one shorter where T is no multiple of it; of each
// page and dimension the least and the most, [Hkv, pages, d]. NaN in a page's dimension makes both NaN. Exact: the same
// numbers on every back end. Throws Error where `size` is below 1.
//
// page_scores: queries [H, R, d], bounds of Hkv heads, H a multiple of Hkv; returns [H, R, pages]: the sum over
// dimensions of max(q * least, q * most), below which no q . k of the page's keys is, but for rounding. NaN in a query
// or a bound gives NaN. No scale, no softmax: an order of pages is the same without them. Bounds are NaN or finite. The
// CPU adds products in float, those of positive query components first, then the others, as one product of 2 d
// dimensions: attention's own loops do it, at twice the products needed. CUDA gives the CPU's bits.
#pragma once
#include "depthkv/ops.h"

namespace depthkv {

namespace reference {
PageBounds page_bounds(const View& keys, std::int64_t size);
Tensor page_scores(const View& queries, const PageBounds& bounds);
}  // namespace reference
namespace cpu {
PageBounds page_bounds(const View& keys, std::int64_t size);
Tensor page_scores(const View& queries, const PageBounds& bounds);
}  // namespace cpu
namespace cuda {
PageBounds page_bounds(const View& keys, std::int64_t size);
Tensor page_scores(const View& queries, const PageBounds& bounds);
}  // namespace cuda

// What the back ends share. The number of pages; checks `size`.
std::int64_t pages_of(std::int64_t tokens, std::int64_t size);
// [.., 2 d] whose products are the scores: queries' positive components, then the others, zeros between; most, then
// least.
Tensor split_by_sign(const View& queries);
Tensor side_by_side(const PageBounds& bounds);

}  // namespace depthkv
