/* Runs a .sprt file once on deterministic inputs, between two marks for count_blocks.c.
 *
 *   run_model model.sprt [isa] [batch]
 *
 * One thread, kernels chosen by the cost model, symbolic dimensions of size `batch` (1). Prints a
 * line of JSON: the bytes of the arena and of the packed weights, and the kernel of each layer that
 * has weights.
 */
#include <sparsert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void region_begin(void);
void region_end(void);
__attribute__((noinline)) void region_begin(void) { __asm__ volatile("" ::: "memory"); }
__attribute__((noinline)) void region_end(void) { __asm__ volatile("" ::: "memory"); }

static srt_error error = {0, ""};

static int fail(const char* what) {
  fprintf(stderr, "run_model: %s: %s\n", what, error.text);
  return 1;
}

static void* allocate(size_t bytes) {
  void* memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
  if (memory == NULL) exit(2);
  memset(memory, 0, bytes);
  return memory;
}

/* Numbers in [-1, 1), or bytes. */
static void fill(void* memory, size_t bytes, int32_t dtype) {
  uint32_t state = 1;
  if (dtype == SRT_F32) {
    float* to = memory;
    for (size_t i = 0; i < bytes / sizeof(float); ++i) {
      state = state * 1664525u + 1013904223u;
      to[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
  } else if (dtype == SRT_U8 || dtype == SRT_I8) {
    unsigned char* to = memory;
    for (size_t i = 0; i < bytes; ++i) {
      state = state * 1664525u + 1013904223u;
      to[i] = (unsigned char)(state >> 24);
    }
  } /* token numbers and the like: 0 */
}

int main(int argc, char** argv) {
  srt_options options = SRT_OPTIONS_INIT;
  srt_model* model = NULL;
  srt_plan* plan = NULL;
  if (argc < 2) return fail("usage: run_model model.sprt [isa] [batch]");
  options.threads = 1;
  options.tune = SRT_TUNE_OFF;
  if (argc > 2 && argv[2][0] != '\0') options.isa = argv[2];
  const long batch = argc > 3 ? atol(argv[3]) : 1;
  if (srt_model_load_file(argv[1], &options, &model, &error) != SRT_OK) return fail(argv[1]);

  enum { MOST = 8 };
  const int32_t inputs = srt_model_input_count(model), outputs = srt_model_output_count(model);
  if (inputs > MOST || outputs > MOST) return fail("too many inputs or outputs");
  srt_shape shapes[MOST];
  int32_t dtypes[MOST];
  for (int32_t i = 0; i < inputs; ++i) {
    srt_tensor_info info;
    srt_model_input(model, i, &info);
    shapes[i] = info.shape;
    dtypes[i] = info.dtype;
    for (int32_t d = 0; d < info.shape.rank; ++d) {
      if (shapes[i].dims[d] < 0) shapes[i].dims[d] = batch;
    }
  }
  if (srt_plan_make(model, shapes, inputs, &plan, &error) != SRT_OK) return fail("plan");

  void* to[MOST];
  const void* from[MOST];
  size_t from_bytes[MOST], to_bytes[MOST];
  for (int32_t i = 0; i < inputs; ++i) {
    srt_plan_input_bytes(plan, i, &from_bytes[i]);
    void* memory = allocate(from_bytes[i]);
    fill(memory, from_bytes[i], dtypes[i]);
    from[i] = memory;
  }
  for (int32_t i = 0; i < outputs; ++i) {
    srt_plan_output_bytes(plan, i, &to_bytes[i]);
    to[i] = allocate(to_bytes[i]);
  }
  srt_run run;
  memset(&run, 0, sizeof(run));
  run.struct_bytes = sizeof(run);
  run.arena_bytes = (size_t)srt_plan_arena_bytes(plan);
  run.arena = allocate(run.arena_bytes);
  run.input_count = inputs;
  run.inputs = from;
  run.input_bytes = from_bytes;
  run.output_count = outputs;
  run.outputs = to;
  run.output_bytes = to_bytes;

  region_begin();
  const int32_t code = srt_plan_run(plan, &run, &error);
  region_end();
  if (code != SRT_OK) return fail("run");

  printf("{\"arena_bytes\": %llu, \"weight_bytes\": %llu, \"layers\": [",
         (unsigned long long)run.arena_bytes, (unsigned long long)srt_model_weight_bytes(model));
  const char* comma = "";
  for (int32_t i = 0; i < srt_plan_node_count(plan); ++i) {
    srt_node_info node;
    srt_plan_node(plan, i, &node);
    if (node.weights == 0) continue;
    printf("%s{\"name\": \"%.*s\", \"kernel\": \"%s\"}", comma, (int)node.name_bytes, node.name,
           node.kernel);
    comma = ", ";
  }
  printf("]}\n");
  return 0; /* the process ends: nothing is freed */
}
