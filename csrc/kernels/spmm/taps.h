// TapVec: where one vector of output columns finds its inputs for one kernel tap.
#pragma once

#include <cstdint>

namespace sparsert {

enum class TapMode : uint8_t {
  kZero = 0,        // every lane lies in the padding
  kContiguous = 1,  // lane l reads base + l
  kStride2 = 2,     // lane l reads base + 2 * l
  kSegments = 3,    // the lanes fall into runs: segments[table] and those behind it, to the last
  kGather = 4,      // lane l reads gather[table + l]
  kPick = 5,        // lane l reads base + gather[table + l], which is below 32
  kMixed = 6,       // (as `uniform`)
};

// Vectors of so many lanes have an instruction that picks lanes from two of them: kPick.
constexpr int kPickLanes = 16;
constexpr int kPickFloats = 2 * kPickLanes;

// Offsets are floats from the start of the input plane. Lanes outside `mask` lie in the padding (or
// behind the last column) and are 0; nothing is read for them, except by kPick, which reads all 32
// floats from base on: they lie in the plane.
struct TapVec {
  int32_t base;
  int32_t table;
  uint16_t mask;
  TapMode mode;
  TapMode uniform;  // in a tile's first vector: the mode of all its vectors, else kMixed
};

// A run of lanes that read base + step * l; the other lanes are left alone.
struct TapSegment {
  int32_t base;
  uint16_t mask;
  uint8_t step;  // 1 or 2
  bool last;
};

// One convolution's taps: entry [(tile * taps + tap) * tile_vecs + vector].
struct TapTable {
  const TapVec* entries = nullptr;
  const TapSegment* segments = nullptr;
  const int32_t* gather = nullptr;
  int32_t taps = 0;
  int32_t tile_vecs = 0;  // row length of a tile; narrower tiles leave the rest unused
};

// How a window of stride 1 is fed to tiles that are stacks: a vector of columns of each of several
// successive rows of Y. All taps of a column of the kernel share a copy of the rows they read.
struct SpmmStack {
  int32_t row_vecs = 0;  // vectors of a row of Y; 0: tiles are not stacks
  int32_t height = 0;    // of Y
  int32_t width = 0;
  int32_t in_height = 0;
  int32_t in_width = 0;
  int32_t kernel_height = 0;
  int32_t kernel_width = 0;
  int32_t pad_top = 0;
  int32_t pad_left = 0;
  int32_t channels = 0;  // of a block: K-rows in their order (channel, tap) of W
};

}  // namespace sparsert
