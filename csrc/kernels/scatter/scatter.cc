// Scatter: selection and the kernel itself.
#include "kernels/scatter/scatter.h"

#include <cstring>
#include <type_traits>

#include "kernels/dtypes.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/scatter/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/scatter/kernels.inc"
};

namespace {

// a + b and a * b without overflow of signed types.
template <typename T>
T Combine(ScatterReduction reduction, T a, T b) {
  using W = std::conditional_t<std::is_floating_point<T>::value, T,
                               std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>>;
  switch (reduction) {
    case ScatterReduction::kAdd:
      return static_cast<T>(static_cast<W>(a) + static_cast<W>(b));
    case ScatterReduction::kMul:
      return static_cast<T>(static_cast<W>(a) * static_cast<W>(b));
    case ScatterReduction::kMax:
      return a > b || a != a ? a : b;
    default:
      return a < b || a != a ? a : b;
  }
}

template <typename T, typename Index>
void CopyRows(const ScatterArgs& args, void* const* io) {
  const PickArgs& places = args.places;
  const T* updates = static_cast<const T*>(io[1]);
  T* y = static_cast<T*>(io[2]);
  const auto copy = [&](int64_t t, int64_t place) {
    memcpy(y + place, updates + t * places.row, static_cast<size_t>(places.row) * sizeof(T));
  };
  ForEachPlace(places, static_cast<const Index*>(io[0]), 0, places.tuples, io[3], copy);
}

template <typename T, typename Index>
void CombineRows(const ScatterArgs& args, void* const* io) {
  const PickArgs& places = args.places;
  const auto combine = [&](int64_t t, int64_t place) {
    T* y = static_cast<T*>(io[2]) + place;
    const T* update = static_cast<const T*>(io[1]) + t * places.row;
    for (int64_t r = 0; r < places.row; ++r) y[r] = Combine(args.reduction, y[r], update[r]);
  };
  ForEachPlace(places, static_cast<const Index*>(io[0]), 0, places.tuples, io[3], combine);
}

template <typename Index>
void Rows(const ScatterArgs& args, void* const* io) {
  if (args.reduction == ScatterReduction::kNone) {
    SRT_DISPATCH_BYTES(args.places.element_bytes, T, return CopyRows<T, Index>(args, io))
  }
  SRT_DISPATCH_NUMBER(args.dtype, T, return CombineRows<T, Index>(args, io))
}

}  // namespace

void scatter_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                        void*) {
  const ScatterArgs& args = *static_cast<const ScatterArgs*>(args_block);
  if (begin >= end) return;
  if (args.places.index_dtype == DType::kI32) {
    Rows<int32_t>(args, io);
  } else {
    Rows<int64_t>(args, io);
  }
}

bool SelectScatter(const ScatterArgs& args, Isa isa, Kernel* kernel) {
  if (args.reduction == ScatterReduction::kNone) return SelectKernel(kKernels, isa, kernel);
  return IsNumber(args.dtype) && SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
