// What to measure, for how long, and what to say of it.
#include "plan/choose_candidate.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "plan/expect_times.h"

namespace sparsert {
namespace {

constexpr int kMaxRounds = 7;

// How one tune option measures.
struct Effort {
  double close;     // candidates expected within this factor of the best take part
  int rounds;       // at most
  double behind;    // a candidate this much slower than the best after two rounds is out
  double share_ns;  // a longer run is cut to about this
};
constexpr Effort kAutoEffort = {1.6, 6, 1.15, 2e6};
constexpr Effort kFullEffort = {6.0, kMaxRounds, 3.0, 1e9};

// Estimates for the budget: of one stored weight's packing, and of what comes before each round of
// runs, and before each run.
constexpr double kPackNs = 6.0;
constexpr double kForgetNs = 7e5;
constexpr double kReadNs = 5e4;

// The cost model flatters sparse formats of bytes: they were measured up to 1.8 times as slow
// beside dense ones as predicted. So a dense one predicted within this factor takes part as well.
constexpr double kDenseReach = 2.5;

// Candidates that hold more weights together than this are packed and timed in turn: two of their
// packings at most are in memory.
constexpr double kTogether = 8 << 20;

double Median(double* times, int count) {
  std::sort(times, times + count);
  return times[(count - 1) / 2];
}

double Share(const Candidate& c, const Effort& effort) {
  return std::min(1.0, effort.share_ns / std::max(1.0, c.predicted_ns));
}

// A candidate is out that earlier layers measured to be this far behind, divided by the square root
// of how many layers did: the more there were, the surer it is.
constexpr double kBehindAlike = 0.3;
constexpr int kMinAlike = 2;

bool IsKnownToLose(const Contest& contest, int i) {
  const int alike = contest.alike[i];
  const double behind = 1.0 + kBehindAlike / std::sqrt(std::max(1, alike));
  return alike >= kMinAlike && contest.alike[0] >= kMinAlike &&
         contest.expected_ns[i] > contest.expected_ns[0] * behind;
}

// How many candidates are to be measured, best expected first.
int Wanted(const Contest& contest, Tune tune, const Effort& effort) {
  const double limit = contest.expected_ns[0] * effort.close;
  int wanted = 0;
  while (wanted < contest.count && contest.expected_ns[wanted] <= limit &&
         (tune == Tune::kFull || !IsKnownToLose(contest, wanted))) {
    ++wanted;
  }
  return wanted;
}

// How many candidates can be measured within `budget_ns`, best expected first.
int Affordable(const Contest& contest, int wanted, const Effort& effort, double budget_ns) {
  constexpr double kRounds = 2.0;
  double needed = kRounds * kForgetNs;
  for (int i = 0; i < wanted; ++i) {
    const Candidate& c = contest.list[i];
    needed += contest.stored[i] * kPackNs + kRounds * (c.predicted_ns * Share(c, effort) + kReadNs);
    if (needed > budget_ns) return i;
  }
  return wanted;
}

// What a measured candidate is expected to take: layers alike tell as much as the layer itself, so
// that a run that something else disturbed decides nothing.
double Score(const Contest& contest, int i) {
  const double alike = contest.alike[i];
  return (contest.list[i].measured_ns + alike * contest.expected_ns[i]) / (1.0 + alike);
}

// A model whose weights take more comes from main memory in each run, not from the last cache.
constexpr double kLastCache = 32 << 20;

// The weights, if a whole model packed as the trial is would not stay in the last cache.
const Weights* FarWeights(const PlanBuilder* b, const Trial& trial) {
  double bytes = 0.0;
  for (const PackKey& key : trial.keys) {
    if (key.tensor != kNoTensor) bytes += static_cast<double>(b->weights->PackedBytes(key));
  }
  const auto own = static_cast<double>(b->plan->nodes[b->node_index].weights);
  return own > 0.0 && bytes * b->weight_elements / own > kLastCache ? b->weights : nullptr;
}

void DropAll(PlanBuilder* b, const Trial& trial) {
  for (const PackKey& key : trial.keys) b->weights->Drop(key);
}

// As MeasureTogether, each candidate when the one before it is done. *candidates becomes the number
// of those that there was time for.
Status MeasureInTurn(PlanBuilder* b, Contest* contest, int* candidates, const Effort& effort,
                     double budget_ns, int* best) {
  uint64_t (*clock)() = b->options.clock;
  const uint64_t begin = clock();
  Trial winner;
  double least = 0.0;
  *best = -1;
  SRT_RETURN_IF_ERROR(b->bench.Reserve(contest->buffer_floats));
  for (int i = 0; i < *candidates; ++i) {
    const auto is_late = [&] { return static_cast<double>(clock() - begin) > budget_ns; };
    if (i >= 2 && is_late()) {
      *candidates = i;
      break;
    }
    Trial trial;
    SRT_RETURN_IF_ERROR(contest->prepare(contest->layer, contest->numbers[i], &trial));
    double times[kMaxRounds];
    int runs = 0;
    double fastest = 0.0;
    while (runs < effort.rounds) {
      double ns = 0.0;
      b->bench.Forget();
      SRT_RETURN_IF_ERROR(
          b->bench.Time(trial, FarWeights(b, trial), Share(contest->list[i], effort), clock, &ns));
      fastest = runs == 0 ? ns : std::min(fastest, ns);
      times[runs++] = ns;
      const bool is_behind = *best >= 0 && fastest > least * effort.behind;
      if (runs >= 2 && (is_behind || is_late())) break;
    }
    const double ns = std::max(1.0, Median(times, runs));
    contest->list[i].measured_ns = ns;
    if (*best >= 0 && Score(*contest, i) >= Score(*contest, *best)) {
      DropAll(b, trial);
      continue;
    }
    if (*best >= 0) DropAll(b, winner);
    winner = trial;
    least = fastest;
    *best = i;
  }
  return Status::Ok();
}

// Times the first `candidates`; the losers' packings are dropped. Returns the best score in *best.
Status MeasureTogether(PlanBuilder* b, Contest* contest, int candidates, const Effort& effort,
                       double budget_ns, int* best) {
  uint64_t (*clock)() = b->options.clock;
  const uint64_t begin = clock();
  Trial trials[kMaxCandidates];
  double times[kMaxCandidates][kMaxRounds];
  double fastest[kMaxCandidates];
  int runs[kMaxCandidates] = {};
  bool in[kMaxCandidates];
  SRT_RETURN_IF_ERROR(b->bench.Reserve(contest->buffer_floats));
  for (int i = 0; i < candidates; ++i) {
    SRT_RETURN_IF_ERROR(contest->prepare(contest->layer, contest->numbers[i], &trials[i]));
    in[i] = true;
    fastest[i] = 0.0;
  }
  int left = candidates;
  for (int round = 0; round < effort.rounds && left > 1; ++round) {
    if (round >= 2 && static_cast<double>(clock() - begin) > budget_ns) break;
    b->bench.Forget();
    for (int k = 0; k < candidates; ++k) {
      const int i = (k + round) % candidates;
      if (!in[i]) continue;
      double ns = 0.0;
      SRT_RETURN_IF_ERROR(b->bench.Time(trials[i], FarWeights(b, trials[i]),
                                        Share(contest->list[i], effort), clock, &ns));
      fastest[i] = runs[i] == 0 ? ns : std::min(fastest[i], ns);
      times[i][runs[i]++] = ns;
    }
    if (round == 0) continue;
    // Of more rounds, half of that says as much.
    const double behind = 1.0 + (effort.behind - 1.0) / std::min(round, 2);
    double limit = 0.0;
    for (int i = 0; i < candidates; ++i) {
      if (in[i] && (limit == 0.0 || fastest[i] < limit)) limit = fastest[i];
    }
    for (int i = 0; i < candidates; ++i) {
      if (!in[i] || fastest[i] <= limit * behind) continue;
      in[i] = false;
      --left;
    }
  }
  *best = -1;
  for (int i = 0; i < candidates; ++i) {
    // A clock may stand still for a short run; 0 would mean "not measured".
    contest->list[i].measured_ns = std::max(1.0, Median(times[i], runs[i]));
    if (!in[i]) continue;
    if (*best < 0 || Score(*contest, i) < Score(*contest, *best)) *best = i;
  }
  for (int i = 0; i < candidates; ++i) {
    if (i != *best) DropAll(b, trials[i]);
  }
  return Status::Ok();
}

// The candidates go to the plan, the chosen one first.
Status Publish(PlanBuilder* b, const Contest& contest, int chosen) {
  Array<Candidate>& all = b->plan->candidates;
  NodePlan& info = b->info();
  info.first_candidate = static_cast<uint32_t>(all.size());
  info.candidate_count = static_cast<uint32_t>(contest.count);
  SRT_RETURN_IF_ERROR(all.push_back(contest.list[chosen]));
  for (int i = 0; i < contest.count; ++i) {
    if (i != chosen) SRT_RETURN_IF_ERROR(all.push_back(contest.list[i]));
  }
  return Status::Ok();
}

bool IsDense(const Candidate& c) { return strncmp(c.format, "dense", 5) == 0; }

// Of the first `wanted` candidates none is dense: puts the best dense one behind them, if it is
// near enough and not known to lose. Returns how many take part then.
int WithDense(Contest* contest, int wanted) {
  for (int i = 0; i < contest->count; ++i) {
    if (!IsDense(contest->list[i])) continue;
    const bool is_near =
        contest->list[i].predicted_ns <= contest->list[0].predicted_ns * kDenseReach;
    if (i < wanted || !is_near || IsKnownToLose(*contest, i)) return wanted;
    contest->Move(i, wanted);
    return wanted + 1;
  }
  return wanted;
}

}  // namespace

void Contest::Add(const Candidate& candidate, int number, double weights) {
  if (count == kMaxCandidates) return;
  int at = 0;
  while (at < count && list[at].predicted_ns <= candidate.predicted_ns) ++at;
  list[count] = candidate;
  numbers[count] = number;
  stored[count] = weights;
  Move(count++, at);
}

void Contest::Move(int from, int to) {
  std::rotate(list + to, list + from, list + from + 1);
  std::rotate(numbers + to, numbers + from, numbers + from + 1);
  std::rotate(stored + to, stored + from, stored + from + 1);
  std::rotate(expected_ns + to, expected_ns + from, expected_ns + from + 1);
  std::rotate(alike + to, alike + from, alike + from + 1);
}

Status ChooseCandidate(PlanBuilder* b, Contest* contest, int* winner) {
  const Effort& effort = b->options.tune == Tune::kFull ? kFullEffort : kAutoEffort;
  const bool tunes = b->options.tune != Tune::kOff && b->options.clock != nullptr;
  int chosen = 0;
  ExpectTimes(*b, contest);
  const bool known = tunes && b->tuning.Apply(b->tuning_node + b->node_index, contest->list,
                                              contest->count, &chosen);
  int measured = 0;
  if (known) {
    for (int i = 0; i < contest->count; ++i) measured += contest->list[i].measured_ns > 0.0;
  } else if (tunes) {
    const uint64_t begin = b->options.clock();
    measured = Wanted(*contest, b->options.tune, effort);
    if (contest->bytes) measured = WithDense(contest, measured);
    double budget_ns = 1e18;
    if (b->options.tune == Tune::kAuto) {
      budget_ns = b->TuneBudget();
      measured = Affordable(*contest, measured, effort, budget_ns);
    }
    if (measured < 2) measured = 0;
    if (measured != 0) {
      double stored = 0.0;
      for (int i = 0; i < measured; ++i) stored += contest->stored[i];
      SRT_RETURN_IF_ERROR(stored > kTogether
                              ? MeasureInTurn(b, contest, &measured, effort, budget_ns, &chosen)
                              : MeasureTogether(b, contest, measured, effort, budget_ns, &chosen));
    }
    b->tune_ns_left -= static_cast<double>(b->options.clock() - begin);
  }

  NodePlan& info = b->info();
  const Candidate& best = contest->list[chosen];
  info.compute_format = best.format;
  info.predicted_ns = best.predicted_ns;
  info.measured_ns = best.measured_ns;
  const double total = static_cast<double>(info.weights);
  const double zeros = total > 0 ? 100.0 * (1.0 - static_cast<double>(info.nonzeros) / total) : 0.0;
  double dense_ns = 0.0;
  for (int i = contest->count; i-- > 0;) {
    if (IsDense(contest->list[i])) dense_ns = contest->list[i].predicted_ns;
  }
  if (measured != 0) {
    snprintf(info.reason, sizeof(info.reason), "fastest of %d measured at %.1f %% zeros%s",
             measured, zeros, known ? ", from the tuning cache" : "");
  } else if (contest->alike[chosen] != 0) {
    snprintf(info.reason, sizeof(info.reason),
             "fastest at %.1f %% zeros as measured in %d layers alike", zeros,
             contest->alike[chosen]);
  } else if (dense_ns > 0.0 && !IsDense(best)) {
    snprintf(info.reason, sizeof(info.reason), "cost model at %.1f %% zeros, dense %.1f us", zeros,
             dense_ns * 1e-3);
  } else {
    snprintf(info.reason, sizeof(info.reason), "cost model at %.1f %% zeros", zeros);
  }
  *winner = contest->numbers[chosen];
  return Publish(b, *contest, chosen);
}

}  // namespace sparsert
