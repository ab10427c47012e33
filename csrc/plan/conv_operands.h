// What the lowerings of convolutions share, of floats and of packed bytes.
#pragma once

#include "plan/lower_spmm.h"

namespace sparsert {

// The planes of an activation: strides of image and channel, in elements. Of rank 2, a plane is one
// element.
struct Planes {
  int64_t image;
  int64_t plane;
};
inline Planes PlanesOf(const TensorDesc& desc) { return {desc.strides[0], desc.strides[1]}; }

// Where the planes of an input and of a result are, among a kernel's arguments.
template <typename Args>
void PlaceInOut(const TensorDesc& x, const TensorDesc& y, Args* args) {
  args->x_image = PlanesOf(x).image;
  args->x_plane = PlanesOf(x).plane;
  args->y_image = PlanesOf(y).image;
  args->y_plane = PlanesOf(y).plane;
}

// And a window's padding and sizes.
template <typename Args>
void PlaceWindow(const Window& w, Args* args) {
  args->pad_h = w.pad_begin[0];
  args->pad_w = w.pad_begin[1];
  args->in_h = w.in[0];
  args->in_w = w.in[1];
  args->out_h = w.out[0];
  args->out_w = w.out[1];
}

// 1 x 1, stride 1, no padding.
bool IsPointwise(const Window& w);

// 1 x 1, without padding, and a stride: pointwise on some of the columns.
bool IsSubsampled(const Window& w);

// Appends the step that copies these columns of the input of `o`, of so many channels, side by
// side, and lets it read them as planes. `tiling`: of the input's tiles; nullptr: it lies in
// planes.
Status SubsampleColumns(PlanBuilder* b, int64_t channels, const Tiling* tiling, SpmmOperands* o);

// Whether splitting the input into the phases of the strides takes less than picking each tap's
// columns apart: every second column is picked from two loads, of other strides a lane at a time.
bool GainsByPhases(const Window& w);

// Appends the step that splits the input of `o`, of so many channels, and lets it read the phases.
Status AddPhases(PlanBuilder* b, int64_t channels, SpmmOperands* o);

}  // namespace sparsert
