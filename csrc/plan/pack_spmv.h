// Packs a CSR matrix into the slices of the spmv kernels.
#pragma once

#include "base/array.h"
#include "formats/decode.h"
#include "kernels/spmv/spmv.h"

namespace sparsert {

struct PackedSpmv {
  explicit PackedSpmv(const Allocator* a)
      : row_of(a), bias(a), widths(a), wholes(a), offsets(a), ids(a), bits(a), values(a) {}

  SpmvFormat format = SpmvFormat::kDense;
  PackedSlices slices;  // views into the arrays below
  Array<uint32_t> row_of;
  Array<float> bias;
  Array<uint32_t> widths;
  Array<uint32_t> wholes;
  Array<uint64_t> offsets;
  Array<uint16_t> ids;
  Array<uint8_t> bits;
  Array<float> values;

  // Once the arrays have their sizes; that of the bias is 0 where there is none.
  void SetViews() {
    slices.row_of = row_of.data();
    slices.bias = bias.size() == 0 ? nullptr : bias.data();
    slices.widths = widths.data();
    slices.wholes = wholes.data();
    slices.offsets = offsets.data();
    slices.ids = ids.data();
    slices.bits = bits.data();
    slices.values = values.data();
  }
  size_t bytes() const {
    return row_of.size_bytes() + bias.size_bytes() + widths.size_bytes() + wholes.size_bytes() +
           offsets.size_bytes() + ids.size_bytes() + bits.size_bytes() + values.size_bytes();
  }
};

// `bias`: [rows] or nullptr. `bytes`: a value is four of them. `perm_pairs`: perm is for groups
// of vectors.
Status PackSpmv(const Csr& weights, const float* bias, SpmvFormat format, int32_t lanes,
                PackedSpmv* packed, bool bytes = false, bool perm_pairs = false);

}  // namespace sparsert
