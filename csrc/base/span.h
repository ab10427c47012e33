// Span and StrView: a pointer and a length, owning nothing.
#pragma once

#include <cstddef>
#include <cstring>

namespace sparsert {

template <typename T>
struct Span {
  const T* data = nullptr;
  size_t size = 0;

  const T& operator[](size_t i) const { return data[i]; }
  const T* begin() const { return data; }
  const T* end() const { return data + size; }
  bool empty() const { return size == 0; }
};

// Not terminated by a zero byte: print with "%.*s", (int)s.size, s.data.
struct StrView {
  const char* data = "";
  size_t size = 0;

  bool operator==(const StrView& o) const {
    return size == o.size && (size == 0 || memcmp(data, o.data, size) == 0);
  }
};

#define SRT_STR(s) static_cast<int>((s).size), (s).data

}  // namespace sparsert
