// Bump: memory that is given out piece by piece and released all at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/array.h"

namespace sparsert {

class Bump {
 public:
  explicit Bump(const Allocator* allocator) : allocator_(allocator) {}
  Bump(const Bump&) = delete;
  Bump& operator=(const Bump&) = delete;
  ~Bump() {
    while (chunks_ != nullptr) {
      Chunk* next = chunks_->next;
      allocator_->release(allocator_->context, chunks_, chunks_->bytes);
      chunks_ = next;
    }
  }

  // `n` zeroed objects, aligned to a cache line; nullptr when memory is out.
  template <typename T>
  T* Allocate(size_t n) {
    static_assert(std::is_trivially_destructible<T>::value, "Bump runs no destructors");
    if (n > SIZE_MAX / 2 / sizeof(T)) return nullptr;
    return static_cast<T*>(AllocateBytes(n * sizeof(T)));
  }

  // No more than so many bytes are given out, but always a chunk; 0: as many as there are.
  void LimitTo(uint64_t bytes) { limit_ = bytes; }
  // Whether so many more would be given out.
  bool Fits(size_t bytes) const {
    return limit_ == 0 || (bytes <= limit_ && bytes_ <= limit_ - bytes) ||
           (bytes_ == 0 && bytes <= kChunkBytes);
  }

  // Everything that `other`, of the same allocator, gave out lives as long as this does.
  void Take(Bump* other) {
    while (other->chunks_ != nullptr) {
      Chunk* chunk = other->chunks_;
      other->chunks_ = chunk->next;
      chunk->next = chunks_;
      chunks_ = chunk;
    }
    bytes_ += other->bytes_;
    other->bytes_ = 0;
  }

  size_t bytes() const { return bytes_; }
  const Allocator* allocator() const { return allocator_; }

 private:
  struct Chunk {
    Chunk* next;
    size_t bytes;
    size_t used;
  };
  static constexpr size_t kChunkBytes = 64 * 1024;

  void* AllocateBytes(size_t bytes) {
    bytes = (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
    if (bytes == 0) bytes = kCacheLine;
    if (chunks_ == nullptr || chunks_->bytes - chunks_->used < bytes) {
      size_t need = bytes + kCacheLine;
      if (need < kChunkBytes) need = kChunkBytes;
      if (!Fits(need)) return nullptr;
      auto* chunk =
          static_cast<Chunk*>(allocator_->allocate(allocator_->context, need, kCacheLine));
      if (chunk == nullptr) return nullptr;
      chunk->next = chunks_;
      chunk->bytes = need;
      chunk->used = kCacheLine;
      chunks_ = chunk;
      bytes_ += need;
    }
    char* memory = reinterpret_cast<char*>(chunks_) + chunks_->used;
    chunks_->used += bytes;
    memset(memory, 0, bytes);
    return memory;
  }

  const Allocator* allocator_;
  Chunk* chunks_ = nullptr;
  size_t bytes_ = 0;
  uint64_t limit_ = 0;
};

}  // namespace sparsert
