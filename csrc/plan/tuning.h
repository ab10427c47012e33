// Measured choices of a plan as bytes, so that a caller may keep them for the next time.
//
// Little-endian, without padding:
//   "SRTTUNE\n"  u32 version  u32 CRC-32 of all bytes behind it  u64 fingerprint  u32 entries
//   per entry:   u32 node (rising)  u32 candidates measured (0: the cost model chose)
//   per candidate, the chosen one first:
//                char kernel[40] (padded with zero bytes)  i32 tiles  i32 block_depth  f64 ns
#pragma once

#include "base/span.h"
#include "plan/candidate.h"
#include "plan/plan.h"

namespace sparsert {

// What choices depend on, as far as the core sees it: instruction set, threads, tune option, sizes
// of caches and weights, input shapes.
uint64_t TuningFingerprint(const Graph& graph, Span<Shape> input_shapes,
                           const PlanOptions& options);

// Reads bytes that nobody vouches for. A choice that does not fit is as if it were not there.
class TuningReader {
 public:
  // Takes nothing from a blob that is malformed or was made for something else.
  void Open(Span<uint8_t> blob, uint64_t fingerprint, size_t nodes);

  // The node's choice, if its candidates are all among `list`: their measured_ns is set, *chosen is
  // the index of the winner. False leaves `list` as it is.
  bool Apply(uint32_t node, Candidate* list, int count, int* chosen) const;

 private:
  Span<uint8_t> entries_;  // checked
};

// Writes the choices of a plan into `buffer` when they fit into `size`. Returns how many bytes they
// are; 0 when nothing was measured.
size_t WriteTuning(const Plan& plan, void* buffer, size_t size);

}  // namespace sparsert
