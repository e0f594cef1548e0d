// SPDX-License-Identifier: Apache-2.0
// Chunks that are shorter in the file than they claim. libhdf5 1.10 reads past their end, because it doesn't compare
// what came out of the filters with a chunk's size. Private to traces/.
#pragma once
#include "traces/h5.h"

namespace depthkv::h5 {

// Before a read: throws Error unless every chunk that the block touches is whole. Deflated ones are inflated for it,
// which is why reading those takes twice as long as it might.
void check_chunks(const Object& dataset, const Block& block);

}  // namespace depthkv::h5
