// Candidates, tuning blobs and slices through the C interface: a blob decides what an earlier plan
// measured, and one that nobody should believe changes nothing but time.
#include <algorithm>

#include "capi_harness.h"

namespace {

using namespace capi;

// Of the blob's layout, as csrc/plan/tuning.h tells it.
constexpr size_t kCrcAt = 12, kCheckedFrom = 16, kHeaderBytes = 28;
constexpr size_t kEntryBytes = 8, kRecordBytes = 56, kNsAt = 48;

constexpr int64_t kHeight = 9, kWidth = 17;

struct Model {
  Model(const File& file, int tune, int threads = 1) {
    srt_options options = Options(threads, srt_isa_name(0), nullptr);
    options.tune = tune;
    srt_error error = {};
    Expect(srt_model_load(file.data, file.size, &options, &model, &error) == SRT_OK, "load: %s",
           error.text);
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model() { srt_model_free(model); }

  srt_model* model = nullptr;
};

struct Plan {
  Plan(const Model& m, const std::string& tuning, int64_t batch = 1, int64_t height = kHeight) {
    const srt_shape shape = Shape({batch, kIn, height, kWidth});
    srt_error error = {};
    // The blob ends where its memory ends.
    std::vector<char> bytes(tuning.begin(), tuning.end());
    bytes.shrink_to_fit();
    const int32_t code =
        srt_plan_make_tuned(m.model, &shape, 1, bytes.data(), bytes.size(), &plan, &error);
    Expect(code == SRT_OK && plan != nullptr, "plan: %s", error.text);
    if (plan == nullptr) std::exit(1);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() { srt_plan_free(plan); }

  srt_node_info Node(int32_t index) const {
    srt_node_info info = {};
    srt_plan_node(plan, index, &info);
    return info;
  }
  srt_candidate Candidate(int32_t node, int32_t index) const {
    srt_candidate candidate = {};
    Expect(srt_plan_candidate(plan, node, index, &candidate) == SRT_OK, "candidate %d", index);
    return candidate;
  }
  std::string Tuning() const {
    std::string blob(srt_plan_tuning(plan, nullptr, 0), '\0');
    srt_plan_tuning(plan, &blob[0], blob.size());
    return blob;
  }
  bool IsCached(int32_t node) const {
    return std::strstr(Node(node).reason, "tuning cache") != nullptr;
  }
  void ExpectRight(const Weights& w) const {
    std::vector<float> x(static_cast<size_t>(kIn * kHeight * kWidth));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7 % 23) * 0.125f - 1.0f;
    float y[kOut];
    const void* inputs[] = {x.data()};
    void* outputs[] = {y};
    void* arena = AlignedBytes(srt_plan_arena_bytes(plan));
    srt_plan_run_unchecked(plan, arena, inputs, outputs, nullptr, nullptr);
    std::free(arena);
    const std::vector<double> want = Reference(w, x.data(), 1, kHeight, kWidth);
    for (size_t i = 0; i < kOut; ++i) {
      Expect(std::fabs(y[i] - want[i]) <= 1e-4 * (1 + std::fabs(want[i])), "output %zu", i);
    }
  }

  srt_plan* plan = nullptr;
};

// The nodes of the built-in model that leave a choice.
constexpr int32_t kConvNode = 0, kPoolNode = 1, kLinearNode = 3;

std::string Signed(std::string blob) {
  const uint32_t crc = Crc(blob, kCheckedFrom);
  std::memcpy(&blob[kCrcAt], &crc, sizeof(crc));
  return blob;
}

template <typename T>
std::string With(std::string blob, size_t at, T value) {
  std::memcpy(&blob[at], &value, sizeof(value));
  return Signed(blob);
}

void TestCandidates(const Model& model) {
  const Plan plan(model, "");
  for (const int32_t node : {kConvNode, kLinearNode}) {
    const srt_node_info info = plan.Node(node);
    const int32_t count = srt_plan_candidate_count(plan.plan, node);
    Expect(count >= 3, "node %d has %d candidates", node, count);
    const srt_candidate chosen = plan.Candidate(node, 0);
    Expect(std::strcmp(chosen.kernel, info.kernel) == 0, "chosen %s, runs %s", chosen.kernel,
           info.kernel);
    Expect(std::strcmp(chosen.format, info.compute_format) == 0, "format %s", chosen.format);
    Expect(chosen.measured_ns == info.measured_ns && chosen.measured_ns > 0, "measured");
    Expect(chosen.predicted_ns == info.predicted_ns, "predicted");
    double before = 0.0;
    for (int32_t i = 0; i < count; ++i) {
      const srt_candidate c = plan.Candidate(node, i);
      Expect(c.predicted_ns > 0 && c.tiles >= 1 && c.tile_columns >= 1, "candidate %d", i);
      Expect(i <= 1 || c.predicted_ns >= before, "candidate %d is out of order", i);
      before = c.predicted_ns;
    }
    srt_candidate none = {};
    for (const int32_t bad : {-1, count, 1000}) {
      Expect(srt_plan_candidate(plan.plan, node, bad, &none) == SRT_INVALID_ARGUMENT, "%d", bad);
    }
  }
  Expect(srt_plan_candidate_count(plan.plan, kPoolNode) == 0, "a pool has no candidates");
  Expect(srt_plan_candidate_count(plan.plan, -1) == 0, "node -1");
  Expect(srt_plan_candidate_count(plan.plan, 4) == 0, "node 4");
}

void TestRoundTrip(const Model& model, const Weights& w) {
  const Plan first(model, "");
  const std::string blob = first.Tuning();
  Expect(blob.size() > kHeaderBytes && blob.size() < 4096, "%zu bytes", blob.size());
  Expect(!first.IsCached(kConvNode), "nothing is cached at first");

  // A buffer that is too small is left alone.
  std::string small(blob.size(), 'x');
  Expect(srt_plan_tuning(first.plan, &small[0], blob.size() - 1) == blob.size(), "size");
  Expect(small.back() == 'x', "written behind the buffer");

  const Plan again(model, blob);
  Expect(again.Tuning() == blob, "the same choices give the same bytes");
  for (const int32_t node : {kConvNode, kLinearNode}) {
    Expect(again.IsCached(node), "node %d: %s", node, again.Node(node).reason);
    Expect(std::strcmp(again.Node(node).kernel, first.Node(node).kernel) == 0, "kernel");
  }
  again.ExpectRight(w);

  // The first record is the winner, whatever its time.
  uint32_t records = 0;
  std::memcpy(&records, &blob[kHeaderBytes + 4], sizeof(records));
  Expect(records >= 2, "%u candidates were measured", records);
  const size_t record = kHeaderBytes + kEntryBytes;
  std::string swapped = blob;
  std::swap_ranges(&swapped[record], &swapped[record + kRecordBytes],
                   &swapped[record + kRecordBytes]);
  const std::string kernel(&blob[record + kRecordBytes]);
  const Plan other(model, Signed(swapped));
  Expect(other.IsCached(kConvNode) && kernel == other.Node(kConvNode).kernel, "%s, expected %s",
         other.Node(kConvNode).kernel, kernel.c_str());
  other.ExpectRight(w);
}

void TestOtherConditions(const File& file, const Model& model) {
  const std::string blob = Plan(model, "").Tuning();
  Expect(!Plan(model, blob, 2).IsCached(kConvNode), "another batch");
  Expect(!Plan(model, blob, 1, kHeight + 1).IsCached(kConvNode), "another height");
  Expect(!Plan(Model(file, SRT_TUNE_FULL, 2), blob).IsCached(kConvNode), "other threads");
  const Model trusting(file, SRT_TUNE_OFF);
  const Plan untuned(trusting, blob);
  Expect(!untuned.IsCached(kConvNode), "tuning is off");
  Expect(untuned.Candidate(kConvNode, 0).measured_ns == 0, "tuning is off: measured");
  Expect(srt_plan_tuning(untuned.plan, nullptr, 0) == 0, "nothing was measured");
}

void TestBadBlobs(const Model& model, const Weights& w) {
  const std::string blob = Plan(model, "").Tuning();
  const size_t record = kHeaderBytes + kEntryBytes;
  const double nan = std::nan("");
  const std::string whole[] = {
      "x",
      blob + "x",
      With(blob, 8, uint32_t{2}),                          // version
      With(blob, 24, uint32_t{0}),                         // entries
      With(blob, 24, uint32_t{0xffffffff}),                //
      With(blob, kHeaderBytes, uint32_t{4}),               // node
      With(blob, kHeaderBytes, uint32_t{0xffffffff}),      //
      With(blob, kHeaderBytes + 4, uint32_t{0}),           // records
      With(blob, kHeaderBytes + 4, uint32_t{17}),          //
      With(blob, kHeaderBytes + 4, uint32_t{0x80000001}),  //
      With(blob, record + kNsAt, nan),
      With(blob, record + kNsAt, -1.0),
      With(blob, record + kNsAt, 0.0),
  };
  for (const std::string& bad : whole) {
    const Plan plan(model, bad);
    Expect(!plan.IsCached(kConvNode) && !plan.IsCached(kLinearNode), "taken: a blob of %zu bytes",
           bad.size());
  }
  for (size_t size = 0; size < blob.size(); size += 29) {
    std::string cut = blob.substr(0, size);
    Expect(!Plan(model, cut).IsCached(kConvNode), "cut at %zu", size);
    if (size < kHeaderBytes) continue;
    Expect(!Plan(model, Signed(cut)).IsCached(kConvNode), "cut at %zu and signed", size);
  }
  // A choice that does not fit is measured anew; the others count.
  for (const size_t at : {record, record + 40, record + 44}) {
    std::string stale = blob;
    stale[at] = static_cast<char>(stale[at] ^ 1);
    const Plan plan(model, Signed(stale));
    Expect(!plan.IsCached(kConvNode), "stale at %zu: %s", at, plan.Node(kConvNode).reason);
    Expect(plan.Node(kConvNode).measured_ns > 0, "stale at %zu: not measured", at);
    Expect(plan.IsCached(kLinearNode), "stale at %zu: all are gone", at);
  }
  for (size_t at = 0; at < blob.size(); at += 17) {
    std::string flipped = blob;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x55);
    Expect(!Plan(model, flipped).IsCached(kConvNode), "flipped at %zu", at);
    if (at >= kCheckedFrom) Plan(model, Signed(flipped)).ExpectRight(w);
  }
}

void TestSlices(const Model& model) {
  int64_t images = -1;
  Expect(srt_plan_slices(Plan(model, "").plan, &images) == 1 && images == 0, "one image");
  const Plan plan(model, "", 64, 80);
  const int32_t slices = srt_plan_slices(plan.plan, &images);
  Expect(slices > 1 && slices * images == 64, "%d slices of %d", slices, static_cast<int>(images));
}

}  // namespace

int main() {
  const Weights weights = MakeWeights();
  const File file(MakeFile(weights));
  const Model model(file, SRT_TUNE_FULL);
  TestCandidates(model);
  TestRoundTrip(model, weights);
  TestOtherConditions(file, model);
  TestBadBlobs(model, weights);
  TestSlices(model);
  std::printf("tuning_test: %d checks, %d failures\n", checks, failures);
  return failures == 0 ? 0 : 1;
}
