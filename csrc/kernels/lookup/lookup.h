// Lookup: y[i..., c] = table[indices[i...], c], of a table that stays encoded: the rows that are
// asked for are expanded one by one.
#pragma once

#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// A matrix [rows, cols] in one of the storage encodings (docs/format.md), which has been validated.
struct TableRows {
  enum Kind : uint8_t { kDense, kBitmask, kBlock };
  Kind kind;
  bool is_half;      // values are f16, else f32
  int column_bytes;  // kBlock: 2 or 4 for each block-column; 1: distances
  int32_t block_rows;
  int32_t block_cols;
  int64_t rows;
  int64_t cols;
  const uint8_t* bits;      // kBitmask
  const uint32_t* row_ptr;  // kBlock
  const uint8_t* columns;   // kBlock
  const void* values;
  // kBitmask: the first value of each row. kBlock with distances: the first byte of each block-row
  // in `columns`. Else nullptr.
  const uint32_t* starts;
};

// Positions whose rows are expanded together when y does not hold a row's elements side by side.
constexpr int kLookupGroup = 16;

// io: y, indices, IndexFault. Indices known at plan time are checked there. Others are read when
// the kernel runs; it reports those outside of the table, whose rows become zeros.
struct LookupArgs {
  TableRows table;
  const int64_t* indices;  // in [0, rows); the caller keeps them. nullptr: read io
  int index_bytes;         // 4 or 8, of io's indices
  int64_t y_step;          // floats between elements of a row
  Loop<2> loop;            // y without its last dimension, indices
};

// The last dimension of y is a row; the others are those of the indices. `known`: nullptr, or the
// indices in row-major order; else they are i32 or i64.
LookupArgs MakeLookupArgs(const TableRows& table, const int64_t* known, const TensorDesc& indices,
                          const TensorDesc& y);

// Work items: a few positions each.
int64_t LookupItems(const LookupArgs& args);
size_t LookupScratch(const LookupArgs& args);

// One kernel for every instruction set.
bool SelectLookup(const LookupArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
