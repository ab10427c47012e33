// Decodes DENSE, BITMASK and BLOCK constants. Streams were validated by the reader.
#include "formats/decode.h"

#include <cstring>

#include "base/half.h"

namespace sparsert {
namespace {

constexpr uint8_t kSkip = 255;
constexpr uint64_t kMaxU32 = 0xffffffffu;

struct F32Values {
  const float* data;
  float operator[](size_t i) const { return data[i]; }
};

struct F16Values {
  const uint16_t* data;
  float operator[](size_t i) const { return HalfToFloat(data[i]); }
};

struct I8Values {
  const uint8_t* data;
  float operator[](size_t i) const { return static_cast<float>(static_cast<int8_t>(data[i])); }
};

// Those that a level keeps; the others are 0.
template <typename Values>
struct KeptValues {
  Values values;
  const uint8_t* keep;
  int shift;
  float operator[](size_t i) const {
    const size_t unit = i >> shift;
    return (keep[unit / 8] >> (unit % 8) & 1) != 0 ? values[i] : 0.0f;
  }
};

template <typename Values, typename Body>
Status WithKept(const EncodedTensor& tensor, Values values, const Body& body) {
  if (tensor.keep == nullptr) return body(values);
  return body(KeptValues<Values>{values, tensor.keep, tensor.keep_shift});
}

// Calls `body(values)` with the reader of the tensor's values, so that loops are compiled for each.
// Values are not scaled.
template <typename Body>
Status WithValues(const EncodedTensor& tensor, const Body& body) {
  if (tensor.value_dtype == DType::kF32) {
    return WithKept(tensor, F32Values{reinterpret_cast<const float*>(tensor.values)}, body);
  }
  if (tensor.value_dtype == DType::kF16) {
    return WithKept(tensor, F16Values{reinterpret_cast<const uint16_t*>(tensor.values)}, body);
  }
  if (tensor.value_dtype == DType::kI8) return WithKept(tensor, I8Values{tensor.values}, body);
  return Status::Error(StatusCode::kInvalidArgument,
                       "only f32 and i8 constants can be decoded, not dtype %d",
                       static_cast<int>(tensor.value_dtype));
}

inline int TrailingZeros(uint64_t word) {
#if defined(__GNUC__)
  return __builtin_ctzll(word);
#else
  int count = 0;
  for (; (word & 1) == 0; word >>= 1) ++count;
  return count;
#endif
}

// Walks the block-columns of a tensor from the first block-row to the last.
class ColumnCursor {
 public:
  explicit ColumnCursor(const EncodedTensor& tensor)
      : kind_(tensor.index_kind), at_(tensor.index) {}

  void BeginRow() { passed_ = 0; }

  uint64_t Next() {
    if (kind_ == IndexKind::kDelta8) {
      while (*at_ == kSkip) {
        passed_ += kSkip;
        ++at_;
      }
      passed_ += *at_++ + 1u;
      return passed_ - 1;
    }
    if (kind_ == IndexKind::kU16) {
      uint16_t column;
      memcpy(&column, at_, sizeof(column));
      at_ += sizeof(column);
      return column;
    }
    uint32_t column;
    memcpy(&column, at_, sizeof(column));
    at_ += sizeof(column);
    return column;
  }

 private:
  IndexKind kind_;
  const uint8_t* at_;
  uint64_t passed_ = 0;
};

inline uint64_t CeilDiv(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

// Calls emit(element, value index) for each bit that is set.
template <typename Emit>
void ForEachBit(const EncodedTensor& tensor, const Emit& emit) {
  const uint64_t elems = static_cast<uint64_t>(tensor.rows) * static_cast<uint64_t>(tensor.cols);
  size_t value = 0;
  for (uint64_t first = 0; first < elems; first += 64) {
    uint64_t word;
    memcpy(&word, tensor.bits + first / 8, sizeof(word));
    for (; word != 0; word &= word - 1) {
      emit(first + static_cast<uint64_t>(TrailingZeros(word)), value++);
    }
  }
}

// Appends without growing: the caller has reserved room for every non-zero.
struct CsrSink {
  uint32_t* col_idx;
  float* values;
  size_t count = 0;

  // Writes always, advances past non-zeros only: no branch to mispredict. col_idx and values have
  // one element to spare.
  void Put(uint64_t column, float value) {
    col_idx[count] = static_cast<uint32_t>(column);
    values[count] = value;
    count += value != 0.0f;  // NaN != 0 is true
  }
};

template <typename Values>
void DenseToCsr(const EncodedTensor& tensor, Values values, uint32_t* row_ptr, CsrSink* sink) {
  const size_t cols = static_cast<size_t>(tensor.cols);
  for (size_t row = 0; row < static_cast<size_t>(tensor.rows); ++row) {
    for (size_t col = 0; col < cols; ++col) sink->Put(col, values[row * cols + col]);
    row_ptr[row + 1] = static_cast<uint32_t>(sink->count);
  }
}

template <typename Values>
void BitmaskToCsr(const EncodedTensor& tensor, Values values, uint32_t* row_ptr, CsrSink* sink) {
  const uint64_t cols = static_cast<uint64_t>(tensor.cols);
  uint64_t row = 0;
  uint64_t row_end = cols;
  ForEachBit(tensor, [&](uint64_t elem, size_t value) {
    while (elem >= row_end) {
      row_ptr[++row] = static_cast<uint32_t>(sink->count);
      row_end += cols;
    }
    sink->Put(elem - (row_end - cols), values[value]);
  });
  while (row < static_cast<uint64_t>(tensor.rows)) {
    row_ptr[++row] = static_cast<uint32_t>(sink->count);
  }
}

template <typename Values>
Status BlocksToCsr(const EncodedTensor& tensor, Values values, const Allocator* allocator,
                   uint32_t* row_ptr, CsrSink* sink) {
  const uint64_t rows = static_cast<uint64_t>(tensor.rows);
  const uint64_t brows = CeilDiv(rows, tensor.block_rows);
  ColumnCursor cursor(tensor);
  if (tensor.block_rows == 1) {
    size_t value = 0;
    for (uint64_t row = 0; row < rows; ++row) {
      cursor.BeginRow();
      for (uint32_t b = tensor.row_ptr[row]; b < tensor.row_ptr[row + 1]; ++b) {
        const uint64_t first = cursor.Next() * tensor.block_cols;
        for (uint64_t c = 0; c < tensor.block_cols; ++c) sink->Put(first + c, values[value++]);
      }
      row_ptr[row + 1] = static_cast<uint32_t>(sink->count);
    }
    return Status::Ok();
  }
  Array<uint32_t> columns(allocator);  // of one block-row: its rows are emitted one by one
  for (uint64_t brow = 0; brow < brows; ++brow) {
    const uint32_t first = tensor.row_ptr[brow];
    const uint32_t count = tensor.row_ptr[brow + 1] - first;
    SRT_RETURN_IF_ERROR(columns.resize(count));
    cursor.BeginRow();
    for (uint32_t b = 0; b < count; ++b) columns[b] = static_cast<uint32_t>(cursor.Next());
    for (uint64_t r = 0; r < tensor.block_rows; ++r) {
      const uint64_t row = brow * tensor.block_rows + r;
      if (row >= rows) break;
      for (uint32_t b = 0; b < count; ++b) {
        sink->Put(columns[b], values[(size_t{first} + b) * tensor.block_rows + r]);
      }
      row_ptr[row + 1] = static_cast<uint32_t>(sink->count);
    }
  }
  return Status::Ok();
}

template <typename Values>
void BlocksToDense(const EncodedTensor& tensor, Values values, float* out) {
  const uint64_t rows = static_cast<uint64_t>(tensor.rows);
  const uint64_t cols = static_cast<uint64_t>(tensor.cols);
  const uint64_t brows = CeilDiv(rows, tensor.block_rows);
  ColumnCursor cursor(tensor);
  size_t value = 0;
  if (tensor.block_rows == 1 && tensor.block_cols == 1) {
    for (uint64_t row = 0; row < rows; ++row) {
      cursor.BeginRow();
      for (; value < tensor.row_ptr[row + 1]; ++value) {
        out[row * cols + cursor.Next()] = values[value];
      }
    }
    return;
  }
  for (uint64_t brow = 0; brow < brows; ++brow) {
    cursor.BeginRow();
    for (uint32_t b = tensor.row_ptr[brow]; b < tensor.row_ptr[brow + 1]; ++b) {
      const uint64_t first_col = cursor.Next() * tensor.block_cols;
      for (uint64_t r = 0; r < tensor.block_rows; ++r) {
        for (uint64_t c = 0; c < tensor.block_cols; ++c, ++value) {
          const uint64_t row = brow * tensor.block_rows + r;
          if (row < rows && first_col + c < cols) out[row * cols + first_col + c] = values[value];
        }
      }
    }
  }
}

// Of the rows [first, first + count).
void ScaleRows(const EncodedTensor& tensor, int64_t first, int64_t count, float* out) {
  if (tensor.row_scale == nullptr) return;
  for (int64_t row = 0; row < count; ++row) {
    const float scale = tensor.row_scale[first + row];
    float* of = out + row * tensor.cols;
    // Zeros keep their sign: a pruned weight is all-zero bits.
    for (int64_t col = 0; col < tensor.cols; ++col) of[col] = of[col] * scale + 0.0f;
  }
}

// Products that are 0 are dropped.
void ScaleCsr(const float* row_scale, Csr* csr, CsrSink* sink) {
  sink->count = 0;
  uint32_t begin = 0;
  for (size_t row = 0; row < static_cast<size_t>(csr->rows); ++row) {
    const uint32_t end = csr->row_ptr[row + 1];
    for (uint32_t i = begin; i < end; ++i) {
      sink->Put(csr->col_idx[i], csr->values[i] * row_scale[row]);
    }
    csr->row_ptr[row + 1] = static_cast<uint32_t>(sink->count);
    begin = end;
  }
}

}  // namespace

Status CountNonZeros(const EncodedTensor& tensor, uint64_t* nnz) {
  return WithValues(tensor, [&](auto values) {
    const size_t stored = static_cast<size_t>(tensor.stored_values);
    uint64_t count = 0;
    for (size_t i = 0; i < stored; ++i) count += values[i] != 0.0f;
    *nnz = count;
    return Status::Ok();
  });
}

Status DecodeCsr(const EncodedTensor& tensor, Csr* csr) {
  uint64_t nnz = 0;
  SRT_RETURN_IF_ERROR(CountNonZeros(tensor, &nnz));
  const uint64_t rows = static_cast<uint64_t>(tensor.rows);
  const uint64_t cols = static_cast<uint64_t>(tensor.cols);
  if (rows == 0 || cols == 0 || rows >= kMaxU32 || cols > kMaxU32 || nnz >= kMaxU32) {
    return Status::Error(StatusCode::kUnsupported, "CSR cannot hold a matrix of %lld x %lld",
                         static_cast<long long>(tensor.rows), static_cast<long long>(tensor.cols));
  }
  csr->rows = tensor.rows;
  csr->cols = tensor.cols;
  csr->row_ptr.clear();
  csr->col_idx.clear();
  csr->values.clear();
  SRT_RETURN_IF_ERROR(csr->row_ptr.resize(static_cast<size_t>(rows) + 1));
  SRT_RETURN_IF_ERROR(csr->col_idx.resize(static_cast<size_t>(nnz) + 1));
  SRT_RETURN_IF_ERROR(csr->values.resize(static_cast<size_t>(nnz) + 1));
  CsrSink sink{csr->col_idx.data(), csr->values.data()};
  uint32_t* row_ptr = csr->row_ptr.data();
  SRT_RETURN_IF_ERROR(WithValues(tensor, [&](auto values) {
    switch (tensor.encoding) {
      case Encoding::kDense:
        DenseToCsr(tensor, values, row_ptr, &sink);
        break;
      case Encoding::kBitmask:
        BitmaskToCsr(tensor, values, row_ptr, &sink);
        break;
      case Encoding::kBlock:
        return BlocksToCsr(tensor, values, csr->row_ptr.allocator(), row_ptr, &sink);
    }
    return Status::Ok();
  }));
  if (tensor.row_scale != nullptr) ScaleCsr(tensor.row_scale, csr, &sink);
  SRT_RETURN_IF_ERROR(csr->col_idx.resize(sink.count));
  return csr->values.resize(sink.count);
}

Status DecodeDenseRows(const EncodedTensor& tensor, int64_t first, int64_t count, float* out) {
  const size_t begin = static_cast<size_t>(first) * static_cast<size_t>(tensor.cols);
  const size_t elems = static_cast<size_t>(count) * static_cast<size_t>(tensor.cols);
  SRT_RETURN_IF_ERROR(WithValues(tensor, [&](auto values) {
    for (size_t i = 0; i < elems; ++i) out[i] = values[begin + i];
    return Status::Ok();
  }));
  ScaleRows(tensor, first, count, out);
  return Status::Ok();
}

Status DecodeDense(const EncodedTensor& tensor, float* out) {
  const size_t elems = static_cast<size_t>(tensor.rows) * static_cast<size_t>(tensor.cols);
  SRT_RETURN_IF_ERROR(WithValues(tensor, [&](auto values) {
    if (tensor.encoding == Encoding::kDense) {
      for (size_t i = 0; i < elems; ++i) out[i] = values[i];
      return Status::Ok();
    }
    if (elems != 0) memset(out, 0, elems * sizeof(float));
    if (tensor.encoding == Encoding::kBitmask) {
      ForEachBit(tensor, [&](uint64_t elem, size_t value) { out[elem] = values[value]; });
    } else {
      BlocksToDense(tensor, values, out);
    }
    return Status::Ok();
  }));
  ScaleRows(tensor, 0, tensor.rows, out);
  return Status::Ok();
}

Status FindRowStarts(const EncodedTensor& tensor, Array<uint32_t>* starts) {
  starts->clear();
  const bool is_mask = tensor.encoding == Encoding::kBitmask;
  const bool is_delta =
      tensor.encoding == Encoding::kBlock && tensor.index_kind == IndexKind::kDelta8;
  if (!is_mask && !is_delta) return Status::Ok();
  if (tensor.stored_values > kMaxU32 || tensor.index_bytes > kMaxU32) {
    return Status::Error(StatusCode::kUnsupported, "a table holds over 2^32 values");
  }
  const uint64_t rows = static_cast<uint64_t>(tensor.rows);
  if (is_mask) {
    SRT_RETURN_IF_ERROR(starts->resize(static_cast<size_t>(rows)));
    const uint64_t cols = static_cast<uint64_t>(tensor.cols);
    uint64_t row = 0;
    ForEachBit(tensor, [&](uint64_t elem, size_t value) {
      for (; row < rows && row * cols <= elem; ++row) {
        (*starts)[row] = static_cast<uint32_t>(value);
      }
    });
    for (; row < rows; ++row) (*starts)[row] = static_cast<uint32_t>(tensor.stored_values);
    return Status::Ok();
  }
  const uint64_t brows = CeilDiv(rows, tensor.block_rows);
  SRT_RETURN_IF_ERROR(starts->resize(static_cast<size_t>(brows)));
  const uint8_t* at = tensor.index;
  for (uint64_t brow = 0; brow < brows; ++brow) {
    (*starts)[brow] = static_cast<uint32_t>(at - tensor.index);
    uint32_t left = tensor.row_ptr[brow + 1] - tensor.row_ptr[brow];
    for (; left != 0; ++at) left -= *at != kSkip;
  }
  return Status::Ok();
}

}  // namespace sparsert
