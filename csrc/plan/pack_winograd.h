// Packs dense 3x3 filters for the winograd kernel.
#pragma once

#include "base/array.h"
#include "kernels/winograd/winograd.h"

namespace sparsert {

// One layer's transformed filters; owns what the WinogradWeights view points to.
struct PackedWinograd {
  explicit PackedWinograd(const Allocator* a) : values(a) {}

  WinogradWeights weights;
  Array<float> values;

  size_t bytes() const { return values.size_bytes(); }
};

// `filters`: [rows][depth][9]. `shape` gives everything but the values.
Status PackWinograd(const float* filters, const WinogradWeights& shape, PackedWinograd* packed);

}  // namespace sparsert
