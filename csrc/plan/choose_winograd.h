// Winograd's blocking for one layer, and what it costs.
#pragma once

#include "base/cpu.h"
#include "kernels/winograd/winograd.h"

namespace sparsert {

struct WinogradProblem {
  CpuTraits cpu;
  int64_t batch = 1;
  int64_t rows = 0;      // output channels
  int64_t channels = 0;  // of the input
  int64_t out_h = 0, out_w = 0;
  int threads = 1;
};

struct WinogradChoice {
  WinogradKernel kernel;
  WinogradWeights shape;  // without values; the same for every batch and plane
  int32_t vecs = 0;       // (as in WinogradArgs)
  int32_t blocks = 1;
  int32_t block_vecs = 0;
  int32_t splits = 1;
  double predicted_ns = 0.0;  // one thread
};

constexpr const char* kWinogradName = "winograd";  // its format

// False if there is no kernel, or the layer is too large for it.
bool ChooseWinograd(const WinogradProblem& problem, Isa isa, WinogradChoice* choice);

}  // namespace sparsert
