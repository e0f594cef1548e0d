// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <utility>
#include <vector>

namespace depthkv {

// A read-only window on floats laid out [head, row, column]; columns are adjacent, heads and rows may be strided.
// Does not own what it shows. A layer's data is handed to scorers through views cut at the pruning position, so that a
// scorer cannot read what a real policy could not have seen.
struct View {
  const float* data = nullptr;
  std::int64_t heads = 0;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t head_stride = 0;
  std::int64_t row_stride = 0;

  std::span<const float> row(std::int64_t head, std::int64_t row) const {
    assert(head >= 0 && head < heads && row >= 0 && row < rows);
    return {data + head * head_stride + row * row_stride, static_cast<std::size_t>(columns)};
  }
  View head_range(std::int64_t first, std::int64_t count) const {
    assert(first >= 0 && count >= 0 && first + count <= heads);
    return {data + first * head_stride, count, rows, columns, head_stride, row_stride};
  }
  View row_range(std::int64_t first, std::int64_t count) const {
    assert(first >= 0 && count >= 0 && first + count <= rows);
    return {data + first * row_stride, heads, count, columns, head_stride, row_stride};
  }
  View column_range(std::int64_t first, std::int64_t count) const {
    assert(first >= 0 && count >= 0 && first + count <= columns);
    return {data + first, heads, rows, count, head_stride, row_stride};
  }
  View first_columns(std::int64_t count) const { return column_range(0, count); }
};

// A read-only window on half-precision vectors as a cache holds them, [row][head][column].
struct HalfRows {
  const std::uint16_t* data = nullptr;
  std::int64_t heads = 0;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t row_stride = 0;

  bool empty() const { return data == nullptr; }
  std::span<const std::uint16_t> row(std::int64_t head, std::int64_t row) const {
    assert(head >= 0 && head < heads && row >= 0 && row < rows);
    return {data + row * row_stride + head * columns, static_cast<std::size_t>(columns)};
  }
  HalfRows head(std::int64_t head) const { return head_range(head, 1); }
  HalfRows head_range(std::int64_t first, std::int64_t count) const {
    assert(first >= 0 && count >= 0 && first + count <= heads);
    return {data + first * columns, count, rows, columns, row_stride};
  }
  HalfRows first_rows(std::int64_t count) const {
    assert(count >= 0 && count <= rows);
    return {data, heads, count, columns, row_stride};
  }
};

enum class Norm { l1, l2 };

// Where tensors live. The first touch of a new page costs as much as computing what goes into it: large blocks get huge
// pages if there are any, and up to 64 MiB that were given back wait for the next tensors of their sizes.
void* take_tensor_memory(std::size_t bytes);  // throws std::bad_alloc
void give_tensor_memory(void* memory, std::size_t bytes);

// Leaves what isn't given a value as it is.
template <class T>
struct TensorAllocator {
  using value_type = T;
  TensorAllocator() = default;
  template <class U>
  TensorAllocator(const TensorAllocator<U>&) {}
  T* allocate(std::size_t count) { return static_cast<T*>(take_tensor_memory(count * sizeof(T))); }
  void deallocate(T* memory, std::size_t count) { give_tensor_memory(memory, count * sizeof(T)); }
  void construct(T* value) { ::new (value) T; }
  template <class... Arguments>
  void construct(T* value, Arguments&&... arguments) {
    ::new (value) T(std::forward<Arguments>(arguments)...);
  }
  bool operator==(const TensorAllocator&) const = default;
};

// Owns floats laid out [head, row, column], row-major. Per-head vectors are [head, 1, column].
class Tensor {
 public:
  Tensor() = default;
  Tensor(std::int64_t heads, std::int64_t rows, std::int64_t columns, float fill = 0.0F)
      : heads_(heads),
        rows_(rows),
        columns_(columns),
        values_(static_cast<std::size_t>(heads * rows * columns), fill) {}
  // With values that are yet to be written.
  static Tensor unwritten(std::int64_t heads, std::int64_t rows, std::int64_t columns) {
    Tensor tensor;
    tensor.heads_ = heads;
    tensor.rows_ = rows;
    tensor.columns_ = columns;
    tensor.values_.resize(static_cast<std::size_t>(heads * rows * columns));
    return tensor;
  }

  std::int64_t heads() const { return heads_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  bool empty() const { return values_.empty(); }

  std::span<float> values() { return values_; }
  std::span<const float> values() const { return values_; }

  std::span<float> row(std::int64_t head, std::int64_t row) {
    assert(head >= 0 && head < heads_ && row >= 0 && row < rows_);
    return std::span(values_).subspan(static_cast<std::size_t>((head * rows_ + row) * columns_),
                                      static_cast<std::size_t>(columns_));
  }
  std::span<const float> row(std::int64_t head, std::int64_t row) const {
    assert(head >= 0 && head < heads_ && row >= 0 && row < rows_);
    return std::span(values_).subspan(static_cast<std::size_t>((head * rows_ + row) * columns_),
                                      static_cast<std::size_t>(columns_));
  }
  View view() const { return {values_.data(), heads_, rows_, columns_, rows_ * columns_, columns_}; }

 private:
  std::int64_t heads_ = 0;
  std::int64_t rows_ = 0;
  std::int64_t columns_ = 0;
  std::vector<float, TensorAllocator<float>> values_;
};

}  // namespace depthkv
