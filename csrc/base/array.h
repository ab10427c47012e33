// Allocator (caller-supplied memory) and Array, the core's only container.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/span.h"
#include "base/status.h"

namespace sparsert {

// Every byte of the core comes from one of these. `allocate` returns memory aligned to `alignment`
// (a power of two) or nullptr; `release` gets what `allocate` returned and the same size.
struct Allocator {
  void* (*allocate)(void* context, size_t bytes, size_t alignment) = nullptr;
  void (*release)(void* context, void* memory, size_t bytes) = nullptr;
  void* context = nullptr;
};

constexpr size_t kCacheLine = 64;

// A growing array of trivially copyable T from an Allocator, aligned to a cache line. Growing may
// fail: every growing call returns a Status. Moves, never copies.
template <typename T>
class Array {
  static_assert(std::is_trivially_copyable<T>::value, "Array moves its elements with memcpy");

 public:
  Array() = default;
  explicit Array(const Allocator* allocator) : allocator_(allocator) {}
  Array(Array&& o) noexcept { swap(o); }
  Array& operator=(Array&& o) noexcept {
    swap(o);
    return *this;
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { reset(); }

  void swap(Array& o) noexcept {
    std::swap(allocator_, o.allocator_);
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    std::swap(capacity_, o.capacity_);
  }
  void set_allocator(const Allocator* allocator) { allocator_ = allocator; }
  const Allocator* allocator() const { return allocator_; }

  void reset() {
    if (data_ != nullptr) allocator_->release(allocator_->context, data_, capacity_ * sizeof(T));
    data_ = nullptr;
    size_ = capacity_ = 0;
  }

  Status reserve(size_t n) {
    if (n <= capacity_) return Status::Ok();
    if (n > SIZE_MAX / sizeof(T) / 2) return Status::OutOfMemory("array", n);
    return move_to(n);
  }
  // Gives back the room behind the last element.
  Status shrink() {
    if (size_ == capacity_) return Status::Ok();
    if (size_ != 0) return move_to(size_);
    reset();
    return Status::Ok();
  }

  // New elements are zero bytes.
  Status resize(size_t n) {
    if (n > capacity_) {
      SRT_RETURN_IF_ERROR(reserve(n > capacity_ + capacity_ / 2 ? n : capacity_ + capacity_ / 2));
    }
    if (n > size_) memset(static_cast<void*>(data_ + size_), 0, (n - size_) * sizeof(T));
    size_ = n;
    return Status::Ok();
  }

  Status push_back(const T& value) {
    if (size_ == capacity_) {
      const T kept = value;  // `value` may live in this array
      SRT_RETURN_IF_ERROR(reserve(capacity_ == 0 ? 8 : capacity_ * 2));
      data_[size_++] = kept;
      return Status::Ok();
    }
    data_[size_++] = value;
    return Status::Ok();
  }

  // Makes room for `n` more, growing geometrically.
  Status reserve_more(size_t n) {
    if (size_ + n <= capacity_) return Status::Ok();
    return reserve(size_ + n > capacity_ * 2 ? size_ + n : capacity_ * 2);
  }
  // After reserve_more.
  void push_unchecked(const T& value) { data_[size_++] = value; }
  // The same for `n` elements, to be written by the caller.
  T* extend_unchecked(size_t n) {
    T* first = data_ + size_;
    size_ += n;
    return first;
  }

  Status append(const T* values, size_t n) {
    SRT_RETURN_IF_ERROR(reserve_more(n));
    if (n != 0) memcpy(static_cast<void*>(data_ + size_), values, n * sizeof(T));
    size_ += n;
    return Status::Ok();
  }

  void clear() { size_ = 0; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t size_bytes() const { return size_ * sizeof(T); }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T& back() { return data_[size_ - 1]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  Span<T> span() const { return {data_, size_}; }

 private:
  // Memory for n elements, at least as many as there are.
  Status move_to(size_t n) {
    T* moved =
        static_cast<T*>(allocator_->allocate(allocator_->context, n * sizeof(T), kCacheLine));
    if (moved == nullptr) return Status::OutOfMemory("array", n * sizeof(T));
    if (size_ != 0) memcpy(static_cast<void*>(moved), data_, size_ * sizeof(T));
    if (data_ != nullptr) allocator_->release(allocator_->context, data_, capacity_ * sizeof(T));
    data_ = moved;
    capacity_ = n;
    return Status::Ok();
  }

  const Allocator* allocator_ = nullptr;
  T* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace sparsert
