// Decodes the storage encodings of a .sprt file into dense or CSR form in memory.
#pragma once

#include "base/array.h"
#include "graph/graph.h"

namespace sparsert {

// Compressed sparse rows. Columns strictly increase within a row; stored zeros are dropped.
struct Csr {
  explicit Csr(const Allocator* allocator)
      : row_ptr(allocator), col_idx(allocator), values(allocator) {}

  int64_t rows = 0;
  int64_t cols = 0;
  Array<uint32_t> row_ptr;  // [rows + 1]
  Array<uint32_t> col_idx;  // [nnz]
  Array<float> values;      // [nnz]

  size_t nnz() const { return values.size(); }
};

// Numbers of a constant's non-zeros, without decoding it whole: with scales, before they apply.
Status CountNonZeros(const EncodedTensor& tensor, uint64_t* nnz);

// Constants with f32, f16 or i8 values only.
Status DecodeCsr(const EncodedTensor& tensor, Csr* csr);

// Of Encoding::kDense: `out` gets [count * cols] floats.
Status DecodeDenseRows(const EncodedTensor& tensor, int64_t first, int64_t count, float* out);

// `out`: [rows * cols] floats, row-major.
Status DecodeDense(const EncodedTensor& tensor, float* out);

// Where rows begin, to read them one by one. `starts` gets, of a bit mask, the first value of each
// row; of blocks with distances, the first byte of each block-row in the index; else nothing.
// kUnsupported when 32 bits do not hold it.
Status FindRowStarts(const EncodedTensor& tensor, Array<uint32_t>* starts);

}  // namespace sparsert
