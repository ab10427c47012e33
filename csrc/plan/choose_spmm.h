// The choice of a layer's compute format: analytic cost, candidates.
#pragma once

#include "base/cpu.h"
#include "kernels/qspmm/qspmm.h"
#include "plan/build_taps.h"
#include "plan/matrix_stats.h"

namespace sparsert {

// Threads share the items of a direct layer either by columns, each a part of every plane, or by
// planes. By columns they read what they wrote in the layer before; but parts of small planes lie
// so close together that reading one fetches lines of the next, which another thread writes.
inline bool SharedByPlanes(int64_t columns) { return columns <= 400; }

// Whether half a vector takes half the time: of what is compiled here, x86 alone asks.
inline bool HalvesVectors(const CpuTraits& cpu) {
#if defined(SRT_ARM)
  return static_cast<void>(cpu), false;
#else
  return cpu.halves_vectors;
#endif
}

struct SpmmProblem {
  CpuTraits cpu;
  int64_t columns = 0;  // of one image
  int64_t batch = 1;
  int threads = 1;
  bool direct = false;
  bool may_tile = false;           // X or Y might lie in tiles: threads share these
  const Tiling* tiling = nullptr;  // the tiles of X, R or Y; nullptr: any
  bool needs_tiling = false;       // X or R lies so: nothing but these will do
  bool bytes = false;              // qspmm instead of spmm
  double feed_cost = 1.0;          // cycles per vector copied by the tile feed
  const Window* window = nullptr;  // of stride 1: tiles may be stacks
};

struct SpmmChoice {
  QspmmKernel kernel;  // of spmm too
  Tiling tiling;
  int32_t block_depth = 0;
  int32_t stack_vecs = 0;     // vectors of a row of Y if tiles are stacks (see SpmmStack), else 0
  double predicted_ns = 0.0;  // one thread
};

// The last one: csr2 whose tiles are stacks.
constexpr int kMaxSpmmChoices = static_cast<int>(SpmmFormat::kCount) + 1;

// Candidates with their predicted times, best first. Returns their number. `forced_format`:
// kAnyFormat, or the only SpmmFormat to consider.
int RankSpmm(const MatrixStats& stats, const SpmmProblem& problem, Isa isa, int forced_format,
             SpmmChoice* choices);

constexpr int kAnyFormat = -1;
// The format that is not of spmm; what it cannot compute has the choice of all the others.
constexpr int kWinogradFormat = static_cast<int>(SpmmFormat::kCount);
// Formats of spmv that spmm does not have: this, and the SpmvFormat.
constexpr int kVectorFormat = kWinogradFormat + 1;
// What a forced format leaves to RankSpmm().
constexpr int ForcedSpmm(int format) { return format >= kWinogradFormat ? kAnyFormat : format; }

// Any of those that may be forced.
const char* FormatName(int format);
// A format's number from its name; kAnyFormat for nullptr or "". kInvalidArgument names them all.
Status FormatFromName(const char* name, int* format);

}  // namespace sparsert
