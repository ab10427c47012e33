// The choice among the candidates of a layer: earlier tuning, measurement, or the cost model.
#pragma once

#include "plan/builder.h"
#include "plan/candidate.h"
#include "plan/measure.h"

namespace sparsert {

// The candidates of the current node, the best predicted first, then the best expected.
class Contest {
 public:
  // `number`: what the layer calls the candidate. `stored`: weights that its packing holds.
  void Add(const Candidate& candidate, int number, double stored);
  // Puts a candidate before others, which keep their order.
  void Move(int from, int to);

  int count = 0;
  Candidate list[kMaxCandidates];
  int numbers[kMaxCandidates];
  double stored[kMaxCandidates];
  double expected_ns[kMaxCandidates] = {};
  int alike[kMaxCandidates] = {};  // earlier layers like this one that measured the candidate
  size_t buffer_floats[kTrialBuffers] = {};
  bool bytes = false;  // the candidates multiply packed bytes

  // Packs a candidate's weights and makes it ready to be timed.
  Status (*prepare)(void* layer, int number, Trial* trial) = nullptr;
  void* layer = nullptr;
};

// Decides and tells explain(): candidates, times, reason. `*winner` gets the number of the best.
// Of the candidates that were timed, only the winner stays packed.
Status ChooseCandidate(PlanBuilder* b, Contest* contest, int* winner);

}  // namespace sparsert
