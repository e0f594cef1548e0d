// SPDX-License-Identifier: Apache-2.0
// hide_entries: rows of logits without some of their columns, which become -inf where they lie.
//
// logits [H, R, width], one row after the other; hidden [Hkv, sets, words], H a multiple of Hkv, query head h reads the
// sets of KV head h / (H / Hkv); row_sets [R], each row's set, < sets. Columns of the set are -inf afterwards, whatever
// they were; all others keep their bits. Bits of columns that a row doesn't have are ignored, columns that a set has no
// word for stay. Nothing to do (no rows, no words) is no error. CUDA takes logits on the host or on this thread's
// device, and reads the sets' bits where they are if that is the device; row_sets are the host's.
#pragma once
#include <cstdint>
#include <span>

#include "depthkv/ops.h"

namespace depthkv {

namespace reference {
void hide_entries(const Logits& logits, const ColumnSets& hidden, std::span<const std::uint32_t> row_sets);
}
namespace cpu {
void hide_entries(const Logits& logits, const ColumnSets& hidden, std::span<const std::uint32_t> row_sets);
}
namespace cuda {
void hide_entries(const Logits& logits, const ColumnSets& hidden, std::span<const std::uint32_t> row_sets);
}

}  // namespace depthkv
