// SPDX-License-Identifier: Apache-2.0
// What the machine itself can do, to be timed beside an op: OpenBLAS's sgemm. The only user of cblas.h.
#pragma once
#include <functional>
#include <string>

#include "bench/op_work.h"

namespace depthkv {

// The kernels that OpenBLAS chose for this processor. Throws Error where they leave vectors unused that the processor
// has: a build that doesn't know the model falls back to SSE3.
std::string sgemm_kernels();

// One product of that shape on one thread, alpha 1, beta 0, all matrices row by row.
std::function<void()> sgemm_of(ProductShape shape);
double flops_of(ProductShape shape);

}  // namespace depthkv
