// Packs weights that hold hardly any zeros: straight from the file, a few rows at a time.
#pragma once

#include "plan/pack_spmm.h"
#include "plan/pack_spmv.h"

namespace sparsert {

// The rows of a constant stored as Encoding::kDense. With `mapped`, its pages leave memory as soon
// as rows behind them are asked for: together with what is packed of them, they would take twice as
// much.
class DenseRows {
 public:
  DenseRows(const EncodedTensor& tensor, bool mapped, const Allocator* allocator)
      : tensor_(tensor), mapped_(mapped), decoded_(allocator) {}
  ~DenseRows() { Forget(tensor_.rows); }
  DenseRows(const DenseRows&) = delete;
  DenseRows& operator=(const DenseRows&) = delete;

  int64_t rows() const { return tensor_.rows; }
  int64_t cols() const { return tensor_.cols; }

  // Rows [first, first + count) by rising first; good until the next call.
  Status Get(int64_t first, int64_t count, const float** rows);

 private:
  void Forget(int64_t end);  // rows before `end`

  const EncodedTensor& tensor_;
  bool mapped_;
  Array<float> decoded_;
  int64_t forgotten_ = 0;  // rows
};

// As PackSpmm, for dense formats; columns without a non-zero stay.
Status PackDenseSpmm(DenseRows* weights, int32_t groups, int32_t taps, SpmmFormat format,
                     bool direct, int32_t block_depth, PackedSpmm* packed);

// As PackSpmv, for SpmvFormat::kDense.
Status PackDenseSpmv(DenseRows* weights, const float* bias, int32_t lanes, PackedSpmv* packed);

}  // namespace sparsert
