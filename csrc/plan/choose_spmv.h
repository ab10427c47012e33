// The cost of matrix-vector layers: the spmv formats, and the copies that spmm needs instead.
#pragma once

#include "base/cpu.h"
#include "kernels/qspmv/qspmv.h"

namespace sparsert {

struct SpmvProblem {
  CpuTraits cpu;
  int64_t rows = 0;
  int64_t cols = 0;
  uint64_t nnz = 0;
  int64_t batch = 1;   // vectors, one after the other
  bool bytes = false;  // qspmv instead of spmv
};

struct SpmvChoice {
  SpmvFormat format = SpmvFormat::kDense;
  Kernel kernel;
  int lanes = 0;
  int byte_offset = 0;        // of qspmv
  double predicted_ns = 0.0;  // one thread
};

constexpr int kMaxSpmvChoices = 3;

// The formats that have a kernel and may pay, with their predicted times. Returns their number.
int PredictSpmv(const SpmvProblem& problem, Isa isa, SpmvChoice* choices);

const char* SpmvFormatName(SpmvFormat format);  // "dense", "sell", "bits"

// Bringing `elements` floats of row-major vectors side by side, or back.
double TransposeNs(double elements);

}  // namespace sparsert
