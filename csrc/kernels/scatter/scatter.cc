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

void CopyRows(const ScatterArgs& args, void* const* io) {
  const PickArgs& places = args.places;
  const auto* updates = static_cast<const char*>(io[1]);
  auto* y = static_cast<char*>(io[2]);
  const int64_t bytes = places.element_bytes;
  const int64_t row_bytes = places.row * bytes;
  const auto copy = [=](int64_t t, int64_t place) {
    memcpy(y + place * bytes, updates + t * row_bytes, static_cast<size_t>(row_bytes));
  };
  ForEachPlace(places, io[0], 0, places.tuples, io[3], copy);
}

template <typename T>
void CombineRows(const ScatterArgs& args, void* const* io) {
  const PickArgs& places = args.places;
  const auto combine = [&](int64_t t, int64_t place) {
    T* y = static_cast<T*>(io[2]) + place;
    const T* update = static_cast<const T*>(io[1]) + t * places.row;
    for (int64_t r = 0; r < places.row; ++r) y[r] = Combine(args.reduction, y[r], update[r]);
  };
  ForEachPlace(places, io[0], 0, places.tuples, io[3], combine);
}

}  // namespace

void scatter_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                        void*) {
  const ScatterArgs& args = *static_cast<const ScatterArgs*>(args_block);
  if (begin >= end) return;
  if (args.reduction == ScatterReduction::kNone) return CopyRows(args, io);
  SRT_DISPATCH_NUMBER(args.dtype, T, return CombineRows<T>(args, io))
}

bool SelectScatter(const ScatterArgs& args, Isa isa, Kernel* kernel) {
  if (args.reduction == ScatterReduction::kNone) return SelectKernel(kKernels, isa, kernel);
  return IsNumber(args.dtype) && SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
