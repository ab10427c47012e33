// Layers alike: same operator, weights and outputs of equal size, and the same kernels predicted to
// take nearly the same time.
#include "plan/expect_times.h"

#include <cmath>
#include <cstring>

namespace sparsert {
namespace {

constexpr double kAlike = 0.1;  // predicted times that differ by less are

bool IsAlike(const Candidate& a, const Candidate& b) {
  return a.tiles == b.tiles && a.stacked == b.stacked && strcmp(a.kernel, b.kernel) == 0 &&
         std::abs(a.predicted_ns - b.predicted_ns) < kAlike * b.predicted_ns;
}

int64_t Outputs(const PlanBuilder& b, uint32_t node) {
  return b.facts(b.graph.nodes[node].outputs[0]).shape.elements();
}

}  // namespace

void ExpectTimes(const PlanBuilder& b, Contest* contest) {
  double ratios[kMaxCandidates] = {};  // measured to predicted, sums over layers
  const NodePlan& own = b.plan->nodes[b.node_index];
  const int64_t outputs = Outputs(b, b.node_index);
  for (uint32_t n = 0; n < b.node_index; ++n) {
    const NodePlan& other = b.plan->nodes[n];
    if (other.candidate_count == 0 || other.weights != own.weights ||
        b.graph.nodes[n].op != b.node->op || Outputs(b, n) != outputs) {
      continue;
    }
    for (const Candidate& c : b.plan->CandidatesOf(n)) {
      if (c.measured_ns <= 0.0) continue;
      for (int i = 0; i < contest->count; ++i) {
        if (!IsAlike(c, contest->list[i])) continue;
        ratios[i] += c.measured_ns / c.predicted_ns;
        ++contest->alike[i];
      }
    }
  }
  double sum = 0.0;
  int measured = 0;
  for (int i = 0; i < contest->count; ++i) {
    sum += ratios[i];
    measured += contest->alike[i];
  }
  // What was never measured is expected to be as far from its prediction as the others are.
  const double common = measured == 0 ? 1.0 : sum / measured;
  for (int i = 0; i < contest->count; ++i) {
    const double ratio = contest->alike[i] == 0 ? common : ratios[i] / contest->alike[i];
    contest->expected_ns[i] = contest->list[i].predicted_ns * ratio;
    int at = i;
    while (at > 0 && contest->expected_ns[at - 1] > contest->expected_ns[i]) --at;
    contest->Move(i, at);
  }
}

}  // namespace sparsert
