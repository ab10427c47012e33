// The library as a machine without an operating system gets it (csrc/base/bare.cc): it runs in the
// memory that the caller gives, and says what it has not.
#include "capi_harness.h"

namespace {

using namespace capi;

// A block of memory given out from its beginning on; what is released is not used again.
struct Block {
  alignas(64) char bytes[4 << 20];
  size_t used = 0;
};

void* Take(void* context, size_t bytes, size_t alignment) {
  auto* block = static_cast<Block*>(context);
  const size_t at = (block->used + alignment - 1) / alignment * alignment;
  if (at + bytes > sizeof(block->bytes)) return nullptr;
  block->used = at + bytes;
  return block->bytes + at;
}

void Keep(void*, void*, size_t) {}

Block block;

void TestRuns(const File& file, const Weights& w, const char* isa) {
  block.used = 0;
  const srt_allocator allocator = {&Take, &Keep, &block};
  srt_options options = SRT_OPTIONS_INIT;
  options.isa = isa;
  options.allocator = &allocator;
  options.tune = SRT_TUNE_FULL;  // without a clock nothing is measured
  srt_error error = {};
  srt_model* model = nullptr;
  Expect(srt_model_load(file.data, file.size, &options, &model, &error) == SRT_OK, "load: %s",
         error.text);
  if (model == nullptr) return;
  Expect(srt_model_threads(model) == 1, "%d threads", srt_model_threads(model));
  const int64_t n = 2, h = 9, v = 17;
  srt_shape shape = {};
  shape.rank = 4;
  const int64_t dims[] = {n, kIn, h, v};
  std::memcpy(shape.dims, dims, sizeof(dims));
  srt_plan* plan = nullptr;
  Expect(srt_plan_make(model, &shape, 1, &plan, &error) == SRT_OK, "plan: %s", error.text);
  if (plan == nullptr) return;
  Expect(srt_plan_tuning(plan, nullptr, 0) == 0, "something was measured");
  std::vector<float> x(static_cast<size_t>(n * kIn * h * v));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7 % 23) * 0.125f - 1.0f;
  std::vector<float> y(static_cast<size_t>(n * kOut), -99.0f);
  std::vector<uint64_t> step_ns(static_cast<size_t>(srt_plan_step_count(plan)), 1);
  const void* inputs[] = {x.data()};
  void* outputs[] = {y.data()};
  const size_t input_bytes = x.size() * sizeof(float);
  const size_t output_bytes = y.size() * sizeof(float);
  srt_run run = {};
  run.struct_bytes = sizeof(run);
  run.arena_bytes = srt_plan_arena_bytes(plan);
  run.arena = Take(&block, run.arena_bytes, 64);
  run.input_count = run.output_count = 1;
  run.inputs = inputs;
  run.input_bytes = &input_bytes;
  run.outputs = outputs;
  run.output_bytes = &output_bytes;
  run.step_ns = step_ns.data();
  run.step_count = srt_plan_step_count(plan);
  Expect(srt_plan_run(plan, &run, &error) == SRT_OK, "run: %s", error.text);
  const std::vector<double> want = Reference(w, x.data(), n, h, v);
  for (size_t i = 0; i < y.size(); ++i) {
    Expect(std::fabs(y[i] - want[i]) <= 1e-4 * (1 + std::fabs(want[i])), "%s, output %zu: %g", isa,
           i, static_cast<double>(y[i]));
  }
  for (const uint64_t ns : step_ns) Expect(ns == 0, "a time without a clock");
  srt_plan_free(plan);
  srt_model_free(model);
}

// What there is none of gives a code and a text.
void TestLacks(const File& file) {
  srt_error error = {};
  srt_model* model = nullptr;
  Expect(srt_usable_cores() == 1, "%d cores", srt_usable_cores());
  srt_options options = SRT_OPTIONS_INIT;
  Expect(srt_model_load(file.data, file.size, &options, &model, &error) == SRT_OUT_OF_MEMORY &&
             error.text[0] != 0,
         "no allocator: %s", error.text);
  block.used = 0;
  const srt_allocator allocator = {&Take, &Keep, &block};
  options.allocator = &allocator;
  options.threads = 2;
  Expect(srt_model_load(file.data, file.size, &options, &model, &error) == SRT_UNSUPPORTED &&
             std::strstr(error.text, "threads is 2") != nullptr,
         "threads: %s", error.text);
  options.threads = 1;
  Expect(srt_model_load_file("model.sprt", &options, &model, &error) == SRT_FILE &&
             std::strstr(error.text, "opens no files") != nullptr,
         "files: %s", error.text);
  Expect(model == nullptr, "a model in spite of an error");
}

}  // namespace

int main() {
  const Weights weights = MakeWeights();
  const File file(MakeFile(weights));
  for (int32_t i = 0; srt_isa_name(i) != nullptr; ++i) TestRuns(file, weights, srt_isa_name(i));
  TestLacks(file);
  std::printf("bare: %d checks, %d failures\n", checks, failures);
  return failures != 0;
}
