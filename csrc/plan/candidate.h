// Candidate: one way to compute a matrix layer, as ranked, measured and shown by explain().
#pragma once

#include <cstdint>

namespace sparsert {

struct Candidate {
  const char* format = "";
  const char* kernel = "";
  double predicted_ns = 0.0;  // one thread
  double measured_ns = 0.0;   // one thread; 0: not measured
  int32_t tiles = 1;          // that a row of columns is cut into
  int32_t tile_columns = 1;   // of the widest
  int32_t block_depth = 0;    // K-rows of a block; 0: K is not cut
  bool stacked = false;       // tiles are stacks: see SpmmStack
};

constexpr int kMaxCandidates = 16;

}  // namespace sparsert
