// The cost of matrix-vector layers: the spmv formats, and the copies that spmm needs instead.
#pragma once

#include "base/cpu.h"
#include "kernels/qspmv/qspmv.h"
#include "plan/matrix_stats.h"

namespace sparsert {

struct SpmvProblem {
  CpuTraits cpu;
  MatrixStats weights;         // of one group
  int64_t batch = 1;           // vectors
  bool groups = false;         // by groups that share weights, where a kernel can; else in turn
  bool bytes = false;          // qspmv instead of spmv
  uint64_t nonzero_bytes = 0;  // of qspmv
  int forced = -1;  // kAnyFormat, or the only SpmvFormat to consider, if there is a kernel
};

struct SpmvChoice {
  SpmvFormat format = SpmvFormat::kDense;
  Kernel kernel;
  int lanes = 0;
  int byte_offset = 0;        // of qspmv
  int32_t group = 1;          // vectors that share weights
  double stored = 0.0;        // weights that are packed
  double predicted_ns = 0.0;  // one thread

  // See PackSpmv().
  bool perm_pairs() const { return kMaxSpmvGroup > 1 && format == SpmvFormat::kPerm && group > 1; }
};

constexpr int kMaxSpmvChoices = static_cast<int>(SpmvFormat::kCount);

// The formats that have a kernel and may pay, with their predicted times. Returns their number.
int PredictSpmv(const SpmvProblem& problem, Isa isa, SpmvChoice* choices);

// Items of `slices`: of about `item_weights` stored weights.
int32_t SpmvChunks(const SpmvChoice& choice, int32_t slices, double item_weights);

const char* SpmvFormatName(SpmvFormat format);  // "dense", "sell", "bits", "bsr4", ...

// What SPARSERT_FORMAT asks of layers of single vectors: a SpmvFormat, or kAnyFormat.
int ForcedSpmv(int format);
// Whether vectors may be multiplied one by one, and side by side. A format that spmm has is its
// own matter, except for a single vector; one that only spmv has goes for any number of vectors.
bool MayUseSpmv(int format, int64_t vectors);
bool MayUseSpmm(int format, int64_t vectors);

// Bringing `elements` floats of row-major vectors side by side, or back.
double TransposeNs(double elements);

}  // namespace sparsert
