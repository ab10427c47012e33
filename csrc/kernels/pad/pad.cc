// Pad: arguments, selection and the kernel itself, which no instruction set makes faster.
#include "kernels/pad/pad.h"

#include <cstring>

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/pad/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/pad/kernels.inc"
};

namespace {

// Index into x of y's index i, -1 where the constant goes.
int64_t SourceIndex(PadMode mode, const PadDim& dim, int64_t i) {
  const int64_t n = dim.size;
  int64_t at = i - dim.begin;
  if (at >= 0 && at < n) return dim.first + at;
  if (n == 0) return -1;
  switch (mode) {
    case PadMode::kEdge:
      at = at < 0 ? 0 : n - 1;
      break;
    case PadMode::kWrap:
      at = (at % n + n) % n;
      break;
    case PadMode::kReflect: {
      if (n == 1) {
        at = 0;
        break;
      }
      const int64_t period = 2 * (n - 1);
      at = (at % period + period) % period;
      if (at >= n) at = period - at;
      break;
    }
    default:
      return -1;
  }
  return dim.first + at;
}

template <typename T>
void Fill(T* y, int64_t n, T value) {
  for (int64_t i = 0; i < n; ++i) y[i] = value;
}

// One row of y; x is nullptr where the whole row is the constant.
template <typename T>
void PadRow(const PadArgs& args, const T* x, T* y, T value) {
  const PadDim& dim = args.dims[args.rank - 1];
  const int64_t unit = args.unit;
  const size_t unit_bytes = static_cast<size_t>(unit) * sizeof(T);
  const bool tight = dim.x_stride == unit && dim.y_stride == unit;
  for (int64_t i = 0; i < dim.out;) {
    if (x != nullptr && tight && i == dim.begin && dim.size > 0) {
      const int64_t n = dim.size < dim.out - i ? dim.size : dim.out - i;
      memcpy(y + i * unit, x + dim.first * unit, static_cast<size_t>(n) * unit_bytes);
      i += n;
      continue;
    }
    const int64_t source = x == nullptr ? -1 : SourceIndex(args.mode, dim, i);
    if (source < 0) {
      Fill(y + i * dim.y_stride, unit, value);
    } else {
      memcpy(y + i * dim.y_stride, x + source * dim.x_stride, unit_bytes);
    }
    ++i;
  }
}

template <typename T>
void PadRows(const PadArgs& args, const void* x, void* y, int64_t begin, int64_t end) {
  T value;
  memcpy(&value, &args.value, sizeof(T));
  for (int64_t item = begin; item < end; ++item) {
    int64_t left = item;
    int64_t from = 0;
    int64_t to = 0;
    bool constant = false;
    for (int d = args.rank - 2; d >= 0; --d) {
      const PadDim& dim = args.dims[d];
      const int64_t i = left % dim.out;
      left /= dim.out;
      const int64_t source = SourceIndex(args.mode, dim, i);
      constant = constant || source < 0;
      from += source * dim.x_stride;
      to += i * dim.y_stride;
    }
    PadRow<T>(args, constant ? nullptr : static_cast<const T*>(x) + from, static_cast<T*>(y) + to,
              value);
  }
}

}  // namespace

void pad_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const PadArgs& args = *static_cast<const PadArgs*>(args_block);
  switch (args.element_bytes) {
    case 1:
      return PadRows<uint8_t>(args, io[0], io[1], begin, end);
    case 2:
      return PadRows<uint16_t>(args, io[0], io[1], begin, end);
    case 4:
      return PadRows<uint32_t>(args, io[0], io[1], begin, end);
    default:
      return PadRows<uint64_t>(args, io[0], io[1], begin, end);
  }
}

PadArgs MakePadArgs(PadMode mode, const TensorDesc& x, const int64_t* begin, const int64_t* end,
                    const void* value, const TensorDesc& y) {
  PadArgs args = {};
  args.mode = mode;
  args.element_bytes = static_cast<int>(DTypeSize(x.dtype));
  if (value != nullptr) memcpy(&args.value, value, DTypeSize(x.dtype));
  args.unit = 1;
  int rank = x.shape.rank;
  // Innermost dimensions that are not padded move as one block, as far as both are contiguous.
  while (rank > 1 && begin[rank - 1] == 0 && end[rank - 1] == 0 &&
         (x.shape.dims[rank - 1] == 1 ||
          (x.strides[rank - 1] == args.unit && y.strides[rank - 1] == args.unit))) {
    args.unit *= x.shape.dims[--rank];
  }
  args.rank = rank < 1 ? 1 : rank;
  args.dims[0] = {1, 0, 0, 1, 1, 1};
  for (int d = 0; d < rank; ++d) {
    PadDim& dim = args.dims[d];
    dim.out = y.shape.dims[d];
    dim.begin = begin[d] > 0 ? begin[d] : 0;
    dim.first = begin[d] < 0 ? -begin[d] : 0;
    dim.size = x.shape.dims[d] - dim.first + (end[d] < 0 ? end[d] : 0);
    if (dim.size < 0) dim.size = 0;
    dim.x_stride = x.strides[d];
    dim.y_stride = y.strides[d];
  }
  return args;
}

int64_t PadItems(const PadArgs& args) {
  int64_t items = args.unit == 0 || args.dims[args.rank - 1].out == 0 ? 0 : 1;
  for (int d = 0; d < args.rank - 1; ++d) items *= args.dims[d].out;
  return items;
}

bool SelectPad(const PadArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
