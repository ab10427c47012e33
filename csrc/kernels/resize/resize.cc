// Resize: coordinate tables, arguments and selection.
#include "kernels/resize/resize.h"

#include <cmath>

#include "kernels/resize/bands.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#define SRT_AXIS_KERNEL SRT_DECLARE_KERNEL
#define SRT_NEAREST_KERNEL SRT_DECLARE_KERNEL
#include "kernels/resize/kernels.inc"

#define SRT_NO_ROW(function, isa)

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#define SRT_AXIS_KERNEL SRT_NO_ROW
#define SRT_NEAREST_KERNEL SRT_NO_ROW
#include "kernels/resize/kernels.inc"
};

static const Kernel kAxisKernels[] = {
#define SRT_KERNEL SRT_NO_ROW
#define SRT_AXIS_KERNEL SRT_KERNEL_ROW
#define SRT_NEAREST_KERNEL SRT_NO_ROW
#include "kernels/resize/kernels.inc"
};

static const Kernel kNearestKernels[] = {
#define SRT_KERNEL SRT_NO_ROW
#define SRT_AXIS_KERNEL SRT_NO_ROW
#define SRT_NEAREST_KERNEL SRT_KERNEL_ROW
#include "kernels/resize/kernels.inc"
};

namespace {

struct Axis {
  int64_t in;
  int64_t out;
  float scale;
  float begin = 0.0f;  // of a crop
  float end = 1.0f;
};

// Where y's index i lies in x.
float SourceCoordinate(CoordinateMode mode, const Axis& axis, int64_t i) {
  const float at = static_cast<float>(i);
  const bool is_crop = mode == CoordinateMode::kTfCropAndResize;
  if (!is_crop && axis.scale == 1.0f && axis.in == axis.out) return at;
  const float in = static_cast<float>(axis.in);
  const float out = static_cast<float>(axis.out);
  switch (mode) {
    case CoordinateMode::kPytorchHalfPixel:
      return axis.out > 1 ? (at + 0.5f) / axis.scale - 0.5f : 0.0f;
    case CoordinateMode::kAlignCorners:
      return axis.out == 1 ? 0.0f : at * (in - 1.0f) / (out - 1.0f);
    case CoordinateMode::kAsymmetric:
      return at / axis.scale;
    case CoordinateMode::kHalfPixelSymmetric: {
      // ONNX Runtime takes the last three steps in double.
      const float adjustment = out / (axis.scale * in);
      const double offset = static_cast<double>(in / 2.0f * (1.0f - adjustment));
      const double middle = static_cast<double>(at) + 0.5;
      return static_cast<float>(offset + middle / static_cast<double>(axis.scale) - 0.5);
    }
    case CoordinateMode::kTfCropAndResize:
      if (axis.out == 1) return 0.5f * (axis.begin + axis.end) * (in - 1.0f);
      return axis.begin * (in - 1.0f) + at * (axis.end - axis.begin) * (in - 1.0f) / (out - 1.0f);
    default:
      return (at + 0.5f) / axis.scale - 0.5f;
  }
}

// A tie is not always hit exactly: 1 / (2.0f / 7) is a little less than 3.5. As in ONNX Runtime, a
// coordinate this close to a tie is one.
constexpr float kTieTolerance = 1e-6f;

int32_t NearestIndex(NearestMode mode, float at, int64_t in) {
  float index = std::floor(at);
  const float fraction = at - index;
  switch (mode) {
    case NearestMode::kRoundPreferFloor:
      if (fraction - 0.5f > kTieTolerance) index += 1.0f;
      break;
    case NearestMode::kRoundPreferCeil:
      if (fraction - 0.5f >= -kTieTolerance) index += 1.0f;
      break;
    case NearestMode::kCeil:
      if (fraction > 0.0f) index += 1.0f;
      break;
    default:
      break;
  }
  if (!(index > 0.0f)) return 0;
  const float last = static_cast<float>(in - 1);
  return static_cast<int32_t>(index < last ? index : last);
}

// low, high: [axis.out] integers; weight: [axis.out] floats; all with room behind.
void FillLinear(CoordinateMode mode, const Axis& axis, int32_t* low, int32_t* high, float* weight) {
  const float last = static_cast<float>(axis.in - 1);
  for (int64_t i = 0; i < axis.out; ++i) {
    float at = SourceCoordinate(mode, axis, i);
    at = !(at > 0.0f) ? 0.0f : at < last ? at : last;
    low[i] = static_cast<int32_t>(at);
    high[i] = low[i] + 1 < axis.in ? low[i] + 1 : low[i];
    weight[i] = at - static_cast<float>(low[i]);
  }
  for (int64_t i = axis.out; i < axis.out + kRowRoom; ++i) {
    low[i] = high[i] = axis.out == 0 ? 0 : high[axis.out - 1];
    weight[i] = 0.0f;
  }
}

// Whether vectors of all lengths that instruction sets have read no more than as many elements.
bool ReadsVectors(const int32_t* low, const int32_t* high, int64_t out) {
  for (const int64_t lanes : {4, 8, 16}) {
    for (int64_t i = 0; i < out; ++i) {
      const int64_t last = i + lanes < out ? i + lanes - 1 : out - 1;
      if (high[last] - low[i] >= lanes || low[i] > low[last]) return false;
    }
  }
  return true;
}

Axis AxisOf(const ResizeSpec& spec, const TensorDesc& x, const TensorDesc& y, int d) {
  return {x.shape.dims[d], y.shape.dims[d], spec.scale[d], spec.begin[d], spec.end[d]};
}

ResizeColumns ColumnsOf(const int32_t* index, int64_t in, int64_t out) {
  bool climbs = true;
  bool same = in == out;
  bool twice = out == 2 * in;
  for (int64_t i = 0; i < out; ++i) {
    climbs = climbs && (i == 0 || (index[i] >= index[i - 1] && index[i] <= index[i - 1] + 1));
    same = same && index[i] == i;
    twice = twice && index[i] == i / 2;
  }
  if (same) return ResizeColumns::kSame;
  if (twice) return ResizeColumns::kTwice;
  return climbs ? ResizeColumns::kClimbing : ResizeColumns::kAny;
}

Status MakeNearest(const ResizeSpec& spec, const TensorDesc& x, const TensorDesc& y,
                   Array<int32_t>* tables, ResizeArgs* args) {
  const int added = y.shape.rank < 2 ? 2 - y.shape.rank : 0;  // dimensions of one element, in front
  args->rank = y.shape.rank + added;
  const auto axis_of = [&](int d) {
    return d < added ? Axis{1, 1, 1.0f} : AxisOf(spec, x, y, d - added);
  };
  size_t size = 0;
  for (int d = 0; d < args->rank; ++d) {
    size += static_cast<size_t>(axis_of(d).out) + kRowRoom;
  }
  SRT_RETURN_IF_ERROR(tables->resize(size));
  int32_t* index = tables->data();
  for (int d = 0; d < args->rank; ++d) {
    const Axis axis = axis_of(d);
    args->dims[d] = axis.out;
    args->x_strides[d] = d < added ? 0 : x.strides[d - added];
    args->y_strides[d] = d < added ? 0 : y.strides[d - added];
    args->index[d] = index;
    int32_t last = 0;
    for (int64_t i = 0; i < axis.out; ++i) {
      last = NearestIndex(spec.nearest, SourceCoordinate(spec.coordinates, axis, i), axis.in);
      *index++ = last;
    }
    for (int64_t i = 0; i < kRowRoom; ++i) *index++ = last;
    if (d < args->rank - 2) continue;
    args->in[d - (args->rank - 2)] = axis.in;
    args->out[d - (args->rank - 2)] = axis.out;
  }
  args->x_row = args->x_strides[args->rank - 2];
  args->y_row = args->y_strides[args->rank - 2];
  const int row = args->rank - 1;
  args->columns = args->x_strides[row] == 1 && args->y_strides[row] == 1
                      ? ColumnsOf(args->index[row], args->in[1], args->out[1])
                      : ResizeColumns::kAny;
  return Status::Ok();
}

Status MakeLinear(const ResizeSpec& spec, const TensorDesc& x, const TensorDesc& y,
                  Array<int32_t>* tables, ResizeArgs* args) {
  const int rank = y.shape.rank;
  for (int d = 0; d < rank - 2; ++d) {
    if (x.shape.dims[d] != y.shape.dims[d] || spec.scale[d] != 1.0f) {
      return Status::Error(StatusCode::kUnsupported,
                           "linear Resize along dimension %d of %d: only the last two", d, rank);
    }
  }
  Axis axes[2] = {{1, 1, 1.0f}, {1, 1, 1.0f}};
  args->x_row = args->y_row = 0;
  for (int i = 0; i < 2; ++i) {
    if (rank - 2 + i >= 0) axes[i] = AxisOf(spec, x, y, rank - 2 + i);
    args->in[i] = axes[i].in;
    args->out[i] = axes[i].out;
  }
  if (rank >= 2) {
    args->x_row = x.strides[rank - 2];
    args->y_row = y.strides[rank - 2];
  }
  Shape leading = y.shape;
  leading.rank = rank > 2 ? rank - 2 : 0;
  args->planes = MakeLoop<2>(leading, {y.strides, x.strides}, false);
  const size_t sizes[2] = {static_cast<size_t>(axes[0].out + kRowRoom),
                           static_cast<size_t>(axes[1].out + kRowRoom)};
  SRT_RETURN_IF_ERROR(tables->resize(3 * (sizes[0] + sizes[1])));
  int32_t* at = tables->data();
  for (int i = 0; i < 2; ++i) {
    int32_t* low = at;
    int32_t* high = low + sizes[i];
    // The array holds 4-byte elements; these are written and read as floats only.
    float* weight = reinterpret_cast<float*>(high + sizes[i]);
    at += 3 * sizes[i];
    FillLinear(spec.coordinates, axes[i], low, high, weight);
    args->low[i] = low;
    args->high[i] = high;
    args->weight[i] = weight;
  }
  args->columns = ReadsVectors(args->low[1], args->high[1], axes[1].out) ? ResizeColumns::kClimbing
                                                                         : ResizeColumns::kAny;
  return Status::Ok();
}

// The weight of an element `distance` away; `a` is that of the cubic filter.
double Filter(ResizeMode mode, double a, double distance) {
  const double d = std::fabs(distance);
  if (mode == ResizeMode::kLinear) return d < 1.0 ? 1.0 - d : 0.0;
  if (d <= 1.0) return ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
  return d < 2.0 ? ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a : 0.0;
}

// The elements of x that one of y is made of.
struct Taps {
  int64_t first = 0;
  int64_t count = 0;
};

Taps TapsOf(const ResizeSpec& spec, const Axis& axis, int64_t i, double* weights) {
  const float place = SourceCoordinate(spec.coordinates, axis, i);
  const double last = static_cast<double>(axis.in - 1);
  Taps taps;
  const bool is_crop = spec.coordinates == CoordinateMode::kTfCropAndResize;
  if (is_crop && !(place >= 0.0f && static_cast<double>(place) <= last)) return taps;
  if (spec.mode == ResizeMode::kNearest) {
    taps.first = NearestIndex(spec.nearest, place, axis.in);
    taps.count = 1;
    weights[0] = 1.0;
    return taps;
  }
  const double shrink = spec.antialias && axis.scale < 1.0f ? static_cast<double>(axis.scale) : 1.0;
  const double reach = (spec.mode == ResizeMode::kCubic ? 2.0 : 1.0) / shrink;
  const double center = static_cast<double>(place);
  const double low = std::floor(center - reach) + 1.0;
  const double high = std::ceil(center + reach) - 1.0;
  const auto inside = [&](double at) { return at < 0.0 ? 0.0 : at > last ? last : at; };
  taps.first = static_cast<int64_t>(inside(low));
  taps.count = static_cast<int64_t>(inside(high)) - taps.first + 1;
  for (int64_t t = 0; t < taps.count; ++t) weights[t] = 0.0;
  double total = 0.0;
  for (double at = low; at <= high; at += 1.0) {
    const double weight =
        Filter(spec.mode, static_cast<double>(spec.cubic_a), (at - center) * shrink);
    if (spec.exclude_outside && at != inside(at)) continue;
    weights[static_cast<int64_t>(inside(at)) - taps.first] += weight;
    total += weight;
  }
  const bool adds_up = (!spec.exclude_outside && shrink == 1.0) || total == 0.0;
  for (int64_t t = 0; t < taps.count && !adds_up; ++t) weights[t] /= total;
  return taps;
}

}  // namespace

bool ResizesByAxis(const ResizeSpec& spec, const TensorDesc& x, const TensorDesc& y) {
  if (spec.mode == ResizeMode::kCubic || spec.antialias ||
      spec.coordinates == CoordinateMode::kTfCropAndResize) {
    return true;
  }
  if (spec.mode == ResizeMode::kNearest) return false;
  for (int d = 0; d < y.shape.rank - 2; ++d) {
    if (x.shape.dims[d] != y.shape.dims[d] || spec.scale[d] != 1.0f) return true;
  }
  return false;
}

Status MakeResizeAxisArgs(const ResizeSpec& spec, int64_t outer, int64_t in, int64_t out,
                          int64_t inner, int d, Array<int32_t>* tables, ResizeAxisArgs* args) {
  constexpr int64_t kMost = 1 << 24;  // what floats count exactly
  if (in > kMost || out > kMost) {
    return Status::Error(StatusCode::kUnsupported, "Resize of a dimension over 2^24");
  }
  if (in == 0) return Status::Error(StatusCode::kShape, "Resize of an empty dimension");
  const Axis axis = {in, out, spec.scale[d], spec.begin[d], spec.end[d]};
  // An antialiasing filter reaches as far as y shrinks, and no further than x has elements.
  const double shrink = spec.antialias && axis.scale < 1.0f ? static_cast<double>(axis.scale) : 1.0;
  const double most = std::ceil(4.0 / shrink) + 1.0;
  args->taps = most < static_cast<double>(in) ? static_cast<int64_t>(most) : in;
  args->outer = outer;
  args->in = in;
  args->out = out;
  args->inner = inner;
  args->stride = out + kRowRoom;
  const size_t stride = static_cast<size_t>(args->stride);
  const size_t size = static_cast<size_t>(args->taps) * stride;
  Array<double> weights(tables->allocator());
  SRT_RETURN_IF_ERROR(weights.resize(static_cast<size_t>(args->taps)));
  tables->clear();
  SRT_RETURN_IF_ERROR(tables->resize(2 * size + stride));
  for (int32_t& entry : *tables) entry = 0;
  int32_t* index = tables->data();
  // The array holds 4-byte elements; these are written and read as floats only.
  float* weight = reinterpret_cast<float*>(index + size);
  float* base = weight + size;
  for (int64_t i = 0; i < out; ++i) {
    const Taps taps = TapsOf(spec, axis, i, weights.data());
    if (taps.count == 0) base[i] = spec.extrapolation;
    for (int64_t t = 0; t < taps.count; ++t) {
      index[t * args->stride + i] = static_cast<int32_t>(taps.first + t);
      weight[t * args->stride + i] = static_cast<float>(weights[static_cast<size_t>(t)]);
    }
  }
  args->index = index;
  args->weight = weight;
  args->base = base;
  return Status::Ok();
}

int64_t ResizeAxisItems(const ResizeAxisArgs& args) {
  return args.inner == 1 ? args.outer : args.outer * args.out;
}

bool SelectResizeAxis(const ResizeAxisArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kAxisKernels, isa, kernel);
}

Status MakeResizeArgs(const ResizeSpec& spec, const TensorDesc& x, const TensorDesc& y,
                      Array<int32_t>* tables, ResizeArgs* args) {
  *args = ResizeArgs();
  args->mode = spec.mode;
  args->element_bytes = static_cast<int>(DTypeSize(x.dtype));
  for (int d = 0; d < y.shape.rank; ++d) {
    if (x.shape.dims[d] > (1 << 24) || y.shape.dims[d] > (1 << 24)) {
      return Status::Error(StatusCode::kUnsupported, "Resize of a dimension over 2^24");
    }
    if (x.shape.dims[d] == 0 && y.shape.dims[d] != 0) {
      return Status::Error(StatusCode::kShape, "Resize of an empty dimension");
    }
  }
  tables->clear();
  if (spec.mode == ResizeMode::kNearest) return MakeNearest(spec, x, y, tables, args);
  if (x.dtype != DType::kF32) {
    return Status::Error(StatusCode::kUnsupported, "linear Resize of anything but float32");
  }
  return MakeLinear(spec, x, y, tables, args);
}

int64_t ResizeItems(const ResizeArgs& args) {
  if (args.out[1] == 0) return 0;
  int64_t planes = 1;
  if (args.mode == ResizeMode::kLinear) {
    planes = args.planes.rows * args.planes.row;
  } else {
    for (int d = 0; d < args.rank - 2; ++d) planes *= args.dims[d];
  }
  return planes * BandsOf(args);
}

size_t ResizeScratch(const ResizeArgs& args) {
  if (args.mode == ResizeMode::kNearest) return 0;
  return static_cast<size_t>(args.out[1] + kRowRoom) * 2 * sizeof(float);
}

bool SelectResize(const ResizeArgs& args, Isa isa, Kernel* kernel) {
  return args.mode == ResizeMode::kNearest ? SelectKernel(kNearestKernels, isa, kernel)
                                           : SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
