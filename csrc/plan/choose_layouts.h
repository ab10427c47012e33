// The pass that decides which activations are stored feature-major.
#pragma once

#include "graph/infer_shapes.h"

namespace sparsert {

// Fills `feature_major`: [graph.tensors]. The layout is that of the planes of [N, F, ...], seen as
// [N, ..., F]: of a tensor of rank >= 3, the dimensions between the first and the last are
// contiguous (its columns), features lie one column row apart; a matrix [N, F] is one image of N
// columns. A matrix product then reads and
// writes columns directly, and the Transpose between it and a convolution is a view.
//
// Tensors that elementwise ops, and reshapes of their columns, connect share a layout. They are
// feature-major when one of them is an operand of a Linear, or by a Transpose planes or of an op on
// packed bytes, and no op among their users needs them otherwise.
Status ChooseLayouts(const Graph& graph, const ShapeTable& table, Array<bool>* feature_major);

// Product of the dimensions between the first and the last; of a matrix, the first.
int64_t ColumnsOf(const Shape& shape);

// Whether a reshape leaves images and features as they are: only columns are counted otherwise.
bool KeepsFeatures(const Shape& from, const Shape& to);

// Elements between planes of this size.
int64_t PlaneStride(int64_t plane);

// The feature-major layout of a float tensor of its own.
TensorDesc FeatureMajorDesc(const Shape& shape);

// Whether a tensor of rank >= 3 is laid out so that columns are contiguous, apart from padding.
bool IsFeatureMajor(const TensorDesc& desc);
// The same for planes, each image and each plane behind the one before.
bool IsPlanes(const TensorDesc& desc);

// Bytes of a tensor in memory of its own.
size_t StorageBytes(const TensorDesc& desc);

}  // namespace sparsert
