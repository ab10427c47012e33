// Copy (slice, concat, split, transpose, expand), Pad, Gather, Cast and Resize.
#include <algorithm>
#include <numeric>

#include "base/half.h"
#include "kernel_harness.h"
#include "kernels/cast/cast.h"
#include "kernels/copy/copy.h"
#include "kernels/gather/gather.h"
#include "kernels/pad/pad.h"
#include "kernels/resize/resize.h"

namespace sparsert {
namespace test {
namespace {

using Dims = std::vector<int64_t>;

const DType kTypes[] = {DType::kU8, DType::kF16, DType::kF32, DType::kI64};

// The bits of an element, by its row-major number.
uint64_t Bits(const Tensor& t, int64_t linear) {
  uint64_t bits = 0;
  const size_t size = DTypeSize(t.desc.dtype);
  memcpy(&bits,
         static_cast<const uint8_t*>(t.data()) + static_cast<size_t>(t.Offset(linear)) * size,
         size);
  return bits;
}

void ExpectBits(const Tensor& y, const std::function<uint64_t(const Dims&)>& want) {
  ++checks;
  for (int64_t i = 0; i < y.elements(); ++i) {
    const uint64_t w = want(Unravel(i, y.desc.shape));
    if (Bits(y, i) == w) continue;
    Fail("element " + std::to_string(i) + " of " + std::to_string(y.elements()) + ": got " +
         std::to_string(Bits(y, i)) + ", want " + std::to_string(w));
    break;
  }
  y.ExpectCanaries();
}

// Copies `shape` elements from x's element x_at on to y's y_at on.
void RunCopy(const Shape& shape, const Tensor& x, const int64_t* x_strides, int64_t x_at, Tensor* y,
             int64_t y_at = 0) {
  const CopyArgs args = MakeCopyArgs(x.desc.dtype, shape, x_strides, y->desc.strides);
  Kernel kernel;
  Expect(SelectCopy(args, BestIsa(), &kernel), "no kernel");
  const auto size = static_cast<int64_t>(DTypeSize(x.desc.dtype));
  auto* from = static_cast<uint8_t*>(const_cast<void*>(x.data())) + x_at * size;
  Run(kernel, &args, {from, static_cast<uint8_t*>(y->data()) + y_at * size}, CopyItems(args), 0);
}

void TestTranspose() {
  for (const Dims& dims : std::vector<Dims>{{5},
                                            {3, 7},
                                            {70, 33},
                                            {2, 19, 5, 7},
                                            {1, 300, 20},
                                            {2, 3, 4, 2, 5},
                                            {1, 64, 1, 1},
                                            {0, 3, 2}}) {
    std::vector<int> perm(dims.size());
    std::iota(perm.begin(), perm.end(), 0);
    do {
      for (int c = 0; c < 4; ++c) {
        context = "transpose rank " + std::to_string(dims.size()) + " type " + std::to_string(c);
        Random random(4);
        Tensor x(kTypes[c], dims, c * 3);
        x.FillBytes(&random);
        Dims y_dims;
        for (const int p : perm) y_dims.push_back(dims[static_cast<size_t>(p)]);
        Tensor y(kTypes[c], y_dims, c % 2 * 5);
        int64_t strides[kMaxRank];
        for (size_t d = 0; d < perm.size(); ++d) strides[d] = x.desc.strides[perm[d]];
        RunCopy(y.desc.shape, x, strides, 0, &y);
        ExpectBits(y, [&](const Dims& index) {
          Dims from(index.size());
          for (size_t d = 0; d < index.size(); ++d) from[static_cast<size_t>(perm[d])] = index[d];
          return Bits(x, Ravel(from, x.desc.shape));
        });
      }
    } while (std::next_permutation(perm.begin(), perm.end()));
  }
}

void TestSliceSplitConcat() {
  Random random(8);
  for (int c = 0; c < 200; ++c) {
    const size_t rank = static_cast<size_t>(random.Int(1, 5));
    Dims dims(rank);
    Dims y_dims(rank);
    int64_t start[kMaxRank] = {};
    int64_t step[kMaxRank] = {};
    for (size_t d = 0; d < rank; ++d) {
      dims[d] = random.Int(1, 9);
      start[d] = random.Int(0, dims[d] - 1);
      step[d] = random.Int(0, 3) == 0 ? random.Int(-3, -1) : random.Int(1, 3);
      if (random.Int(0, 2) == 0) {
        start[d] = 0;
        step[d] = 1;
      }
      y_dims[d] =
          step[d] > 0 ? (dims[d] - start[d] + step[d] - 1) / step[d] : start[d] / -step[d] + 1;
    }
    context = "slice " + std::to_string(c);
    Tensor x(kTypes[c % 4], dims, c % 3);
    Tensor y(kTypes[c % 4], y_dims, c % 5);
    x.FillBytes(&random);
    int64_t strides[kMaxRank];
    int64_t first = 0;
    for (size_t d = 0; d < rank; ++d) {
      strides[d] = x.desc.strides[d] * step[d];
      first += x.desc.strides[d] * start[d];
    }
    RunCopy(y.desc.shape, x, strides, first, &y);
    ExpectBits(y, [&](const Dims& index) {
      Dims from(rank);
      for (size_t d = 0; d < rank; ++d) from[d] = start[d] + index[d] * step[d];
      return Bits(x, Ravel(from, x.desc.shape));
    });

    context = "concat and split " + std::to_string(c);
    const auto a = static_cast<size_t>(random.Int(0, static_cast<int64_t>(rank) - 1));
    Dims part_dims = dims;
    Dims all_dims = dims;
    part_dims[a] = random.Int(1, 7);
    all_dims[a] += part_dims[a];
    Tensor part(kTypes[c % 4], part_dims, c % 4);
    part.FillBytes(&random);
    Tensor all(kTypes[c % 4], all_dims, c % 2 * 3);
    const int64_t second = dims[a] * all.desc.strides[a];
    RunCopy(x.desc.shape, x, x.desc.strides, 0, &all);
    RunCopy(part.desc.shape, part, part.desc.strides, 0, &all, second);
    ExpectBits(all, [&](const Dims& index) {
      Dims from = index;
      if (index[a] < dims[a]) return Bits(x, Ravel(from, x.desc.shape));
      from[a] -= dims[a];
      return Bits(part, Ravel(from, part.desc.shape));
    });
    Tensor back(kTypes[c % 4], part_dims, c % 3 * 2);
    RunCopy(back.desc.shape, all, all.desc.strides, second, &back);
    ExpectBits(back, [&](const Dims& index) { return Bits(part, Ravel(index, part.desc.shape)); });
  }
}

void TestExpand() {
  const std::vector<std::pair<Dims, Dims>> expands = {{{}, {3, 4}},
                                                      {{1}, {7}},
                                                      {{3, 1}, {2, 3, 5}},
                                                      {{2, 1, 5, 1}, {2, 3, 5, 7}},
                                                      {{3, 1, 1}, {2, 3, 5, 7}},
                                                      {{4}, {4}}};
  for (int c = 0; c < 4; ++c) {
    for (int64_t padding = 0; padding < 3; ++padding) {
      Random random(6);
      for (const auto& e : expands) {
        context = "expand";
        Tensor x(kTypes[c], e.first, padding);
        Tensor y(kTypes[c], e.second, 2 - padding);
        x.FillBytes(&random);
        int64_t strides[kMaxRank];
        BroadcastStrides(x.desc, y.desc.shape, strides);
        RunCopy(y.desc.shape, x, strides, 0, &y);
        ExpectBits(y, [&](const Dims& index) {
          Dims from(e.first.size());
          const size_t skip = index.size() - from.size();
          for (size_t d = 0; d < from.size(); ++d) from[d] = e.first[d] == 1 ? 0 : index[d + skip];
          return Bits(x, Ravel(from, x.desc.shape));
        });
      }
    }
  }
}

// Pads a line of the kept part of x; -1 is the constant.
int64_t PadSource(PadMode mode, int64_t at, int64_t n) {
  if (at >= 0 && at < n) return at;
  if (mode == PadMode::kConstant) return -1;
  if (mode == PadMode::kEdge) return at < 0 ? 0 : n - 1;
  if (mode == PadMode::kWrap) {
    while (at < 0) at += n;
    return at % n;
  }
  while (n > 1 && (at < 0 || at >= n)) at = at < 0 ? -at : 2 * (n - 1) - at;
  return n == 1 ? 0 : at;
}

void TestPad() {
  Random random(3);
  for (int c = 0; c < 400; ++c) {
    const PadMode mode = static_cast<PadMode>(c % 4);
    const size_t rank = static_cast<size_t>(random.Int(1, 5));
    Dims dims(rank);
    Dims y_dims(rank);
    int64_t begin[kMaxRank] = {};
    int64_t end[kMaxRank] = {};
    for (size_t d = 0; d < rank; ++d) {
      dims[d] = random.Int(3, 8);
      if (random.Int(0, 1) == 0) {
        begin[d] = random.Int(-1, 4);
        end[d] = random.Int(-1, 4);
      }
      y_dims[d] = dims[d] + begin[d] + end[d];
    }
    context = "pad " + std::to_string(c);
    const DType dtype = kTypes[c / 4 % 4];
    Tensor x(dtype, dims, c % 3);
    Tensor y(dtype, y_dims, c % 5);
    x.FillBytes(&random);
    const uint64_t value = c % 7 == 0 ? 0 : 0x1122334455667788ull;
    const PadArgs args =
        MakePadArgs(mode, x.desc, begin, end, c % 7 == 0 ? nullptr : &value, y.desc);
    Kernel kernel;
    Expect(SelectPad(args, Isa::kScalar, &kernel), "no kernel");
    Run(kernel, &args, {x.data(), y.data()}, PadItems(args), 0);
    const size_t size = DTypeSize(dtype);
    const uint64_t constant = size == 8 ? value : value & ((1ull << (8 * size)) - 1);
    ExpectBits(y, [&](const Dims& index) {
      Dims from(rank);
      for (size_t d = 0; d < rank; ++d) {
        const int64_t cut = std::max<int64_t>(0, -begin[d]);
        const int64_t n = dims[d] - cut - std::max<int64_t>(0, -end[d]);
        const int64_t at = PadSource(mode, index[d] - std::max<int64_t>(0, begin[d]), n);
        if (at < 0) return constant;
        from[d] = cut + at;
      }
      return Bits(x, Ravel(from, x.desc.shape));
    });
  }
}

void TestGather() {
  Random random(5);
  for (int c = 0; c < 200; ++c) {
    const size_t rank = static_cast<size_t>(random.Int(1, 4));
    Dims dims(rank);
    for (int64_t& d : dims) d = random.Int(1, 6);
    Dims index_dims(static_cast<size_t>(random.Int(0, 2)));
    for (int64_t& d : index_dims) d = random.Int(0, 4) == 0 ? 0 : random.Int(1, 5);
    const int axis = static_cast<int>(random.Int(0, static_cast<int64_t>(rank) - 1));
    const size_t a = static_cast<size_t>(axis);
    const Shape index_shape = MakeShape(index_dims);
    std::vector<int64_t> indices(static_cast<size_t>(index_shape.elements()));
    for (int64_t& i : indices) i = random.Int(-dims[a], dims[a] - 1);
    Dims y_dims(dims.begin(), dims.begin() + axis);
    y_dims.insert(y_dims.end(), index_dims.begin(), index_dims.end());
    y_dims.insert(y_dims.end(), dims.begin() + axis + 1, dims.end());
    context = "gather " + std::to_string(c);
    Tensor x(kTypes[c % 4], dims, c % 3);
    Tensor y(kTypes[c % 4], y_dims, c % 4);
    x.FillBytes(&random);
    std::vector<int64_t> positive(indices.size() + 1);
    Expect(NormalizeIndices(indices.data(), index_shape.elements(), dims[a], positive.data()).ok(),
           "indices in range");
    const GatherArgs args =
        MakeGatherArgs(x.desc, axis, positive.data(), PlainDesc(DType::kI64, index_shape), y.desc);
    Kernel kernel;
    Expect(SelectGather(args, Isa::kNeon, &kernel), "no kernel");
    Run(kernel, &args, {x.data(), y.data()}, GatherItems(args), 0);
    ExpectBits(y, [&](const Dims& index) {
      Dims from(index.begin(), index.begin() + axis);
      Dims at(index.begin() + axis, index.begin() + axis + static_cast<int64_t>(index_dims.size()));
      const int64_t i = indices[static_cast<size_t>(Ravel(at, index_shape))];
      from.push_back(i < 0 ? i + dims[a] : i);
      from.insert(from.end(), index.begin() + axis + static_cast<int64_t>(index_dims.size()),
                  index.end());
      return Bits(x, Ravel(from, x.desc.shape));
    });
  }
  const int64_t bad[] = {0, 4};
  int64_t out[2];
  Expect(!NormalizeIndices(bad, 2, 4, out).ok(), "an index out of range is an error");
}

double NumberAt(const Tensor& t, int64_t i) {
  switch (t.desc.dtype) {
    case DType::kF32:
      return static_cast<double>(t.At<float>(i));
    case DType::kU8:
      return t.At<uint8_t>(i);
    case DType::kI8:
      return t.At<int8_t>(i);
    case DType::kU16:
      return t.At<uint16_t>(i);
    case DType::kI16:
      return t.At<int16_t>(i);
    case DType::kI32:
      return t.At<int32_t>(i);
    case DType::kI64:
      return static_cast<double>(t.At<int64_t>(i));
    case DType::kBool:
      return t.At<uint8_t>(i);
    case DType::kF16:
      return static_cast<double>(HalfToFloat(t.At<uint16_t>(i)));
    case DType::kF64:
      return t.At<double>(i);
    case DType::kU32:
      return t.At<uint32_t>(i);
    default:
      return static_cast<double>(t.At<uint64_t>(i));
  }
}

void Cast(const Tensor& x, Tensor* y) {
  const CastArgs args = MakeCastArgs(x.desc, y->desc);
  Kernel kernel;
  Expect(SelectCast(args, Isa::kScalar, &kernel), "no kernel");
  Run(kernel, &args, {const_cast<void*>(x.data()), y->data()}, CastItems(args), 0);
  y->ExpectCanaries();
}

void TestCast() {
  const DType types[] = {DType::kF32, DType::kU8,  DType::kI8,  DType::kU16,
                         DType::kI16, DType::kI32, DType::kI64, DType::kBool,
                         DType::kF16, DType::kF64, DType::kU32, DType::kU64};
  const float numbers[] = {0, 1, 2, 3.75f, 100, 0.25f, 17, 63.5f, 5, 6, 7, 8};
  const Dims dims = {2, 2, 3};
  Tensor start(DType::kF32, dims);
  for (int64_t i = 0; i < 12; ++i) start.F(i) = numbers[i];
  for (const DType from : types) {
    for (const DType to : types) {
      context = "cast " + std::to_string(static_cast<int>(from)) + " to " +
                std::to_string(static_cast<int>(to));
      Tensor x(from, dims, 2);
      Tensor y(to, dims, 5);
      Cast(start, &x);
      Cast(x, &y);
      const bool whole = to != DType::kF32 && to != DType::kF64 && to != DType::kF16;
      for (int64_t i = 0; i < 12; ++i) {
        double want = NumberAt(x, i);
        if (to == DType::kBool) want = want != 0;
        Expect(NumberAt(y, i) == (whole ? std::trunc(want) : want), "a wrong value");
      }
    }
  }
  context = "cast to integers";
  Tensor x(DType::kF32, {7});
  const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -1.9f, 300.5f, -129.0f};
  for (int64_t i = 0; i < 7; ++i) x.F(i) = odd[i];
  Tensor bytes(DType::kI8, {7});
  Cast(x, &bytes);
  const int want[] = {0, 127, -128, 127, -1, 127, -128};
  for (int64_t i = 0; i < 7; ++i) Expect(bytes.At<int8_t>(i) == want[i], "int8");
  Tensor longs(DType::kI64, {7});
  Cast(x, &longs);
  Expect(longs.At<int64_t>(1) == INT64_MAX && longs.At<int64_t>(2) == INT64_MIN, "int64");
  Tensor bools(DType::kBool, {7});
  Cast(x, &bools);
  Expect(bools.At<uint8_t>(0) == 1, "bool(NaN)");

  context = "half";
  bool round_trip = true;
  bool nearest = true;
  for (uint32_t h = 0; h < 65536; ++h) {
    const uint16_t half = static_cast<uint16_t>(h);
    const float f = HalfToFloat(half);
    round_trip = round_trip && (f != f ? HalfToFloat(FloatToHalf(f)) != HalfToFloat(FloatToHalf(f))
                                       : FloatToHalf(f) == half);
    const float next = HalfToFloat(static_cast<uint16_t>(h + 1));
    if ((h & 0x7fff) >= 0x7bff) continue;
    const float middle = (f + next) / 2;  // exact; goes to the even one
    nearest = nearest && FloatToHalf(middle) == (h % 2 == 0 ? half : half + 1) &&
              FloatToHalf(std::nextafter(middle, f)) == half &&
              FloatToHalf(std::nextafter(middle, next)) == half + 1;
  }
  Expect(round_trip, "half -> float -> half");
  Expect(nearest, "float -> half rounds to even");
  Expect(FloatToHalf(65519.0f) == 0x7bff && FloatToHalf(65520.0f) == 0x7c00, "half overflow");
}

float Coordinate(CoordinateMode mode, float scale, int64_t in, int64_t out, int64_t i) {
  const float x = static_cast<float>(i);
  const float n = static_cast<float>(in);
  if (scale == 1.0f) return x;
  switch (mode) {
    case CoordinateMode::kHalfPixel:
      return (x + 0.5f) / scale - 0.5f;
    case CoordinateMode::kPytorchHalfPixel:
      return out > 1 ? (x + 0.5f) / scale - 0.5f : 0.0f;
    case CoordinateMode::kAlignCorners:
      return out == 1 ? 0.0f : x * (n - 1) / static_cast<float>(out - 1);
    case CoordinateMode::kAsymmetric:
      return x / scale;
    default: {
      const float offset = n / 2 * (1 - static_cast<float>(out) / (scale * n));
      return static_cast<float>(static_cast<double>(offset) +
                                (static_cast<double>(x) + 0.5) / static_cast<double>(scale) - 0.5);
    }
  }
}

int64_t Nearest(NearestMode mode, float x, int64_t in) {
  double at = static_cast<double>(x);
  const double tie = 1e-6;  // what is this close to a tie is one
  switch (mode) {
    case NearestMode::kRoundPreferFloor:
      at = std::ceil(at - 0.5 - tie);
      break;
    case NearestMode::kRoundPreferCeil:
      at = std::floor(at + 0.5 + tie);
      break;
    case NearestMode::kFloor:
      at = std::floor(at);
      break;
    default:
      at = std::ceil(at);
      break;
  }
  return std::min(in - 1, std::max<int64_t>(0, static_cast<int64_t>(at)));
}

void* Allocate(void*, size_t bytes, size_t alignment) {
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}
void Release(void*, void* memory, size_t) { std::free(memory); }

void TestResize() {
  const Allocator allocator = {Allocate, Release, nullptr};
  const std::vector<std::pair<Dims, Dims>> shapes = {{{2, 3, 5, 7}, {2, 3, 10, 14}},
                                                     {{2, 3, 5, 7}, {2, 3, 13, 9}},
                                                     {{1, 2, 9, 40}, {1, 2, 4, 17}},
                                                     {{2, 3, 11}, {2, 3, 29}},
                                                     {{1, 1, 1, 1}, {1, 1, 3, 4}},
                                                     {{4, 6}, {7, 3}},
                                                     {{1, 3, 70, 5}, {1, 3, 140, 5}},
                                                     {{2, 3, 5, 7}, {2, 3, 5, 1}},
                                                     {{5}, {12}},
                                                     {{20}, {75}},
                                                     {{2, 20, 9}, {2, 40, 27}},
                                                     {{1, 3, 33}, {1, 7, 66}},
                                                     {{1, 2, 3, 24}, {1, 2, 3, 48}},
                                                     {{2, 1, 3, 4, 5}, {2, 1, 3, 8, 9}}};
  for (const auto& s : shapes) {
    // Crops run by axis: see kernels_sample_test.cc.
    for (int m = 0; m < static_cast<int>(CoordinateMode::kTfCropAndResize); ++m) {
      for (int n = 0; n < static_cast<int>(NearestMode::kCount); ++n) {
        const size_t rank = s.first.size();
        ResizeSpec spec;
        spec.coordinates = static_cast<CoordinateMode>(m);
        spec.nearest = static_cast<NearestMode>(n);
        for (size_t d = 0; d < rank; ++d) {
          spec.scale[d] = static_cast<float>(s.second[d]) / static_cast<float>(s.first[d]);
        }
        Random random(1);
        for (int c = 0; c < 4 * static_cast<int>(Isas().size()); ++c) {
          const Isa isa = Isas()[static_cast<size_t>(c / 4)];
          context = "resize nearest modes " + std::to_string(m) + " " + std::to_string(n) +
                    " isa " + std::to_string(static_cast<int>(isa));
          spec.mode = ResizeMode::kNearest;
          Tensor x(kTypes[c % 4], s.first, 3);
          Tensor y(kTypes[c % 4], s.second, c % 4 * 2);
          x.FillBytes(&random);
          Array<int32_t> tables(&allocator);
          ResizeArgs args;
          Expect(MakeResizeArgs(spec, x.desc, y.desc, &tables, &args).ok(), "arguments");
          Kernel kernel;
          Expect(SelectResize(args, isa, &kernel) && kernel.isa == isa, "no kernel");
          Run(kernel, &args, {x.data(), y.data()}, ResizeItems(args), ResizeScratch(args));
          ExpectBits(y, [&](const Dims& index) {
            Dims from(rank);
            for (size_t d = 0; d < rank; ++d) {
              from[d] = Nearest(
                  spec.nearest,
                  Coordinate(spec.coordinates, spec.scale[d], s.first[d], s.second[d], index[d]),
                  s.first[d]);
            }
            return Bits(x, Ravel(from, x.desc.shape));
          });
        }
        if (n > 1) continue;
        for (const Isa isa : Isas()) {
          context = "resize linear mode " + std::to_string(m) + " isa " +
                    std::to_string(static_cast<int>(isa));
          spec.mode = ResizeMode::kLinear;
          Tensor x(DType::kF32, s.first, 3);
          Tensor y(DType::kF32, s.second, n * 4);
          x.FillUniform(&random, -3, 3);
          Array<int32_t> tables(&allocator);
          ResizeArgs args;
          Expect(MakeResizeArgs(spec, x.desc, y.desc, &tables, &args).ok(), "arguments");
          Kernel kernel;
          Expect(SelectResize(args, isa, &kernel) && kernel.isa == isa, "no kernel");
          Run(kernel, &args, {x.data(), y.data()}, ResizeItems(args), ResizeScratch(args));
          std::vector<double> want;
          for (int64_t i = 0; i < y.elements(); ++i) {
            const Dims index = Unravel(i, y.desc.shape);
            double sum = 0;
            for (size_t corner = 0; corner < (size_t{1} << rank); ++corner) {
              double weight = 1;
              Dims from(rank);
              for (size_t d = 0; d < rank; ++d) {
                float at =
                    Coordinate(spec.coordinates, spec.scale[d], s.first[d], s.second[d], index[d]);
                at = std::min(std::max(at, 0.0f), static_cast<float>(s.first[d] - 1));
                const int64_t low = static_cast<int64_t>(at);
                const double w = static_cast<double>(at) - static_cast<double>(low);
                const bool high = (corner >> d & 1) != 0;
                weight *= high ? w : 1 - w;
                from[d] = high ? std::min(low + 1, s.first[d] - 1) : low;
              }
              sum += weight * static_cast<double>(x.F(Ravel(from, x.desc.shape)));
            }
            want.push_back(sum);
          }
          ExpectNear(y, want, 1e-6, 2e-6);
        }
      }
    }
  }
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert::test;
  TestTranspose();
  TestSliceSplitConcat();
  TestExpand();
  TestPad();
  TestGather();
  TestCast();
  TestResize();
  return Finish("kernels_movement_test");
}
